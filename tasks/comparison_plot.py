"""What two runs came to as dumbbells: a ring for the first, a triangle for the second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from defender.metrics import METRICS
from tasks.comparison import is_share, size
from tasks.drawing import ATTACKED, CLEAN, WIDTH, Plot, plain, short
from tasks.inline_svg import INK, inline
from tasks.requirements import where

Row = dict[str, Any]
MOST = 24
"""Figures of one plot: the largest differences."""
ROW = 0.46
"""Inches of one figure."""
SHAPES = {"worse": ("v", ATTACKED), "better": ("^", CLEAN)}
"""Sign and colour of the second run: the sign alone says as much."""


def difference_plots(rows: Sequence[Row]) -> list[Plot]:
    """One plot of all shares, and one of each other metric, without what is equal.

    Args:
        rows: of a comparison, in its order.
    """
    changed = [row for row in rows if row["change"] in SHAPES]
    groups: dict[str, list[Row]] = {}
    for row in changed:
        groups.setdefault("" if is_share(row["metric"]) else row["metric"], []).append(row)
    return [_dumbbells(metric, groups[metric]) for metric in sorted(groups)]


def _dumbbells(metric: str, rows: Sequence[Row]) -> Plot:
    kept = sorted(rows, key=size, reverse=True)[:MOST]
    kept = [row for row in rows if row in kept]
    tall = ROW * len(kept) + 0.62
    figure = Figure(figsize=(WIDTH, tall), facecolor="none")
    axes = figure.add_axes((0.02, 0.5 / tall, 0.96, 1 - 0.56 / tall))
    scale = 1.0 if metric else 100.0
    words = []
    for i, row in enumerate(kept):
        _dumbbell(axes, row, float(len(kept) - 1 - i), scale, named=not metric)
        first, second = scale * row["first"]["value"], scale * row["second"]["value"]
        words.append(
            f"{_label(row, named=not metric)}: {first:.4g} to {second:.4g}, {row['change']}"
        )
    axes.set_ylim(-0.3, len(kept) - 0.3)
    axes.margins(x=0.02)
    axes.set_yticks([])
    unit = METRICS[metric].unit if metric in METRICS else ""
    title = ", ".join(filter(None, (metric.replace("_", " "), unit))) or "Shares"
    plain(axes, title if metric else "per cent")
    if len(kept) < len(rows):
        title += f", the {len(kept)} of {len(rows)} that changed most"
    return Plot(title, f"{title}. {'; '.join(words)}", inline(figure, f"dumbbells {metric}"))


def _label(row: Row, *, named: bool) -> str:
    place = where(row)
    return f"{row['metric'].replace('_', ' ')} · {place}" if named else place


def _dumbbell(axes: Axes, row: Row, y: float, scale: float, *, named: bool) -> None:
    shape, colour = SHAPES[row["change"]]
    first, second = scale * row["first"]["value"], scale * row["second"]["value"]
    axes.axhline(y, color=INK, linewidth=0.5, alpha=0.25)
    interval = row["interval"]
    if interval is not None and interval["all"]:
        ends = [first + scale * interval[end] for end in ("low", "high")]
        axes.plot(ends, [y, y], color=INK, linewidth=0.9, alpha=0.8, marker="|", zorder=3)
    axes.plot([first, second], [y, y], color=colour, linewidth=2.6, alpha=0.75)
    axes.plot([first], [y], "o", color=INK, markerfacecolor="none", markersize=6)
    axes.plot([second], [y], shape, color=colour, markersize=7)
    text = short(_label(row, named=named), 56)
    axes.text(0.0, y + 0.3, text, fontsize=8.5, color=INK, transform=axes.get_yaxis_transform())
    axes.text(
        1.0,
        y + 0.3,
        f"{second - first:+.3g}" if scale == 1 else f"{second - first:+.1f} pp",
        fontsize=8.5,
        ha="right",
        color=INK,
        transform=axes.get_yaxis_transform(),
    )
