"""From a source to chunks: which item belongs to which chunk, and the images of one chunk.

A catalogue gives every item a numbered chunk and keeps it there: when the dataset changes, items
that are still present stay in their chunks, so that a new image costs one chunk and not all of
them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from storage.decode import DecodeOptions, Rejected, decode
from storage.errors import DamagedChunk, SourceError
from storage.files import Place
from storage.scores import read_rows, write_rows
from storage.sources.items import Content, Item, Source, require_count

RULES = 1
"""Version of the rules of ingestion; it changes whenever they give other images or rows."""

CHUNK_SIZE = 256
CHUNK_BYTES = 64 * 1024 * 1024
DEFAULT_OPTIONS = DecodeOptions()

ROWS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("label", pa.int64()),
        pa.field("height", pa.int64(), nullable=False),
        pa.field("width", pa.int64(), nullable=False),
        pa.field("channels", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
    ]
)
"""One row an image, in the order of the chunk; ``sha256`` is its content digest."""

REJECTED_SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
"""One row for each item that cannot be used."""

CATALOGUE_SCHEMA = pa.schema(
    [
        pa.field("chunk", pa.int64(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("label", pa.int64()),
        pa.field("stamp", pa.string(), nullable=False),
        pa.field("size_hint", pa.int64(), nullable=False),
        pa.field("place", pa.string(), nullable=False),
    ]
)
"""One row an item, in catalogue order: by chunk, and within it by place."""

_LAYOUT = b"image_defender.catalogue"


@dataclass(frozen=True)
class ChunkItems:
    """The items of one chunk.

    Args:
        index: number of the chunk; numbers may have gaps where all items have vanished.
        items: at least one.
    """

    index: int
    items: tuple[Item, ...]

    def key(self, identity_digest: str, decode_options: DecodeOptions = DEFAULT_OPTIONS) -> str:
        """What the chunk is made from: SHA-256, in hexadecimal.

        It covers the version of the rules, the dataset's identity, the decode options and name,
        label and stamp of every item; not the number of the chunk.

        Args:
            identity_digest: digest of the source's ``identity()``.
            decode_options: how the images are decoded.
        """
        stated = {
            "rules": RULES,
            "identity": identity_digest,
            "decode": asdict(decode_options),
            "items": [(item.name, item.label, item.stamp) for item in self.items],
        }
        return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Catalogue:
    """Every item of a dataset with the number of its chunk.

    Args:
        chunk_size: most items of a chunk.
        chunk_bytes: most bytes of a chunk by the items' size hints; one item may exceed it alone.
        entries: (chunk, item) in catalogue order.
    """

    chunk_size: int
    chunk_bytes: int
    entries: tuple[tuple[int, Item], ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.entries)

    def chunks(self) -> list[ChunkItems]:
        """The chunks that have items, by number."""
        return [
            ChunkItems(index, tuple(item for _, item in group))
            for index, group in itertools.groupby(self.entries, key=lambda entry: entry[0])
        ]

    def write(self, path: Place) -> None:
        """Write the catalogue as one Parquet file, atomically; equal ones give equal bytes.

        Raises:
            StoreError: where the file cannot be written.
        """
        layout = {"rules": RULES, "chunk_size": self.chunk_size, "chunk_bytes": self.chunk_bytes}
        metadata = {_LAYOUT: json.dumps(layout, sort_keys=True).encode()}
        rows = [(chunk, *item) for chunk, item in self.entries]
        write_rows(path, _table(rows, CATALOGUE_SCHEMA.with_metadata(metadata)))

    @classmethod
    def read(cls, path: Place) -> Catalogue:
        """Read a catalogue.

        Raises:
            DamagedChunk: where the file is absent, damaged or no catalogue.
        """
        table = read_rows(path)
        try:
            layout = json.loads((table.schema.metadata or {})[_LAYOUT])
            columns = [table[name].to_pylist() for name in CATALOGUE_SCHEMA.names]
            size, limit = int(layout["chunk_size"]), int(layout["chunk_bytes"])
        except (KeyError, ValueError, TypeError) as error:
            raise DamagedChunk(f"expected a catalogue in {path}, got other rows") from error
        entries = tuple((row[0], Item(*row[1:])) for row in zip(*columns, strict=True))
        return cls(size, limit, entries)


def catalogue(
    source: Source,
    previous: Catalogue | None = None,
    *,
    chunk_size: int | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    limit: int | None = None,
    wanted: Callable[[str], bool] | None = None,
) -> Catalogue:
    """Give every item of a source a chunk.

    Items go to chunks in the source's order; a chunk is closed when it has ``chunk_size`` items
    or when the next one would take its size hints past ``chunk_bytes``. With a previous catalogue
    of the same dataset every item that is still there keeps its chunk and its place in it, items
    that are gone leave a gap, and new ones go to the last chunk and then to new ones. A previous
    catalogue with another chunk size or byte limit is of no use and is left aside.

    Args:
        source: the dataset.
        previous: its catalogue as it was before, or None.
        chunk_size: most items of a chunk, 1 or more; None is 256.
        chunk_bytes: most bytes of the decoded images of a chunk, 1 or more.
        limit: takes the first items in the source's order, so many; None takes all.
        wanted: says by its name whether an item is taken at all; None takes all.

    Raises:
        SourceError: where the source lists one name twice or cannot be listed.
        ValueError: where an option is out of range.
    """
    size = CHUNK_SIZE if chunk_size is None else chunk_size
    require_count("chunk_size", size, least=1)
    require_count("chunk_bytes", chunk_bytes, least=1)
    if limit is not None:
        require_count("limit", limit)
    present: dict[str, Item] = {}
    items = (item for item in source.items() if wanted is None or wanted(item.name))
    for item in itertools.islice(items, limit):
        if item.name in present:
            raise SourceError(f"expected every name once, got {item.name!r} twice")
        present[item.name] = item
    if previous is not None and (previous.chunk_size, previous.chunk_bytes) != (size, chunk_bytes):
        previous = None
    entries = [
        (chunk, present.pop(item.name))
        for chunk, item in (previous.entries if previous is not None else ())
        if item.name in present
    ]
    last = entries[-1][0] if entries else 0
    count = sum(1 for chunk, _ in entries if chunk == last)
    taken = sum(item.size_hint for chunk, item in entries if chunk == last)
    for item in present.values():
        if count and (count >= size or taken + item.size_hint > chunk_bytes):
            last, count, taken = last + 1, 0, 0
        entries.append((last, item))
        count, taken = count + 1, taken + item.size_hint
    return Catalogue(size, chunk_bytes, tuple(entries))


def content_digest(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 over shape (three little-endian 32-bit integers) and pixels, in hexadecimal."""
    digest = hashlib.sha256(struct.pack("<3I", *pixels.shape))
    digest.update(pixels.tobytes())
    return digest.hexdigest()


