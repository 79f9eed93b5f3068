"""The strengths that were searched for attacks, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flows.scorecard import Cell, Line, Section, Table

INTENSITY = "[0, 1] intensity"
"""The unit of parameters that are also said in grey levels."""
HEADINGS = [("value", "Found"), ("wanted", "Change wanted"), ("reached", "Change reached")]


def strength_table(found: Sequence[dict[str, Any]]) -> Table | None:
    """Attacks as rows, with the parameter that was searched; None where none was.

    Args:
        found: ``strengths`` of a summary.
    """
    if not found:
        return None
    return Table("Attack", HEADINGS, [Section("", "", [_line(one) for one in found])])


def _line(one: dict[str, Any]) -> Line:
    value = Cell(f"{one['value']:.4g}", _levels(one["value"]) if one["unit"] == INTENSITY else "")
    cells: list[Cell | None] = [value]
    cells += [Cell(_levels(one[name]), "") for name in ("wanted", "reached")]
    return Line(one["attack"], one["parameter"], n=one["images"], cells=cells)


def _levels(value: float) -> str:
    """An intensity in steps of 8 bits."""
    return f"{255 * value:.2f}/255"
