"""The dataset that a specification names: found, catalogued, and cut into chunks."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.decode import DecodeOptions
from storage.errors import DamagedChunk, StorageError
from storage.files import Place, sweep
from storage.ingest import Catalogue, ChunkItems, IngestedChunk, catalogue, ingest_chunk
from storage.ledger import digest_of
from storage.sources import SOURCES, Item, Source
from storage.sources.paths import resolve
from tasks.errors import SpecError
from tasks.names import find, suggestion
from tasks.specs import DatasetSpec
from tasks.subject_specs import AlignSpec

if TYPE_CHECKING:
    from tasks.alignment import Alignment


class Dataset:
    """Images of a specification, by chunk.

    Args:
        spec: kind, options and chunking.
        folder: folder of the specification; its paths are relative to it.

    Raises:
        SpecError: for an unknown kind or option.
        DatasetNotFound: where nothing lies at the path.
    """

    def __init__(self, spec: DatasetSpec, folder: Path) -> None:
        self.spec = spec
        self.decode_options = DecodeOptions(colour=spec.colour, resize=spec.resize)
        self.source = _source(spec, folder)
        self.alignment = None if spec.align is None else _alignment(spec.align, folder)
        self._catalogue: Catalogue | None = None

    def identity(self) -> dict[str, Any]:
        """What makes this dataset this one; its content is in the keys of its chunks."""
        chosen = {
            name: pattern
            for name in ("include", "exclude")
            if (pattern := getattr(self.spec, name)) is not None
        }
        return {
            "source": {**self.source.identity(), **chosen},
            "decode": self._decoding(),
            "chunk_size": self.spec.chunk_size,
            "chunk_bytes": self.spec.chunk_bytes,
        }

    def _decoding(self) -> dict[str, Any]:
        found = dataclasses.asdict(self.decode_options)
        return found if self.alignment is None else {**found, "align": self.alignment.identity()}

    def ingest(self, items: Sequence[Item], source: Source | None = None) -> IngestedChunk:
        """Read items and decode them as this data set's images are.

        Args:
            items: of this data set, or of another source.
            source: the other source; None: this data set's own.

        Raises:
            StorageError: where they cannot be read at all.
        """
        return ingest_chunk(source or self.source, items, self.decode_options, self.alignment)

    def open(self, kept: Place, *, keep: bool) -> None:
        """List the items; those that were listed before keep their place.

        Args:
            kept: file that remembers the places.
            keep: write that file anew where it differs.

        Raises:
            StorageError: where the dataset cannot be listed or is empty.
        """
        previous = None
        if kept.exists():
            with contextlib.suppress(DamagedChunk):
                previous = Catalogue.read(kept)
        listed = catalogue(
            self.source,
            previous,
            chunk_size=self.spec.chunk_size,
            chunk_bytes=self.spec.chunk_bytes,
            limit=self.spec.limit,
            wanted=self._wanted,
        )
        if not len(listed):
            raise StorageError(f"dataset: expected images in {self.spec.kind}, found none")
        if keep:
            sweep(kept.parent, kept.name)
            if previous != listed and (self.spec.limit is None or previous is None):
                listed.write(kept)
        self._catalogue = listed
        self.__dict__.pop("chunks", None)

    def _wanted(self, name: str) -> bool:
        include, exclude = self.spec.include, self.spec.exclude
        if exclude is not None and fnmatchcase(name, exclude):
            return False
        return include is None or fnmatchcase(name, include)

    def wanted_items(self) -> Iterator[Item]:
        """The items that the patterns leave, in the source's order; nothing is kept.

        Raises:
            DatasetNotFound, SourceError: where the dataset cannot be listed.
        """
        return (item for item in self.source.items() if self._wanted(item.name))

    @property
    def opened(self) -> bool:
        """Whether the items have been listed."""
        return self._catalogue is not None

    @cached_property
    def chunks(self) -> list[ChunkItems]:
        """The chunks, in order."""
        if self._catalogue is None:
            raise StorageError("dataset: expected to be opened before it is read")
        return self._catalogue.chunks()

    @property
    def chunk_count(self) -> int:
        """Number of chunks."""
        return len(self.chunks)

    @property
    def count(self) -> int:
        """Number of source items, usable or not."""
        return sum(len(chunk.items) for chunk in self.chunks)

    @property
    def largest(self) -> int:
        """Decoded bytes of the largest chunk, as the items' headers say."""
        return max(sum(item.size_hint for item in chunk.items) for chunk in self.chunks)

    def items(self, index: int) -> tuple[Item, ...]:
        """Source items of a chunk."""
        return self.chunks[index].items

    def chunks_of(self, images: int) -> int:
        """Number of chunks, from the first on, that hold so many source items, or all."""
        counted = 0
        for number, chunk in enumerate(self.chunks, 1):
            counted += len(chunk.items)
            if counted >= images:
                return number
        return self.chunk_count

    def chunk_key(self, index: int) -> str:
        """What a chunk is made from: names, labels and stamps of its items, decode options."""
        identity = digest_of(self.source.identity())
        return self.chunks[index].key(identity, self.decode_options)


def _alignment(spec: AlignSpec, folder: Path) -> Alignment:
    # torch and OpenCV, which nothing else needs in order to read a data set
    from tasks.alignment import Alignment

    return Alignment(spec, folder)


def _source(spec: DatasetSpec, folder: Path) -> Source:
    name = find(SOURCES, spec.kind)
    if name is None:
        raise SpecError(
            f"dataset.kind: expected one of {', '.join(SOURCES)}, "
            f"got {spec.kind!r}{suggestion(spec.kind, SOURCES)}"
        )
    kind = SOURCES[name]
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for option in spec.options:
        if option not in fields:
            known = [*fields, *DatasetSpec.model_fields]
            raise SpecError(
                f"dataset.{option}: unknown option of {name}{suggestion(option, known)}; "
                f"expected one of {', '.join(known)}"
            )
    options = dict(spec.options)
    if options.get("path") is not None:
        options["path"] = resolve(str(options["path"]), folder, os.environ)
    for option, field in fields.items():
        missing = dataclasses.MISSING
        needed = field.default is missing and field.default_factory is missing
        if needed and option not in options:
            raise SpecError(f"dataset.{option}: expected a value for {name}, got nothing")
    try:
        source: Source = kind(**options)
    except (TypeError, ValueError) as error:
        raise SpecError(f"dataset.{error}" if ":" in str(error) else f"dataset: {error}") from None
    return source
