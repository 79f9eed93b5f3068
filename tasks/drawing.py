"""What the plots of a report have in common: colours, axes, and the plot as a piece of a page.

Text and axes take the colour of the page around them, so a plot can be read on light and dark
ground; data have mid-tone colours that stand out from both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from matplotlib.axes import Axes

from tasks.inline_svg import INK

CLEAN, ATTACKED, PURIFIED, TOLD = "#3b82c4", "#d9622b", "#2f9e6e", "#9a6fc0"
"""Colours of clean, attacked, blindly purified images, and of those purified by a method that is
given the clean original."""
CURVES = (ATTACKED, TOLD, PURIFIED, CLEAN, "#b08900", "#c2528b")
WIDTH = 4.6
"""Inches of 72 points: a plot fills a narrow screen and half of a wide one."""


@dataclass(frozen=True)
class Plot:
    """One plot.

    Args:
        title: what it shows.
        alt: the same with its main figures in words.
        svg: the plot itself, to be put into a page as it is.
    """

    title: str
    alt: str
    svg: str


def plain(axes: Axes, label: str) -> None:
    """Axes that show their lower edge only, with a label below it."""
    axes.set_facecolor("none")
    axes.set_xlabel(label, fontsize=9, color=INK)
    axes.tick_params(colors=INK, labelsize=8.5, length=3, width=0.6)
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(INK)
        spine.set_linewidth(0.6)


def short(label: str, limit: int = 44) -> str:
    """A label, cut where it is too long for a plot."""
    return label if len(label) <= limit else f"{label[: limit - 1]}…"


def decades(least: float) -> tuple[list[float], list[str]]:
    """Ticks of a logarithmic axis: powers of ten from a share to all, as per cents."""
    ticks = [10.0**power for power in range(math.ceil(math.log10(least)), 1)]
    return ticks, [f"{100 * tick:g} %" for tick in ticks]
