"""The bars of a report: one share a purifier, under each attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from flows.scorecard import Row, attack_title, interval, number, purifier_title

SHOWN = ("accuracy", "label_recovery", "o1")
"""What bars show: the first that the run measured."""


@dataclass(frozen=True)
class Bar:
    """A share with its interval, as percentages."""

    label: str
    value: float
    low: float
    high: float
    text: str
    interval: str
    kind: str


@dataclass(frozen=True)
class Bars:
    """The bars of one attack; those of methods given the clean original stand apart."""

    title: str
    bars: list[Bar] = field(default_factory=list)
    told: list[Bar] = field(default_factory=list)


def bar_groups(rows: Sequence[Row]) -> tuple[str, list[Bars]]:
    """Accuracy as bars under each attack; else label recovery, or how often a hidden picture shows.

    Returns:
        The metric, empty where there is neither, and one group an attack.
    """
    plain = [row for row in rows if row["policy"] == "none"]
    names = {row["metric"] for row in plain}
    metric = next((name for name in SHOWN if name in names), "")
    groups: dict[str, Bars] = {}
    for row in (row for row in plain if row["metric"] == metric and row["value"] is not None):
        title = attack_title(row["attack"], row["threat"])
        group = groups.setdefault(title, Bars(title))
        bars = group.told if row["knowledge"] == "reference" else group.bars
        bars.append(_bar(row, metric))
    return metric, list(groups.values())


def _bar(row: Row, metric: str) -> Bar:
    kind = "told" if row["knowledge"] == "reference" else "plain"
    if row["purifier"] == "none":
        kind = "clean" if row["threat"] == "none" else "attacked"
    return Bar(
        label=purifier_title(row["purifier"]),
        value=100 * row["value"],
        low=100 * row["ci_low"],
        high=100 * row["ci_high"],
        text=number(metric, row["value"]),
        interval=interval(metric, row),
        kind=kind,
    )
