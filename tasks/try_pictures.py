"""Pictures one at a time, for the app: dropped ones, built-in ones, those of a dataset in order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from storage.errors import SourceError
from storage.images import Pixels
from storage.ingest import ingest_chunk
from storage.sources.items import JSON, Content, Item
from tasks.datasets import Dataset
from tasks.errors import SpecError
from tasks.specs import DatasetSpec

LISTED = 100_000
"""Images of a dataset that can be gone through."""


@dataclass(frozen=True)
class Picture:
    """A picture as it was found: not decoded yet.

    Args:
        name: of the file or image.
        content: encoded bytes, or a decoded array.
        label: index of its class, None where nobody knows.
        classes: names of the classes by label, None where there are none.
        origin: dataset it comes from, as a specification states it; none: a file of its own.
    """

    name: str
    content: Any
    label: int | None = None
    classes: tuple[str, ...] | None = None
    origin: DatasetSpec | None = None

    @property
    def digest(self) -> str:
        """Digest of the content."""
        data = self.content if isinstance(self.content, bytes) else self.content.tobytes()
        return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class OnePicture:
    """A dataset of one picture, which is held in memory.

    Args:
        picture: it.
    """

    kind: ClassVar[str] = "picture"
    doc: ClassVar[str] = "one picture"

    picture: Picture

    def identity(self) -> dict[str, JSON]:
        """Kind and content."""
        return {"kind": self.kind, "digest": self.picture.digest}

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes of where it comes from."""
        return self.picture.classes

    def items(self) -> Iterator[Item]:
        """List the picture."""
        yield Item(self.picture.name, self.picture.label, self.picture.digest, 0)

    def read(self, items: Sequence[Item]) -> Iterator[Content]:
        """Give its content."""
        for _ in items:
            yield self.picture.content


def of_one(picture: Picture, spec: DatasetSpec, folder: Path) -> Dataset:
    """A dataset of one picture, decoded as a specification says."""
    options = spec.model_dump(include={"colour", "resize"})
    # any kind that has no path will do: its source is replaced
    made = Dataset(DatasetSpec.model_validate({"kind": "builtin:shapes", **options}), folder)
    made.source = OnePicture(picture)
    return made


def decoded(picture: Picture, spec: DatasetSpec) -> Pixels:
    """The pixels of a picture, decoded as a specification says, uint8 (c, h, w).

    Raises:
        SourceError: with the reason why it cannot be used.
    """
    dataset = of_one(picture, spec, Path())
    found = ingest_chunk(dataset.source, list(dataset.source.items()), dataset.decode_options)
    if not found.images:
        raise SourceError(f"{picture.name}: {found.rejected['reason'][0].as_py()}")
    return found.images[0]


class Album:
    """The pictures of a dataset, one after the other.

    Args:
        spec: the dataset, as a specification states it.
        folder: folder against which its paths are resolved.

    Raises:
        SpecError, StorageError: where it cannot be listed or is empty.
    """

    def __init__(self, spec: DatasetSpec, folder: Path) -> None:
        self.spec = spec
        self._dataset = Dataset(spec, folder)
        self._items: list[Item] = []
        for item in self._dataset.wanted_items():
            if len(self._items) == LISTED:
                break
            self._items.append(item)
        if not self._items:
            raise SpecError(f"dataset: expected images in {spec.kind}, found none")

    def __len__(self) -> int:
        """How many there are."""
        return len(self._items)

    def take(self, place: int) -> Picture:
        """The picture at a place, counted on from the first after the last.

        Raises:
            SourceError: where it cannot be read.
        """
        item = self._items[place % len(self._items)]
        content = next(iter(self._dataset.source.read([item])))
        if isinstance(content, SourceError):
            raise SourceError(f"{item.name}: {content}")
        classes = self._dataset.source.classes
        return Picture(item.name, content, item.label, classes, self.spec)
