"""Images to train and judge quality metrics on: distorted once, with labels from their likeness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import torch
from torch import Tensor

from defender.distortions import LEVELS
from defender.metrics.fidelity import MS_SSIM_SIDE
from defender.quality_labels import RankScale
from storage.chunks import ChunkRef
from storage.ledger import Mark
from storage.scores import concatenate, read_rows
from tasks.chunk import Input
from tasks.compute import compute_chunk, vouched
from tasks.distorting import SCHEMA, distort_node
from tasks.errors import SpecError
from tasks.specs import DatasetSpec
from tasks.training_data import TrainingData


class DistortedData(TrainingData):
    """The versions of the images of a data set, as images of their own.

    Args:
        spec: which images.
        folder: folder against which the paths in it are resolved.
        store: URL of the store.
        field: name of the data set in the specification, for error messages.
        distortions: kinds of damage, each at five levels.
        scale_of: the data whose versions make the scale of the labels; none: these.

    Raises:
        SpecError, StorageError: where the data set cannot be listed; the text names the field.
    """

    _derived: ClassVar[tuple[str, ...]] = (*TrainingData._derived, "rows", "scale")

    def __init__(
        self,
        spec: DatasetSpec,
        folder: Path,
        store: str,
        field: str,
        distortions: Sequence[str],
        scale_of: DistortedData | None = None,
    ) -> None:
        super().__init__(spec, folder, store, field)
        self.pristine = self.node
        self.node = distort_node(distortions)
        self.distortions = tuple(distortions)
        self.scale_of = scale_of or self

    def _compute(self, index: int) -> Mark:
        decoded = compute_chunk(self.bench, self.pristine, index, {}, None)
        source = self._input(decoded)
        return compute_chunk(self.bench, self.node, index, {"images": source}, source)

    def _vouched(self, index: int) -> Mark | None:
        decoded = vouched(self.bench, self.pristine, index, {})
        if decoded is None:
            return None
        return vouched(self.bench, self.node, index, {"images": self._input(decoded)})

    def _input(self, decoded: Mark) -> Input:
        return Input(
            ChunkRef(self.pristine.fingerprint, decoded.key), decoded.content, decoded.images
        )

    @property
    def versions(self) -> int:
        """Versions of each image, the pristine one among them."""
        return 1 + len(LEVELS) * len(self.distortions)

    @property
    def images(self) -> int:
        """Number of usable images, each of which has several versions."""
        return self.count // self.versions

    @property
    def rejected(self) -> int:
        """Number of source items that could not be used."""
        return self.bench.dataset.count - self.images

    def sizes(self) -> dict[str, int]:
        """How many images there are, and how many versions of them, for the card."""
        return {"images": self.images, "versions": self.count}

    @cached_property
    def rows(self) -> pa.Table:
        """What the versions are, a row each, in their order.

        Raises:
            SpecError: where images are too small to be compared with their distorted versions.
        """
        parts = [read_rows(self.bench.store.rows(self._ref(mark))) for mark in self._filled()]
        rows = concatenate(parts, SCHEMA)
        for name, value in zip(rows["name"].to_pylist(), rows["ms_ssim"].to_pylist(), strict=True):
            if not math.isfinite(value):
                raise SpecError(
                    f"{self.field}.resize: expected images with sides above {MS_SSIM_SIDE} "
                    f"pixels, got {name}; set resize"
                )
        return rows

    def column(self, name: str) -> Tensor:
        """A column of :attr:`rows` that holds numbers, float64 (n,)."""
        return torch.tensor(self.rows[name].to_pylist(), dtype=torch.float64)

    def of_kinds(self, kinds: Sequence[str], *, pristine: bool = True) -> Tensor:
        """Which versions of each image are of some kinds, bool (versions,).

        Args:
            kinds: among the distortions of these data.
            pristine: whether the pristine version is one of them.
        """
        chosen = [pristine, *(name in kinds for name in self.distortions for _ in LEVELS)]
        return torch.tensor(chosen)

    @cached_property
    def scale(self) -> RankScale:
        """The scale that these versions make."""
        return RankScale.of(self.column("ms_ssim"), self.column("vif"))

    @cached_property
    def labels(self) -> Tensor:
        """Quality of all versions on the scale, float32 (n,) in [0, 100]."""
        return self.scale_of.scale.labels(self.column("ms_ssim"), self.column("vif"))
