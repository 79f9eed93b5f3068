"""Fitting of what is the same for all images, a perturbation or a patch, killed at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol

import torch
from torch import Tensor

from defender.attacks.grid_patch import GridPatch
from defender.patch_training import PatchState
from defender.universal import Batches, Goals, Perturbation, UniversalState, UniversalTraining
from storage.files import Place
from storage.images import Pixels
from storage.ledger import digest_of
from tasks.batches import EPOCH_STRIDE, Batch, BatchRule
from tasks.checkpoints import AnyState, States
from tasks.listening import Listener
from tasks.perturbation_files import save_perturbation
from tasks.workbench import Workbench

RULES = 1
"""Version of what this module itself does to a fitting; raising it starts fittings anew."""

FILE = "perturbation.safetensors"
"""The fitted perturbation in the folder of its fitting."""


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


@dataclass(frozen=True)
class Fitting(Generic[AnyState]):
    """What is fitted, and how.

    Args:
        kind: one word for it.
        recipe: ``repr`` of everything that the result depends on besides images and objective.
        version: of the algorithm.
        epochs: passes over the images.
        state: makes a state from what it gave as plain containers.
        states: the states that follow one, or the beginning, an epoch each.
    """

    kind: str
    recipe: str
    version: int
    epochs: int
    state: Callable[..., AnyState]
    states: Callable[[Batches, Goals, AnyState | None], Iterator[AnyState]]


def universal(recipe: UniversalTraining, seed: int) -> Fitting[UniversalState]:
    """The fitting of a universal perturbation."""
    return Fitting(
        "universal",
        repr(recipe),
        recipe.version,
        recipe.epochs,
        UniversalState,
        lambda batches, goals, state: recipe.fit(batches, goals, seed=seed, state=state),
    )


def patch(attack: GridPatch, seeds: Tensor) -> Fitting[PatchState]:
    """The fitting of a patch.

    Args:
        attack: says how.
        seeds: int64 (n,), one an image.
    """
    return Fitting(
        "patch",
        attack.fitting,
        attack.version,
        attack.epochs,
        PatchState,
        lambda batches, goals, state: attack.fit(batches, goals, seeds=seeds, state=state),
    )


def fit_artefact(
    bench: Workbench,
    fitting: Fitting[AnyState],
    batches: EpochBatches,
    objective_factory: Goals,
    listener: Listener | None = None,
    *,
    made_from: Mapping[str, Any],
) -> tuple[AnyState, Place]:
    """Fit something to many images, or go on where an earlier call was stopped, to the same bits.

    The state after each epoch is stored in ``<store>/data/<fingerprint>/``. Called again after the
    last one, it computes nothing.

    Args:
        bench: the run, which says seed, device and store.
        fitting: what is fitted, and how.
        batches: the clean images.
        objective_factory: makes the objective of a batch, from images and places.
        listener: called with the kind, images seen and images to see.
        made_from: what names images and objective: digests and ``repr``, as plain JSON.

    Returns:
        The last state, and the folder of the fitting.

    Raises:
        TypeError: an objective without a gradient.
        ValueError: no images.
        StoreError: where the store cannot be written.
    """
    config = {
        "kind": fitting.kind,
        "rules": RULES,
        "recipe": fitting.recipe,
        "version": fitting.version,
        "seed": bench.spec.seed,
        "device": bench.device.type,
        "made_from": dict(made_from),
    }
    folder = bench.store.stage(digest_of(config)[:24])
    states = States(folder, {"config": digest_of(config)}, fitting.state)
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
                listener(fitting.kind, seen, fitting.epochs * len(batches))

    started = time.perf_counter()
    for state in fitting.states(counted, objective_factory, last):
        states.save(state, spent + time.perf_counter() - started)
        last = state
    if last is None:
        raise RuntimeError("expected a fitted state, got none")
    return last, folder


def fit_perturbation(
    bench: Workbench,
    recipe: UniversalTraining,
    batches: EpochBatches,
    objective_factory: Goals,
    listener: Listener | None = None,
    *,
    made_from: Mapping[str, Any],
) -> Perturbation:
    """Fit a universal perturbation with :func:`fit_artefact`, and leave it as safetensors."""
    fitting = universal(recipe, bench.spec.seed)
    state, folder = fit_artefact(
        bench, fitting, batches, objective_factory, listener, made_from=made_from
    )
    perturbation = Perturbation(state.values)
    save_perturbation(folder / FILE, perturbation)
    return perturbation


def fit_patch(
    bench: Workbench,
    attack: GridPatch,
    batches: EpochBatches,
    objective_factory: Goals,
    listener: Listener | None = None,
    *,
    seeds: Tensor,
    made_from: Mapping[str, Any],
) -> PatchState:
    """Fit a patch with :func:`fit_artefact`, and leave it as safetensors."""
    fitting = patch(attack, seeds)
    state, folder = fit_artefact(
        bench, fitting, batches, objective_factory, listener, made_from=made_from
    )
    save_perturbation(folder / FILE, state.patch)
    return state
