"""Images in the rows of Parquet files, read a few rows at a time."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import DatasetNotFound, SourceError
from storage.sources.headers import size_hint
from storage.sources.items import Content, Item

BATCH = 64
"""Rows that are in memory at once."""

_BUFFER = 1 << 18
_SAMPLE = 16
_AUTO_IMAGE = ("image", "img")
_AUTO_LABEL = ("label", "labels", "target", "class")


def list_parts(path: Path, pattern: str = "**/*.parquet") -> list[Path]:
    """The file at ``path``, or the Parquet files in the folder at ``path``, sorted by name.

    Raises:
        DatasetNotFound: where there is none.
    """
    if path.is_file():
        return [path]
    hidden = re.compile(r"(^|/)[._]")
    parts = sorted(
        part
        for part in path.glob(pattern)
        if part.is_file() and not hidden.search(part.relative_to(path).as_posix())
    )
    if not parts:
        found = "a folder without any" if path.is_dir() else "nothing"
        raise DatasetNotFound(f"expected Parquet files ({pattern}) at {path}, got {found}")
    return parts


@dataclass(frozen=True)
class Columns:
    """Which columns hold what.

    Args:
        image: column with the encoded image.
        nested: whether it is a struct of ``bytes`` and ``path``.
        paths: whether that struct has ``path``.
        label: column with the label, or None.
    """

    image: str
    nested: bool
    paths: bool
    label: str | None


def find_columns(schema: pa.Schema, image: str, label: str, where: Path) -> Columns:
    """Decide which columns hold the image and the label.

    Args:
        schema: of a part.
        image: a column's name, or ``auto``: ``image`` or ``img``, or else the only one that fits.
        label: a column's name, or ``auto``: ``label``, ``labels``, ``target`` or ``class`` where
            there is one of integers.
        where: the part, for messages.

    Raises:
        SourceError: where no column fits, or several do.
    """
    fitting = [field.name for field in schema if _is_image(field.type)]
    if image == "auto":
        named = [name for name in _AUTO_IMAGE if name in fitting]
        if not named and len(fitting) != 1:
            raise SourceError(
                f"{where}: expected one image column (binary, or a struct with bytes), got "
                f"{fitting or 'none'} among {schema.names}; state image_column"
            )
        image = (named or fitting)[0]
    elif image not in fitting:
        raise SourceError(
            f"{where}: expected image_column {image!r} to be binary or a struct with bytes, "
            f"got the columns {schema.names}"
        )
    found: str | None
    if label == "auto":
        integers = [f.name for f in schema if pa.types.is_integer(f.type)]
        found = next((name for name in _AUTO_LABEL if name in integers), None)
    elif label in schema.names and pa.types.is_integer(schema.field(label).type):
        found = label
    else:
        raise SourceError(
            f"{where}: expected label_column {label!r} to be a column of integers, "
            f"got the columns {schema.names}"
        )
    kind = schema.field(image).type
    nested = pa.types.is_struct(kind)
    return Columns(image, nested, nested and kind.get_field_index("path") >= 0, found)


def _is_binary(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_image(kind: Any) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)
    return _is_binary(kind)


def class_names(schema: pa.Schema, label: str | None) -> tuple[str, ...] | None:
    """Class names that the Hugging Face hub stores with a schema, or None."""
    stored = (schema.metadata or {}).get(b"huggingface")
    if stored is None or label is None:
        return None
    try:
        names = json.loads(stored)["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def open_part(path: Path) -> pq.ParquetFile:
    """Open a part for reading in small pieces; close it after use.

    Raises:
        SourceError: where it is no Parquet file.
    """
    try:
        return pq.ParquetFile(path, memory_map=False, buffer_size=_BUFFER, pre_buffer=False)
    except FileNotFoundError as error:
        raise DatasetNotFound(f"expected a Parquet file at {path}, got nothing") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"expected a Parquet file at {path}, got: {error}") from error


def list_rows(
    root: Path, parts: Sequence[Path], image: str, label: str, hint: int | None = None
) -> Iterator[Item]:
    """List the rows of all parts in order, without reading the images.

    Names are the paths stored with the images where every image has one and no two are alike;
    else ``<part>/<row>`` with six digits or more. The stamp is the part's size and modification
    time and the row.

    Args:
        root: folder that the parts are named relative to.
        parts: files with the same columns.
        image: as for ``find_columns``.
        label: as for ``find_columns``.
        hint: bytes of a decoded image where all are alike; None estimates it for each row group
            from the encoded size and the first images of the part.
    """
    paths = _stored_paths(parts, image, label)
    start = 0
    for part in parts:
        status = part.stat()
        relative = part.relative_to(root).as_posix()
        with closing(open_part(part)) as file:
            columns = find_columns(file.schema_arrow, image, label, part)
            hints = _hints(file, columns) if hint is None else None
            row = 0
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                size = (hint or 0) if hints is None else hints[group]
                labels: list[int | None] = [None] * count
                if columns.label is not None:
                    labels = file.read_row_group(group, columns=[columns.label], use_threads=False)[
                        0
                    ].to_pylist()
                for value in labels:
                    name = f"{relative.removesuffix('.parquet')}/{row:06d}"
                    yield Item(
                        paths[start + row] if paths else name,
                        value if value is not None and value >= 0 else None,
                        f"{status.st_size}-{status.st_mtime_ns}-{row}",
                        size,
                        f"{relative}#{row}",
                    )
                    row += 1
        start += row


def _stored_paths(parts: Sequence[Path], image: str, label: str) -> list[str]:
    """The path of every row, or nothing where they cannot serve as names."""
    paths: list[str] = []
    for part in parts:
        with closing(open_part(part)) as file:
            columns = find_columns(file.schema_arrow, image, label, part)
            if not columns.paths:
                return []
            table = file.read(columns=[f"{columns.image}.path"], use_threads=False)
        for chunk in table[0].chunks:
            found = chunk.field("path").to_pylist()
            if not all(found):
                return []
            paths.extend(found)
    return paths if len(set(paths)) == len(paths) else []


def _hints(file: pq.ParquetFile, columns: Columns) -> list[int]:
    """Estimated bytes of a decoded image for each row group."""
    encoded = decoded = 0
    contents = _contents(file, columns, 0, rows=_SAMPLE) if file.num_row_groups else iter(())
    for data, _ in zip(contents, range(_SAMPLE), strict=False):
        if isinstance(data, bytes) and (size := size_hint(io.BytesIO(data))):
            encoded, decoded = encoded + len(data), decoded + size
    leaf = f"{columns.image}.bytes" if columns.nested else columns.image
    hints = []
    for group in range(file.num_row_groups):
        metadata = file.metadata.row_group(group)
        stored = sum(
            column.total_uncompressed_size
            for column in (metadata.column(i) for i in range(metadata.num_columns))
            if column.path_in_schema == leaf
        )
        average = stored / max(metadata.num_rows, 1)
        hints.append(int(average * decoded / encoded) if encoded else 0)
    return hints


def _contents(
    file: pq.ParquetFile, columns: Columns, group: int, *, rows: int = BATCH
) -> Iterator[Content]:
    """Images of one row group in order, ``rows`` of them in memory at once."""
    leaf = f"{columns.image}.bytes" if columns.nested else columns.image
    batches = file.iter_batches(
        batch_size=rows, row_groups=[group], columns=[leaf], use_threads=False
    )
    for batch in batches:
        column = batch.column(0)
        for value in column.field("bytes") if columns.nested else column:
            data = value.as_py()
            yield SourceError("cannot be read: the row holds no bytes") if data is None else data


class _Reader:
    """Reads rows of one part by number; ascending numbers cost one pass."""

    def __init__(self, path: Path, image: str, label: str) -> None:
        self._file = open_part(path)
        self._columns = find_columns(self._file.schema_arrow, image, label, path)
        self._starts = [0]
        for group in range(self._file.num_row_groups):
            self._starts.append(self._starts[-1] + self._file.metadata.row_group(group).num_rows)
        self._group = -1
        self._next = 0
        self._stream: Iterator[Content] = iter(())

    def close(self) -> None:
        self._file.close()

    def row(self, row: int) -> Content:
        if not 0 <= row < self._starts[-1]:
            return SourceError(f"cannot be read: the part has no row {row}")
        group = next(g for g, end in enumerate(self._starts[1:]) if row < end)
        if group != self._group or row < self._next:
            self._group, self._next = group, self._starts[group]
            self._stream = _contents(self._file, self._columns, group)
        while self._next < row:
            next(self._stream)
            self._next += 1
        self._next += 1
        return next(self._stream)


def read_rows(root: Path, items: Sequence[Item], image: str, label: str) -> Iterator[Content]:
    """Yield the encoded bytes of items that ``list_rows`` listed, in the order given.

    Raises:
        DatasetNotFound: where a part has vanished.
        SourceError: where a part is damaged.
    """
    part, reader = None, None
    try:
        for item in items:
            name, _, row = item.place.rpartition("#")
            if reader is None or name != part:
                if reader is not None:
                    reader.close()
                part, reader = name, _Reader(root / name, image, label)
            try:
                yield reader.row(int(row))
            except pa.ArrowException as error:
                raise SourceError(f"{root / name} is damaged: {error}") from error
    finally:
        if reader is not None:
            reader.close()
