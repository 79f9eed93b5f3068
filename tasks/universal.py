"""Fitting of a universal perturbation that can be killed at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from defender.universal import Goals, Perturbation, UniversalState, UniversalTraining
from storage.images import Pixels
from storage.ledger import digest_of
from tasks.batches import EPOCH_STRIDE, Batch, BatchRule
from tasks.checkpoints import States
from tasks.perturbation_files import save_perturbation
from tasks.workbench import Workbench

RULES = 1
"""Version of what this module itself does to a fitting; raising it starts fittings anew."""

FILE = "perturbation.safetensors"
"""The fitted perturbation in the folder of its fitting."""

Listener = Callable[[str, int, int], None]


class EpochBatches(Protocol):
    """Images in the order of each epoch, the same every time they are asked for."""

    def __len__(self) -> int:
        """Number of images in an epoch."""
        ...

    def __call__(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of images (n, c, h, w) in [0, 1] with their places int64 (n,)."""
        ...


class ShuffledImages:
    """Clean images in compute batches of one size each, in an order of each epoch's own.

    Args:
        images: uint8 (c, h, w), of any sizes; all of them stay in memory.
        rule: how many images make a batch.
        device: where the batches go.
        seed: seed of all orders.
    """

    def __init__(
        self, images: Sequence[Pixels], rule: BatchRule, device: torch.device, seed: int
    ) -> None:
        self.images = images
        self.rule = rule
        self.device = device
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images)

    def __call__(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch: a batch of a size is complete, or what is left of that size."""
        generator = torch.Generator().manual_seed(self.seed * EPOCH_STRIDE + epoch)
        waiting: dict[tuple[int, ...], list[int]] = {}
        for place in torch.randperm(len(self.images), generator=generator).tolist():
            shape = self.images[place].shape
            places = waiting.setdefault(shape, [])
            places.append(place)
            if len(places) == self.rule.size(*shape[1:]):
                yield self._stack(waiting.pop(shape))
        for places in waiting.values():
            yield self._stack(places)

    def _stack(self, places: list[int]) -> tuple[Tensor, Tensor]:
        images = Batch(places, places).stack(self.images, self.device)
        return images, torch.tensor(places, dtype=torch.int64, device=self.device)


def fitting_config(
    bench: Workbench, recipe: UniversalTraining, made_from: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that a fitted perturbation depends on; its digest names the fitting's folder."""
    return {
        "kind": "universal",
        "rules": RULES,
        "recipe": repr(recipe),
        "version": recipe.version,
        "seed": bench.spec.seed,
        "device": bench.device.type,
        "made_from": dict(made_from),
    }


def fit_perturbation(
    bench: Workbench,
    recipe: UniversalTraining,
    batches: EpochBatches,
    objective_factory: Goals,
    listener: Listener | None = None,
    *,
    made_from: Mapping[str, Any],
) -> Perturbation:
    """Fit a perturbation, or go on where an earlier call was stopped, to the same bits.

    The state after each epoch is stored in ``<store>/data/<fingerprint>/``, and at the end the
    perturbation as safetensors beside it. Called again, it computes nothing.

    Args:
        bench: the run, which says seed, device and store.
        recipe: how to fit.
        batches: the clean images.
        objective_factory: makes the objective of a batch, from images and places.
        listener: called with ``"universal"``, images seen and images to see.
        made_from: what names images and objective: digests and ``repr``, as plain JSON.

    Raises:
        TypeError: an objective without a gradient.
        ValueError: no images.
        StoreError: where the store cannot be written.
    """
    config = fitting_config(bench, recipe, made_from)
    folder = bench.store.stage(digest_of(config)[:24])
    states = States(folder, {"config": digest_of(config)}, UniversalState)
    mark = states.latest()
    last, spent = None, 0.0
    if mark is not None:
        last = states.load(mark, torch.device("cpu"))
        spent = float(mark.receipt["seconds"])

    def counted(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        seen = epoch * len(batches)
        for images, places in batches(epoch):
            yield images, places
            seen += len(images)
            if listener is not None:
                listener("universal", seen, recipe.epochs * len(batches))

    started = time.perf_counter()
    for state in recipe.fit(counted, objective_factory, seed=bench.spec.seed, state=last):
        states.save(state, spent + time.perf_counter() - started)
        last = state
    if last is None:
        raise RuntimeError("expected a fitted state, got none")
    perturbation = Perturbation(last.values)
    save_perturbation(folder / FILE, perturbation)
    return perturbation
