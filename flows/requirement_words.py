"""Requirements of a run and what came of them, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flows.scorecard import DASH, PERCENT, interval, number
from tasks.requirements import where

Line = dict[str, Any]


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
