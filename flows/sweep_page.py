"""The page of a sweep: the front as a plot and a table, and every trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml
from markupsafe import Markup

from flows.report import fill
from flows.scorecard import BETWEEN, DASH, count, purifier_title
from tasks.sweep_plot import sweep_plot, template_colours
from tasks.sweep_specs import CLEAN, lower_is_better


@dataclass(frozen=True)
class Column:
    """A figure of every trial.

    Args:
        measure: its name, without the prefix of clean images.
        where: ``"mean"`` over the attacks, ``"clean"``, or a group of attacks.
        title: heading of the column.
    """

    measure: str
    where: str
    title: str


def columns(summary: dict[str, Any], *, groups: bool = False) -> list[Column]:
    """The figures that tables show: objectives, constraints, what is not yet among them.

    Args:
        summary: what ``sweep.json`` holds.
        groups: the objectives by group of attacks, too.
    """
    stated = [one["name"] for one in summary["objectives"]]
    measured = list(summary["baselines"][0]["attacks"]["none"])
    names = dict.fromkeys([*stated, *summary["constraints"]])
    names |= dict.fromkeys([*measured, *(f"{CLEAN}{name}" for name in measured)])
    made = []
    for name in names:
        measure = name.removeprefix(CLEAN)
        where = "clean" if name.startswith(CLEAN) else "mean"
        if where == "clean" or summary["attacks"]:
            made.append(Column(measure, where, name.replace("_", " ")))
    if groups:
        found = [group for group in summary["baselines"][0]["groups"] if group != "clean"]
        plain = [name for name in stated if not name.startswith(CLEAN)]
        if len(found) > 1:
            made += [Column(n, g, f"{n.replace('_', ' ')}, {g}") for n in plain for g in found]
    return made


def figure(one: dict[str, Any], column: Column) -> str:
    """A figure of a trial or a baseline in words."""
    if column.where == "mean":
        value = one["mean"].get(column.measure, {}).get("value")
    else:
        value = one["groups"].get(column.where, {}).get(column.measure)
    return DASH if value is None else f"{value:.4f}"


def interval(one: dict[str, Any], column: Column) -> str:
    """The 95 % interval of a figure, empty where there is none."""
    found = one["mean"].get(column.measure, {}) if column.where == "mean" else {}
    low, high = found.get("low"), found.get("high")
    return "" if low is None or high is None else f"{low:.4f}{BETWEEN}{high:.4f}"


def verdict(summary: dict[str, Any]) -> str:
    """How many purifiers were tried and which are best, in one or two sentences."""
    trials, best = len(summary["trials"]), summary["front"]
    text = f"{count(trials)} {'purifier was' if trials == 1 else 'purifiers were'} tried"
    names = [one["name"].replace("_", " ") for one in summary["objectives"]]
    if not best:
        return f"{text}: none keeps the constraints."
    first = summary["trials"][best[0] - 1]["purifier"]
    if len(names) == 1:
        return f"{text}: the best {names[0]} is that of {first}."
    if len(best) == 1:
        return f"{text}: {first} is best in {' and '.join(names)}."
    listed = f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{text}: {count(len(best))} of them cannot be bettered in {listed} at once."


def render(summary: dict[str, Any]) -> str:
    """Make the page of a finished sweep.

    Args:
        summary: what ``sweep.json`` holds.

    Returns:
        HTML that refers to nothing outside itself; the same sweep gives the same text.
    """
    plot = sweep_plot(summary)
    spec = yaml.safe_dump(summary["spec"], sort_keys=False, allow_unicode=True, width=88)
    context = {
        "summary": summary,
        "verdict": verdict(summary),
        "plot": plot and {"title": plot.title, "alt": plot.alt, "svg": Markup(plot.svg)},
        "colours": template_colours(summary),
        "columns": columns(summary),
        "wide": columns(summary, groups=True),
        "figure": figure,
        "interval": interval,
        "title_of": purifier_title,
        "best": [summary["trials"][number - 1] for number in summary["front"]],
        "constraints": _constraints(summary),
        "spec": spec,
    }
    return fill("sweep.html", context)


def _constraints(summary: dict[str, Any]) -> list[str]:
    return [
        f"{name.replace('_', ' ')} {'at most' if lower_is_better(name) else 'at least'} {bound:g}"
        for name, bound in summary["constraints"].items()
    ]
