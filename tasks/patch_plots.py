"""Plots of how a patch was fitted: success and loss, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tasks.drawing import ATTACKED, CLEAN, WIDTH, Plot, plain
from tasks.inline_svg import INK, inline

TALL = 2.1
"""Inches."""
DRAWN = (
    ("success", "Images that met the goal, %", ATTACKED, 100.0),
    ("loss", "Loss", CLEAN, 1.0),
)
"""Field of a record, title, colour, and factor to the unit of the axis."""


def fitting_plots(label: str, history: Sequence[dict[str, float]]) -> list[Plot]:
    """Success and loss of a patch by epoch; nothing where it took no epoch.

    Args:
        label: of the patch.
        history: one record an epoch, with ``success`` as a share and ``loss``.
    """
    return [
        _curve(label, title, [factor * record[name] for record in history], colour, name)
        for name, title, colour, factor in DRAWN
        if history and name in history[0]
    ]


def _curve(label: str, title: str, values: list[float], colour: str, name: str) -> Plot:
    figure = Figure(figsize=(WIDTH, TALL), facecolor="none")
    axes = figure.add_axes((0.1, 0.22, 0.88, 0.74))
    epochs = range(1, len(values) + 1)
    marker = "o" if len(values) <= 30 else ""
    axes.plot(epochs, values, color=colour, linewidth=1.6, marker=marker, markersize=3.2)
    axes.plot([len(values)], values[-1:], "o", color=colour, markersize=5)
    axes.grid(axis="y", color=INK, alpha=0.14, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(x=0.03, y=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(min(8, len(values)), integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.ticklabel_format(useOffset=False)
    if name == "success":
        axes.set_ylim(-2, 103)
        axes.set_yticks(range(0, 101, 25))
    plain(axes, "epoch")
    axes.tick_params(axis="y", length=0)
    words = f"from {values[0]:.3g} in the first epoch to {values[-1]:.3g} in epoch {len(values)}"
    return Plot(title, f"{title}, {label}: {words}", inline(figure, f"fitting {label} {name}"))
