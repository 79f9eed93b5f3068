"""Per-image rows in Parquet: one part a chunk, merged by concatenation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import DamagedChunk
from storage.files import Place, Written, read_patiently, write_hashed


def write_rows(path: Place, table: pa.Table) -> Written:
    """Write rows so that the file is whole or absent; the same rows give the same bytes.

    Raises:
        StoreError: where the disk is full or cannot be written.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return write_hashed(path, sink.getvalue().to_pybytes())


def read_rows(path: Place) -> pa.Table:
    """Read the rows of one file.

    Raises:
        DamagedChunk: where the file is absent or a page does not agree with its checksum.
    """
    try:
        return pq.read_table(pa.BufferReader(read_patiently(path)), page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise DamagedChunk(f"cannot read the rows in {path}: {error}") from error


def read_columns(path: Place, names: Sequence[str]) -> pa.Table:
    """Read some columns of a file; the others are not read.

    Returns:
        The columns that the file has, in the order of the file.

    Raises:
        DamagedChunk: where the file is absent or a page does not agree with its checksum.
    """
    try:
        with path.open("rb") as source:
            file = pq.ParquetFile(source, page_checksum_verification=True)
            return file.read([name for name in file.schema_arrow.names if name in names])
    except (OSError, pa.ArrowException) as error:
        raise DamagedChunk(f"cannot read the rows in {path}: {error}") from error


def column_types(path: Place) -> dict[str, pa.DataType]:
    """Names and types of the columns of a file.

    Raises:
        DamagedChunk: where the file is absent or damaged.
    """
    try:
        with path.open("rb") as source:
            return {field.name: field.type for field in pq.ParquetFile(source).schema_arrow}
    except (OSError, pa.ArrowException) as error:
        raise DamagedChunk(f"cannot read the rows in {path}: {error}") from error


def concatenate(tables: Iterable[pa.Table], schema: pa.Schema) -> pa.Table:
    """Join parts under a stated schema, so that no column of a later part vanishes."""
    parts = [table.select(schema.names).cast(schema) for table in tables]
    return pa.concat_tables(parts) if parts else schema.empty_table()
