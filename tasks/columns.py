"""The per-image columns of a finished run, and which images count for what."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from storage.scores import concatenate, read_rows
from tasks.errors import SpecError
from tasks.survey import Survey

Column = NDArray[Any]


class Columns:
    """The per-image columns of a finished run, by node, all in the order of the dataset."""

    def __init__(self, state: Survey) -> None:
        self.state = state
        self._tables: dict[str, pa.Table] = {}

    def table(self, name: str) -> pa.Table:
        """All rows of a node."""
        if name not in self._tables:
            parts = [
                read_rows(self.state.bench.store.rows(given.ref))
                for index in range(self.state.chunks)
                if (given := self.state.done[(name, index)]).images
            ]
            if not parts:
                raise ValueError("expected at least one usable image in the dataset, got none")
            schema = max((part.schema for part in parts), key=len)
            self._tables[name] = concatenate((_complete(p, schema) for p in parts), schema)
        return self._tables[name]

    def column(self, name: str, column: str) -> Column:
        """One column of a node as numpy; missing labels are -1."""
        values = self.table(name).column(column)
        if pa.types.is_integer(values.type):
            values = pc.fill_null(values, -1)
        return np.asarray(values.to_numpy())

    def vectors(self, name: str, column: str) -> NDArray[np.float32]:
        """A column of vectors of a node, float32 (n, d)."""
        values = self.table(name).column(column).combine_chunks()
        width = values.type.list_size
        flat = values.flatten().to_numpy(zero_copy_only=False)
        return np.asarray(flat, dtype=np.float32).reshape(-1, width)


def _complete(table: pa.Table, schema: pa.Schema) -> pa.Table:
    for field in schema:
        if field.name not in table.schema.names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table


@dataclass(frozen=True)
class Split:
    """Which images set thresholds and which are counted: bool (n,) each.

    Args:
        calibration: images whose clean scores set the detectors' thresholds.
        held_out: images on which thresholds are tried.
        counted: images of which every other figure is.
    """

    calibration: Column
    held_out: Column
    counted: Column

    @classmethod
    def of(cls, rows: pa.Table, pattern: str | None) -> Split:
        """Split by a pattern of names, or else into halves by the ids.

        Raises:
            SpecError: where the pattern fits no image, or all of them.
        """
        if pattern is None:
            ids = rows.column("id").to_pylist()
            half = np.array([int(name[:8], 16) % 2 == 0 for name in ids])
            return cls(half, ~half, np.ones(len(half), dtype=bool))
        names = rows.column("name").to_pylist()
        fits = np.array([fnmatchcase(name, pattern) for name in names])
        if fits.all() or not fits.any():
            raise SpecError(
                f"calibration: expected a pattern that fits some of the names, {pattern!r} fits "
                f"{int(fits.sum())} of {len(names)}, such as {names[0]!r}"
            )
        return cls(fits, ~fits, ~fits)
