"""What a stage function is given: a chunk, its inputs, and where its images, rows and seeds are."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import torch

from storage.chunks import ChunkRef
from storage.errors import DamagedChunk
from storage.images import Pixels, read_images
from storage.scores import read_rows
from tasks.nodes import Node
from tasks.workbench import Workbench

WHOLE = ("prediction", "target_prediction", "certified", "evaluations")
"""Columns of whole numbers."""


@dataclass(frozen=True)
class Input:
    """A finished chunk that another is made from: where it is and what it means."""

    ref: ChunkRef
    content: str
    images: int


@dataclass
class Made:
    """What a stage computed for a chunk: images, rows, or both.

    ``receipt`` is kept with the chunk's mark and is no part of what the chunk means.
    """

    images: list[Pixels] | None = None
    rows: pa.Table | None = None
    rejected: pa.Table | None = None
    receipt: dict[str, Any] = field(default_factory=dict)


class Chunk:
    """What a stage function may ask about the chunk it works on.

    Args:
        bench: models, algorithms and the store.
        node: the stage and its algorithm.
        index: number of the chunk in the dataset.
        inputs: finished input chunks by role.
        source: the ingested chunk, which knows ids and labels; None while ingesting.
    """

    def __init__(
        self,
        bench: Workbench,
        node: Node,
        index: int,
        inputs: dict[str, Input],
        source: Input | None,
    ) -> None:
        self.bench = bench
        self.node = node
        self.index = index
        self.inputs = inputs
        self.source = source
        self._rows: pa.Table | None = None

    def images(self, role: str) -> list[Pixels]:
        """The images of an input, uint8 (c, h, w).

        Raises:
            DamagedChunk: where they are not as many as the ledger says.
        """
        given = self.inputs[role]
        images = read_images(self.bench.store.images(given.ref))
        if len(images) != given.images:
            raise DamagedChunk(f"expected {given.images} images in {given.ref}, got {len(images)}")
        return images

    def failures(self, role: str) -> list[str | None]:
        """Why an input holds no picture of each image, None where it holds one."""
        path = self.bench.store.rows(self.inputs[role].ref)
        if path.is_file():
            table = read_rows(path)
            if "failure" in table.schema.names:
                return list(table["failure"].to_pylist())
        return [None] * self.inputs[role].images

    @property
    def rows(self) -> pa.Table:
        """The ingested rows: ids, names, labels, sizes."""
        if self._rows is None:
            if self.source is None:
                raise DamagedChunk("expected an ingested chunk, got none")
            self._rows = read_rows(self.bench.store.rows(self.source.ref))
        return self._rows

    @property
    def ids(self) -> list[str]:
        """Identifiers of the images."""
        return list(self.rows["id"].to_pylist())

    def labels(self) -> torch.Tensor:
        """True labels, int64 (n,), -1 where there is none."""
        return self.labels_of(self.rows)

    def seeds(self) -> torch.Tensor:
        """One seed an image, int64 (n,): hash(run seed, stage, image id)."""
        return self.seeds_of(self.ids)

    def seeds_of(self, ids: Sequence[str], kind: str | None = None) -> torch.Tensor:
        """The seeds of images with these identifiers in this stage or another kind, int64 (n,)."""
        prefix = f"{self.bench.spec.seed} {kind or self.node.kind} "
        values = [
            int.from_bytes(hashlib.sha256((prefix + i).encode()).digest()[:8], "big") >> 1
            for i in ids
        ]
        return torch.tensor(values, dtype=torch.int64, device=self.bench.device)

    def labels_of(self, rows: pa.Table) -> torch.Tensor:
        """True labels of ingested rows, int64 (n,), -1 where there is none."""
        values = [-1 if v is None else v for v in rows["label"].to_pylist()]
        return torch.tensor(values, dtype=torch.int64, device=self.bench.device)

    def table(self, columns: dict[str, list[float]]) -> pa.Table:
        """Rows of the images: their ids, and columns of numbers, NaN where there is none."""
        arrays: dict[str, pa.Array] = {"id": pa.array(self.ids, pa.string())}
        for name, values in columns.items():
            if name in WHOLE:
                whole = [None if math.isnan(value) else int(value) for value in values]
                arrays[name] = pa.array(whole, pa.int64())
            else:
                arrays[name] = pa.array(values, pa.float64())
        return pa.table(arrays)


StageFunction = Callable[[Chunk], Made]