def image_id(name: str, digest: str) -> str:
    """The id of an image: 16 hexadecimal digits of SHA-256 over name, NUL and content digest."""
    return hashlib.sha256(f"{name}\0{digest}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class IngestedChunk:
    """What became of the items of one chunk.

    Args:
        images: uint8 arrays (c, h, w) of those that can be used, in the chunk's order.
        rows: one row an image, by ``ROWS_SCHEMA``.
        rejected: the other items with reasons, by ``REJECTED_SCHEMA``.
    """

    images: list[NDArray[np.uint8]]
    rows: pa.Table
    rejected: pa.Table


def ingest_chunk(
    source: Source,
    items: Sequence[Item],
    decode_options: DecodeOptions = DEFAULT_OPTIONS,
    prepare: Callable[[NDArray[np.uint8]], NDArray[np.uint8] | Rejected] | None = None,
) -> IngestedChunk:
    """Read and decode the items of a chunk.

    Args:
        source: the dataset.
        items: of one chunk.
        decode_options: how images are decoded.
        prepare: what is done with a decoded image (c, h, w) before it counts as the image, or why
            it cannot be used; None: nothing.

    Raises:
        DatasetNotFound: where the dataset has vanished.
        SourceError: where its container cannot be read at all, or ends early.
    """
    images: list[NDArray[np.uint8]] = []
    rows: list[tuple[object, ...]] = []
    rejected: list[tuple[str, str]] = []
    contents: Iterator[Content] = source.read(items)
    for item in items:
        content = next(contents, None)
        if content is None:
            raise SourceError(f"expected the content of {item.name}, got the end of the source")
        if isinstance(content, SourceError):
            rejected.append((item.name, str(content)))
            continue
        result = decode(content, **vars(decode_options))
        if isinstance(result, Rejected):
            rejected.append((item.name, result.reason))
            continue
        pixels = result.pixels if prepare is None else prepare(result.pixels)
        if isinstance(pixels, Rejected):
            rejected.append((item.name, pixels.reason))
            continue
        channels, height, width = pixels.shape
        digest = content_digest(pixels)
        identifier = image_id(item.name, digest)
        rows.append((identifier, item.name, item.label, height, width, channels, digest))
        images.append(pixels)
    return IngestedChunk(images, _table(rows, ROWS_SCHEMA), _table(rejected, REJECTED_SCHEMA))


def _table(rows: Sequence[tuple[object, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ([] for _ in schema)
    arrays = [pa.array(column, part.type) for column, part in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)
