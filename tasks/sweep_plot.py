"""The trials of a sweep by two of its objectives, the front on a line; or one by one."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.drawing import CURVES, WIDTH, Plot, plain, short
from tasks.inline_svg import INK, inline

COLOURS = (*CURVES, "#0e8f99", "#7f8a1f", "#8c6d4f", "#6b7686")
NAMED = 12
"""Purifiers of the front whose names stand in the plot."""
DASHES = (0, (2, 2))


def sweep_plot(summary: dict[str, Any]) -> Plot | None:
    """Every trial as a dot, coloured by its template; None where none has a value.

    With one objective, over the trials in their order; with three, by the first two.

    Args:
        summary: what ``sweep.json`` holds.
    """
    names = [one["name"] for one in summary["objectives"]][:2]
    trials = [one for one in summary["trials"] if None not in (one["objectives"][n] for n in names)]
    if not trials:
        return None
    figure = Figure(figsize=(2 * WIDTH, 4.6), facecolor="none")
    axes = figure.add_axes((0.08, 0.12, 0.9, 0.86))
    colours = template_colours(summary)
    for one in trials:
        x, y = _place(one, names)
        colour = colours[one["template"]]
        filled = colour if one["feasible"] else "none"
        size = 6.5 if one["front"] else 4.0
        axes.plot([x], [y], "o", color=colour, markerfacecolor=filled, markersize=size, alpha=0.85)
    best = [summary["trials"][number - 1] for number in summary["front"]]
    if len(names) == 2:
        _baselines(axes, summary, names)
        if len(summary["objectives"]) == 2:
            _front(axes, summary, best, names)
    else:
        _best_so_far(axes, trials, summary["objectives"][0])
    for one in best[:NAMED]:
        _label(axes, short(one["purifier"], 28), *_place(one, names))
    axes.margins(0.1, 0.08)
    axes.set_ylabel(_axis(summary, len(names) - 1), fontsize=9, color=INK)
    plain(axes, _axis(summary, 0) if len(names) == 2 else "trial")
    axes.spines["left"].set_visible(True)
    title = "Trials by " + " and ".join(name.replace("_", " ") for name in names)
    words = "; ".join(
        f"{one['purifier']}: " + ", ".join(f"{n} {one['objectives'][n]:.3f}" for n in names)
        for one in best
    )
    return Plot(title, f"{title}. On the front: {words or 'none'}", inline(figure, "sweep"))


def template_colours(summary: dict[str, Any]) -> dict[str, str]:
    """The colour of each template of the space; from the eleventh on they come again."""
    space = summary["spec"]["sweep"]["space"]
    return {template: COLOURS[i % len(COLOURS)] for i, template in enumerate(space)}


def _place(one: dict[str, Any], names: list[str]) -> tuple[float, float]:
    values = [float(one["objectives"][name]) for name in names]
    return (values[0], values[1]) if len(values) == 2 else (float(one["trial"]), values[0])


def _axis(summary: dict[str, Any], position: int) -> str:
    one = summary["objectives"][position]
    return f"{one['name'].replace('_', ' ')}: {one['better']} is better"


def _label(axes: Axes, text: str, x: float, y: float) -> None:
    axes.annotate(text, (x, y), xytext=(6, 3), textcoords="offset points", fontsize=8, color=INK)


def _baselines(axes: Axes, summary: dict[str, Any], names: list[str]) -> None:
    """No purifier at all, and the specification's own ones."""
    for one in summary["baselines"]:
        if None in (one["objectives"][name] for name in names):
            continue
        x, y = (one["objectives"][name] for name in names)
        axes.plot([x], [y], "D", color=INK, markerfacecolor="none", markersize=5)
        own = "no purifier" if one["purifier"] == "none" else short(one["purifier"], 28)
        _label(axes, own, x, y)


def _front(
    axes: Axes, summary: dict[str, Any], best: list[dict[str, Any]], names: list[str]
) -> None:
    """What the front reaches at least, as steps, and the intervals of its purifiers."""
    places = sorted(_place(one, names) for one in best)
    lower = summary["objectives"][0]["better"] == "lower"
    axes.step(
        [x for x, _ in places],
        [y for _, y in places],
        where="post" if lower else "pre",
        color=INK,
        alpha=0.5,
        linewidth=0.9,
        linestyle=DASHES,
    )
    colours = template_colours(summary)
    for one in best:
        x, y = _place(one, names)
        for position, name in enumerate(names):
            interval = one["mean"].get(name)
            if interval is None or interval["low"] is None:
                continue
            span = [interval["low"], interval["high"]]
            line = (span, [y, y]) if position == 0 else ([x, x], span)
            axes.plot(*line, color=colours[one["template"]], linewidth=0.9, alpha=0.5)


def _best_so_far(axes: Axes, trials: list[dict[str, Any]], objective: dict[str, str]) -> None:
    """The best feasible value up to each trial."""
    pick = min if objective["better"] == "lower" else max
    steps: list[tuple[float, float]] = []
    for one in trials:
        if one["feasible"]:
            value = float(one["objectives"][objective["name"]])
            steps.append((one["trial"], pick(value, steps[-1][1]) if steps else value))
    axes.step(
        [x for x, _ in steps],
        [y for _, y in steps],
        where="post",
        color=INK,
        alpha=0.5,
        linewidth=0.9,
        linestyle=DASHES,
    )
