"""Clean images with what attacks made of them, to train networks that purify."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from storage.images import Pixels, read_images
from storage.ledger import Mark, digest_of
from tasks.budget import check_budget
from tasks.errors import ModelError, SpecError
from tasks.nodes import Node
from tasks.specs import ComputeSpec, DatasetSpec, label_of
from tasks.survey import Survey, survey
from tasks.train_specs import PurifyTrainSpec
from tasks.training_data import Counter, TrainingData
from tasks.without_prefect import compute_left, left

MADE = ("ingest", "target", "fit", "strength", "calibrate", "attack")
"""Stages that the attacked images come from."""


def run_fields(spec: PurifyTrainSpec) -> dict[str, Any]:
    """What the specification of a run says of attacks, as that of a training has it."""
    compute = ComputeSpec(workers=spec.compute.threads, device=spec.compute.device)
    return {
        "seed": spec.seed,
        "model": spec.classifier,
        "metric": spec.metric,
        "attacks": spec.attacks,
        "compute": compute,
    }


class AttackedData(TrainingData):
    """Images of one size, each with what every attack made of it.

    The chunks are those of a run with the same seed, attacks and data set.

    Args:
        spec: the training, which says how images are attacked.
        dataset: which images.
        folder: folder against which the paths in it are resolved.
        store: URL of the store.
        field: name of the data set in the specification, for error messages.

    Raises:
        SpecError, StorageError: where the data set cannot be listed; the text names the field.
    """

    def __init__(
        self, spec: PurifyTrainSpec, dataset: DatasetSpec, folder: Path, store: str, field: str
    ) -> None:
        super().__init__(dataset, folder, store, field, **run_fields(spec))
        self.attacks = [label_of(attack) for attack in spec.attacks]
        self._state: Survey | None = None

    def check(self) -> None:
        """Check the attacks and what they attack.

        Raises:
            SpecError, ModelError, StorageError: saying what is wrong and where.
        """
        super().check()
        try:
            self.bench.check()
        except (SpecError, ModelError) as error:
            text = str(error)
            if text.startswith("model"):
                raise type(error)(f"classifier{text.removeprefix('model')}") from None
            raise

    def ingest(self, progress: Counter | None = None) -> None:
        """Decode and attack what has not been yet.

        Args:
            progress: called with finished chunks of all stages and all chunks.

        Raises:
            SpecError, ModelError, StorageError, BudgetError: saying what is wrong.
        """
        state = survey(self.bench)
        if left(state, MADE):
            check_budget(self.bench, state)
            compute_left(state, MADE, progress)
        self._settle(state)

    def ingested(self) -> bool:
        """Whether the ledger vouches for every chunk."""
        if self._marks is None:
            state = survey(self.bench)
            if left(state, MADE):
                return False
            self._settle(state)
        return True

    def _settle(self, state: Survey) -> None:
        self._state = state
        self._remember([self._mark(self.node, index) for index in range(self.chunk_count)])

    def _mark(self, node: Node, index: int) -> Mark:
        state = self._known
        work = state.work(state.plan.nodes[node.name], index)
        mark = None if work is None else state.mark(work, hashed=False)
        if mark is None:
            raise RuntimeError(f"expected a mark of {node.name} chunk {index}, got none")
        return mark

    @property
    def _known(self) -> Survey:
        if self._state is None:
            raise SpecError(f"{self.field}: expected to be ingested before it is used")
        return self._state

    @property
    def _versions(self) -> list[str]:
        """The stages that make the versions of an image, the clean one first."""
        return [self.node.name, *(f"attack/{label}" for label in self.attacks)]

    @property
    def seconds(self) -> float:
        """Seconds that decoding and attacks took, whenever that was done."""
        nodes = [node for node in self._known.plan if node.kind in MADE]
        marks = (self._mark(n, index) for n in nodes for index in self._known.indices(n))
        return float(sum(mark.receipt.get("seconds", 0.0) for mark in marks))

    @cached_property
    def digest(self) -> str:
        """Digest of what all images and all that was made of them are."""
        done, chunks = self._known.done, range(self.chunk_count)
        return digest_of([[done[name, i].content for name in self._versions] for i in chunks])

    @cached_property
    def labels(self) -> Tensor:
        """Nothing is known of the images but what they are: zeros, int64 (n,)."""
        return torch.zeros(self.count, dtype=torch.int64)

    @property
    def item_shape(self) -> tuple[int, ...]:
        """Shape of an image with all its versions."""
        return (len(self._versions), *self.shape)

    def chunk(self, index: int) -> list[Pixels]:
        """The images of a chunk, uint8 (1 + attacks, c, h, w) each, the clean version first."""
        done = self._known.done
        if not self.marks[index].images:
            return []
        store = self.bench.store
        made = [read_images(store.images(done[name, index].ref)) for name in self._versions]
        return [np.stack(versions) for versions in zip(*made, strict=True)]

    def clean_and_attacked(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each image (1, c, h, w) with what attacks made of it (attacks, c, h, w), in [0, 1]."""
        for index in range(self.chunk_count):
            for versions in self.chunk(index):
                pixels = torch.from_numpy(versions).float().div_(255)
                yield pixels[:1], pixels[1:]
