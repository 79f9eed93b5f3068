"""The score card of a stored run: a table that is sorted, searched and turned page by page."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from html import escape
from typing import Any

from flows.app.browse_words import DASH, count

Row = dict[str, Any]

COLUMNS = (
    ("attack", "Attack"),
    ("purifier", "Purifier"),
    ("detector", "Detector"),
    ("policy", "Policy"),
    ("metric", "Metric"),
    ("value", "Value"),
    ("n", "n"),
)
FIGURES = ("value", "n")
LINES = 50
"""Rows of a page."""


@dataclass
class Card:
    """What is shown of the rows of a summary.

    Args:
        rows: of the summary.
        by: column by which they are sorted, empty: as the run wrote them.
        falling: from the highest or last.
        search: words that a row must hold.
        number: of the page, from 1.
    """

    rows: list[Row]
    by: str = ""
    falling: bool = False
    search: str = ""
    number: int = 1
    _texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # imported here because it brings torch along
        from flows.scorecard import TITLES

        self._titles = TITLES
        self._texts = [
            " ".join([*(str(row.get(name, "")) for name, _ in COLUMNS[:5]), self._title(row)])
            for row in self.rows
        ]

    def _title(self, row: Row) -> str:
        return self._titles.get(row["metric"], str(row["metric"]))

    def sort(self, by: str) -> None:
        """Sort by a column: rising first, then falling, then as it was."""
        if by not in dict(COLUMNS):
            return
        self.number = 1
        if self.by != by:
            self.by, self.falling = by, False
        elif not self.falling:
            self.falling = True
        else:
            self.by, self.falling = "", False

    def found(self) -> list[Row]:
        """The rows that are searched for, sorted."""
        words = self.search.lower().split()
        rows = [
            row
            for row, text in zip(self.rows, self._texts, strict=True)
            if all(word in text.lower() for word in words)
        ]
        if not self.by:
            return rows
        if self.by not in FIGURES:
            return sorted(rows, key=lambda row: str(row[self.by]).lower(), reverse=self.falling)
        # what has no value comes last either way
        sign = -1 if self.falling else 1
        return sorted(rows, key=lambda row: _figure(row[self.by], sign))

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return max(1, math.ceil(len(self.found()) / LINES))

    def html(self) -> str:
        """The table."""
        rows = self.found()
        shown = rows[(self.number - 1) * LINES : self.number * LINES]
        head = "".join(self._heading(name, title) for name, title in COLUMNS)
        body = "".join(self._line(row) for row in shown)
        return (
            '<div class="br-scroll br-card" tabindex="0" role="region" aria-label="Score card">'
            f'<table class="br-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
            "</div>"
        )

    def _heading(self, name: str, title: str) -> str:
        sorted_ = self.by == name
        way = ("descending" if self.falling else "ascending") if sorted_ else "none"
        sign = (" \u2193" if self.falling else " \u2191") if sorted_ else ""
        kind = ' class="br-figure"' if name in FIGURES else ""
        return (
            f'<th scope="col" aria-sort="{way}"{kind}><button type="button" '
            f"onclick=\"emitEvent('browse_sort', '{name}')\">{title}{sign}</button></th>"
        )

    def _line(self, row: Row) -> str:
        from flows.scorecard import interval, number

        metric = str(row["metric"])
        between = interval(metric, row)
        told = f" <small>{escape(between)}</small>" if between else ""
        cells = "".join(f"<td>{_label(row[name])}</td>" for name, _ in COLUMNS[1:4])
        knowledge = row.get("knowledge")
        note = " <small>given the clean original</small>" if knowledge == "reference" else ""
        return (
            f'<tr><th scope="row">{_label(row["attack"])}</th>{cells}'
            f"<td>{escape(self._title(row))}{note}</td>"
            f'<td class="br-figure">{escape(number(metric, row["value"]))}{told}</td>'
            f'<td class="br-figure">{count(row["n"])}</td></tr>'
        )


def _figure(value: Any, sign: int) -> tuple[bool, float]:
    return (True, 0.0) if value is None else (False, sign * float(value))


def _label(value: Any) -> str:
    return f'<span class="muted">{DASH}</span>' if value == "none" else escape(str(value))
