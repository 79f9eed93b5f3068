"""Tables that users bring: rows of text from CSV or Parquet files, checked as they are read."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import SpecError


def text_of(path: Path, data: bytes) -> str:
    """The text of a file.

    Raises:
        SpecError: naming the line that is not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SpecError(f"{path} line {line}: expected UTF-8 text, got other bytes") from None


def csv_rows(
    path: Path, data: bytes, needed: tuple[str, ...], possible: tuple[str, ...]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line and wanted columns of each row of a CSV file with a header.

    Args:
        path: the file, for messages.
        data: its content.
        needed: columns that must be there.
        possible: columns that may be there.

    Raises:
        SpecError: naming the line and what was expected; every cell must have a value.
    """
    reader = csv.reader(StringIO(text_of(path, data), newline=""))
    header = [name.strip() for name in next(reader, [])]
    if missing := [name for name in needed if name not in header]:
        also = f" and perhaps {', '.join(possible)}" if possible else ""
        raise SpecError(
            f"{path} line 1: expected the columns {', '.join(needed)}{also}; "
            f"{', '.join(missing)} missing in {', '.join(header) or 'nothing'}"
        )
    chosen = [(name, header.index(name)) for name in (*needed, *possible) if name in header]
    try:
        for cells in reader:
            if not cells:
                continue
            line = reader.line_num
            if len(cells) != len(header):
                raise SpecError(
                    f"{path} line {line}: expected {len(header)} columns, got {len(cells)}"
                )
            row = {name: cells[place].strip() for name, place in chosen}
            if empty := next((name for name, text in row.items() if not text), None):
                raise SpecError(f"{path} line {line}: {empty}: expected a value, got nothing")
            yield line, row
    except csv.Error as error:
        raise SpecError(f"{path} line {reader.line_num}: {error}") from None


def table_rows(path: Path, needed: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Where a row is, and its wanted columns as text, of a CSV or a Parquet file.

    Args:
        path: a file; one whose name ends in ``.parquet`` is Parquet, every other one CSV with a
            header.
        needed: columns that must be there.

    Raises:
        SpecError: naming the row and what was expected; every cell must have a value.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SpecError(f"expected a table at {path}: {error.strerror}") from None
    if path.suffix != ".parquet":
        for line, row in csv_rows(path, data, needed, ()):
            yield f"line {line}", row
        return
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        if missing := [name for name in needed if name not in file.schema_arrow.names]:
            raise SpecError(
                f"{path}: expected the columns {', '.join(needed)}; "
                f"{', '.join(missing)} missing in {', '.join(file.schema_arrow.names)}"
            )
        columns = file.read(columns=list(dict.fromkeys(needed))).to_pydict()
    except pa.ArrowException as error:
        raise SpecError(f"{path}: expected a Parquet file, got {error}") from None
    for number, cells in enumerate(zip(*columns.values(), strict=True)):
        row = {
            name: "" if cell is None else str(cell).strip()
            for name, cell in zip(columns, cells, strict=True)
        }
        if empty := next((name for name, text in row.items() if not text), None):
            raise SpecError(f"{path} row {number}: {empty}: expected a value, got nothing")
        yield f"row {number}", row
