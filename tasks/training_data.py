"""Images to train on: ingested by chunk, shuffled anew each epoch within bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from storage.chunks import ChunkRef
from storage.errors import DatasetNotFound
from storage.images import Pixels, read_images
from storage.ledger import Mark, digest_of
from storage.scores import read_rows
from tasks.batches import EPOCH_STRIDE
from tasks.compute import compute_chunk, vouched
from tasks.errors import SpecError
from tasks.plan import ingest_node
from tasks.specs import DatasetSpec, Spec
from tasks.workbench import Workbench

Batch = tuple[Tensor, Tensor]
Counter = Callable[[int, int], None]


class TrainingData:
    """A labelled data set of one image size, by chunk.

    The chunks are those that every other kind of run over the same data set uses.

    Args:
        spec: which images.
        folder: folder against which the paths in it are resolved.
        store: URL of the store.
        field: name of the data set in the specification, for error messages.
        run: what is done to the images: further fields of the specification of a run.

    Raises:
        SpecError, StorageError: where the data set cannot be listed; the text names the field.
    """

    _derived: ClassVar[tuple[str, ...]] = ("labels", "shape", "digest")
    """What is computed of the chunks once, and anew when there are others."""

    def __init__(self, spec: DatasetSpec, folder: Path, store: str, field: str, **run: Any) -> None:
        self.field = field
        self.bench = Workbench(Spec(name="training", dataset=spec, **run), folder, store)
        try:
            self.node = ingest_node(self.bench.dataset)
            self.bench.catalogue(keep=True)
        except SpecError as error:
            raise SpecError(field + str(error).removeprefix("dataset")) from None
        except DatasetNotFound as error:
            raise DatasetNotFound(f"{field}: {error}") from None
        self._marks: list[Mark] | None = None
        self._whole: Batch | None = None

    def check(self) -> None:
        """Check everything that can be checked before images are decoded.

        Raises:
            SpecError, ModelError, StorageError: saying what is wrong and where.
        """
        _ = self.chunk_count

    @property
    def chunk_count(self) -> int:
        """Number of chunks."""
        return self.bench.dataset.chunk_count

    def ingest(self, progress: Counter | None = None) -> None:
        """Decode what has not been decoded yet.

        Args:
            progress: called with finished chunks and all chunks.

        Raises:
            StorageError: where the data set cannot be read or the store cannot be written.
        """
        marks = []
        for index in range(self.chunk_count):
            marks.append(self._compute(index))
            if progress is not None:
                progress(index + 1, self.chunk_count)
        self._remember(marks)

    def ingested(self) -> bool:
        """Whether the ledger vouches for every chunk."""
        if self._marks is not None:
            return True
        marks = []
        for index in range(self.chunk_count):
            mark = self._vouched(index)
            if mark is None:
                return False
            marks.append(mark)
        self._remember(marks)
        return True

    def _compute(self, index: int) -> Mark:
        """Make a chunk, unless the ledger vouches for it."""
        return compute_chunk(self.bench, self.node, index, {}, None)

    def _vouched(self, index: int) -> Mark | None:
        """The mark of a chunk that is done, or None."""
        return vouched(self.bench, self.node, index, {})

    def _remember(self, marks: list[Mark]) -> None:
        self._marks = marks
        for name in self._derived:
            self.__dict__.pop(name, None)

    @property
    def marks(self) -> list[Mark]:
        """The marks of all chunks, in the order of the data set."""
        if self._marks is None:
            raise SpecError(f"{self.field}: expected to be ingested before it is used")
        return self._marks

    @property
    def counts(self) -> list[int]:
        """Number of usable images of each chunk."""
        return [mark.images for mark in self.marks]

    @property
    def count(self) -> int:
        """Number of usable images."""
        return sum(self.counts)

    @property
    def rejected(self) -> int:
        """Number of source items that could not be used."""
        return self.bench.dataset.count - self.count

    def sizes(self) -> dict[str, int]:
        """How many images there are, for the card."""
        return {"images": self.count}

    @property
    def seconds(self) -> float:
        """Seconds that ingestion took, whenever it was done."""
        return float(sum(mark.receipt.get("seconds", 0.0) for mark in self.marks))

    @cached_property
    def digest(self) -> str:
        """Digest of what all images are."""
        return digest_of([mark.content for mark in self.marks])

    @cached_property
    def labels(self) -> Tensor:
        """Labels of all images, int64 (n,).

        Raises:
            SpecError: where an image has none.
        """
        values: list[int] = []
        for mark in self._filled():
            rows = read_rows(self.bench.store.rows(self._ref(mark)))
            for name, label in zip(rows["name"], rows["label"], strict=True):
                if not label.is_valid:
                    raise SpecError(f"{self.field}: expected a label for {name}, got none")
                values.append(label.as_py())
        return torch.tensor(values, dtype=torch.int64)

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image.

        Raises:
            SpecError: where there are no images, or images of several shapes.
        """
        shapes: dict[tuple[int, int, int], str] = {}
        for mark in self._filled():
            rows = read_rows(self.bench.store.rows(self._ref(mark)))
            columns = (rows[name].to_pylist() for name in ("channels", "height", "width", "name"))
            for channels, height, width, name in zip(*columns, strict=True):
                shapes.setdefault((channels, height, width), name)
        if not shapes:
            raise SpecError(f"{self.field}: expected usable images, got none")
        if len(shapes) > 1:
            (first, one), (second, other), *_ = shapes.items()
            raise SpecError(
                f"{self.field}.resize: expected images of one size to train on, got {first} "
                f"({one}) and {second} ({other}); set resize"
            )
        return next(iter(shapes))

    @property
    def item_shape(self) -> tuple[int, ...]:
        """Shape of what is learned from at a time: an image."""
        return self.shape

    @property
    def nbytes(self) -> int:
        """Bytes of all decoded images."""
        return self.count * int(np.prod(self.item_shape))

    def chunk(self, index: int) -> list[Pixels]:
        """The images of a chunk, uint8 :attr:`item_shape` each; none where all were rejected."""
        mark = self.marks[index]
        return read_images(self.bench.store.images(self._ref(mark))) if mark.images else []

    def batches(self, epoch: int, *, seed: int, batch: int, window_bytes: int) -> Iterator[Batch]:
        """The batches of an epoch, the same every time they are asked for.

        A data set that fits the window is shuffled as a whole. A larger one is read in a random
        order of chunks; as many as fit the window are shuffled together, and what is left of a
        window goes into the batches of the next. The incomplete last batch is dropped.

        Args:
            epoch: counted from 0.
            seed: seed of all orders.
            batch: images a batch.
            window_bytes: decoded bytes shuffled together; at least one chunk is.

        Yields:
            Images, uint8 (batch, *item_shape), and labels (batch,).
        """
        generator = torch.Generator().manual_seed(seed * EPOCH_STRIDE + epoch)
        if self.nbytes <= window_bytes:
            windows = iter([self._everything()])
        else:
            windows = self._windows(generator, window_bytes)
        yield from shuffled(windows, generator, batch)

    def _everything(self) -> Batch:
        if self._whole is None:
            self._whole = self._gather([i for i, count in enumerate(self.counts) if count])
        return self._whole

    def _windows(self, generator: torch.Generator, window_bytes: int) -> Iterator[Batch]:
        image, counts = int(np.prod(self.item_shape)), self.counts
        window: list[int] = []
        taken = 0
        for index in torch.randperm(self.chunk_count, generator=generator).tolist():
            size = counts[index] * image
            if window and taken + size > window_bytes:
                yield self._gather(window)
                window, taken = [], 0
            if size:
                window.append(index)
                taken += size
        if window:
            yield self._gather(window)

    def _gather(self, chunks: list[int]) -> Batch:
        counts = self.counts
        ends = np.cumsum([0, *counts])
        total = sum(counts[index] for index in chunks)
        pixels = torch.empty((total, *self.item_shape), dtype=torch.uint8)
        labels = torch.empty(total, dtype=self.labels.dtype)
        start = 0
        for index in chunks:
            stop = start + counts[index]
            pixels[start:stop] = torch.from_numpy(np.stack(self.chunk(index)))
            labels[start:stop] = self.labels[ends[index] : ends[index + 1]]
            start = stop
        return pixels, labels

    def _filled(self) -> list[Mark]:
        return [mark for mark in self.marks if mark.images]

    def _ref(self, mark: Mark) -> ChunkRef:
        return ChunkRef(self.node.fingerprint, mark.key)


def shuffled(windows: Iterator[Batch], generator: torch.Generator, batch: int) -> Iterator[Batch]:
    """Shuffle each window and cut the whole into full batches, across windows."""
    rest: Batch | None = None
    for pixels, labels in windows:
        order = torch.randperm(len(labels), generator=generator)
        start = 0
        if rest is not None:
            start = batch - len(rest[1])
            first = order[:start]
            joined = torch.cat([rest[0], pixels[first]]), torch.cat([rest[1], labels[first]])
            if len(joined[1]) < batch:
                rest = joined
                continue
            yield joined
        full = start + (len(order) - start) // batch * batch
        for place in range(start, full, batch):
            chosen = order[place : place + batch]
            yield pixels[chosen], labels[chosen]
        left = order[full:]
        rest = (pixels[left], labels[left]) if len(left) else None
        del pixels, labels
