"""Errors of face verification against each other, at every threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tasks.drawing import CURVES, WIDTH, Plot, decades, plain, short
from tasks.inline_svg import INK, inline
from tasks.roc import LEGEND, STROKES

LOWEST = 1e-4


def det_plot(systems: Sequence[Mapping[str, Any]]) -> Plot:
    """Detection error trade-off of each defence on clean pictures, both axes logarithmic.

    Args:
        systems: the section ``verification`` of a summary.
    """
    below = 0.5 + LEGEND * len(systems)
    tall = 2.6 + below
    figure = Figure(figsize=(WIDTH, tall), facecolor="none")
    axes = figure.add_axes((0.15, below / tall, 0.82, 2.5 / tall))
    words = []
    for i, one in enumerate(systems):
        name = one["purifier"]
        label = short("no defence" if name == "none" else name, 30)
        words.append(f"{label}: threshold {one['threshold']:.3f}")
        axes.plot(
            np.maximum(one["curve"]["far"], LOWEST / 2),
            np.maximum(one["curve"]["frr"], LOWEST / 2),
            color=CURVES[i % len(CURVES)],
            linestyle=STROKES[i // len(CURVES) % len(STROKES)],
            linewidth=1.8,
            label=words[-1],
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(LOWEST, 1.05)
    axes.set_ylim(LOWEST * 10, 1.05)
    axes.set_xticks(*decades(LOWEST))
    axes.set_yticks(*decades(LOWEST * 10))
    axes.minorticks_off()
    axes.set_ylabel("pairs of one person refused", fontsize=9, color=INK)
    plain(axes, "pairs of two people accepted")
    axes.spines["left"].set_visible(True)
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(-0.02, -0.42 / 2.5),
        fontsize=8.5,
        frameon=False,
        labelcolor=INK,
        borderpad=0,
        labelspacing=0.3,
    )
    title = "Errors on clean pictures"
    return Plot(title, f"{title}: {'; '.join(words)}", inline(figure, "det"))
