"""Requirements of a run as terminal and report show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flows.gates import stored_summary
from flows.scorecard import DASH, PERCENT, interval, number
from tasks.errors import RequirementError
from tasks.requirements import where

if TYPE_CHECKING:
    from storage.files import Place

Line = dict[str, Any]


def requirements(folder: Place) -> dict[str, Any]:
    """What the summary of a finished run says of its requirements; nothing where it has none."""
    summary = stored_summary(folder)
    return {name: summary[name] for name in ("requirements", "last") if name in summary}


def raise_unmet(missed: Sequence[str]) -> None:
    """End a command whose run does not meet its requirements.

    Raises:
        RequirementError: where there are such requirements.
    """
    if missed:
        raise RequirementError("; ".join(missed))


def print_requirements(folder: Place) -> None:
    """Print what a finished run requires, and whether that holds, row by row."""
    found = requirements(folder)
    if not found:
        return
    from rich.table import Table

    from flows.terminal import wide_console

    table = Table(title="requirements", title_justify="left")
    for name in ("", "requirement", "of"):
        table.add_column(name, overflow="fold")
    for name in ("value", "last run", "difference"):
        table.add_column(name, justify="right")
    for section in sections(found["requirements"]):
        for i, line in enumerate(section["lines"]):
            table.add_row(
                "met" if line["passed"] else "NOT MET",
                section["text"] if i == 0 else "",
                "\n".join((line["where"], *line["notes"])),
                line["value"],
                line["last"],
                line["difference"],
            )
    wide_console().print(table, markup=False)


def sections(results: Sequence[Line]) -> list[Line]:
    """Requirements with their rows in words."""
    made = []
    for one in results:
        lines = [_line(row) for row in one["rows"]]
        if one["problem"] is not None:
            empty = dict.fromkeys(("value", "interval", "last", "difference"), DASH)
            lines.append({**empty, "passed": False, "where": one["problem"], "notes": []})
        made.append({"text": one["text"], "passed": one["passed"], "lines": lines})
    return made


def _line(row: Line) -> Line:
    metric = row["metric"]
    return {
        "passed": row["passed"],
        "where": where(row),
        "value": number(metric, row["value"]),
        "interval": interval(metric, row),
        "last": number(metric, row["last"]),
        "difference": signed(metric, row["difference"]),
        "notes": [*row["misses"], *row["notes"]],
    }


def signed(metric: str, difference: float | None) -> str:
    """A difference of two figures with its sign; of two shares, in per cent points."""
    if difference is None:
        return DASH
    text = number(metric, abs(difference))
    if text.endswith(PERCENT):
        text = f"{text.removesuffix(PERCENT)} pp"
    sign = "±" if difference == 0 else "+" if difference > 0 else "-"
    return f"{sign}{text}"


def verdict(results: Sequence[Line]) -> list[str]:
    """How many requirements hold, in a sentence; nothing where there are none."""
    if not results:
        return []
    broken = [one for one in results if not one["passed"]]
    if not broken:
        what = "requirement is met" if len(results) == 1 else "requirements are met"
        return [f"{'The' if len(results) == 1 else f'All {len(results)}'} {what}."]
    kind = "requirement is" if len(results) == 1 else "requirements are"
    listed = "; ".join(one["text"] for one in broken)
    return [f"{len(broken)} of {len(results)} {kind} not met: {listed}."]
