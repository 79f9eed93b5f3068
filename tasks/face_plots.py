"""Errors of face verification against each other, at every threshold."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from defender.metrics.verification import det
from tasks.columns import Columns, Split
from tasks.drawing import CURVES, WIDTH, Plot, plain, short
from tasks.face_figures import FaceFigures
from tasks.inline_svg import INK, inline
from tasks.survey import Survey

LOWEST = 1e-4
STROKES = ("solid", (0, (5, 2)), (0, (1, 1.5)))


def det_plot(state: Survey, columns: Columns) -> Plot:
    """Detection error trade-off of each defence on clean pictures, both axes logarithmic.

    Args:
        state: a finished run on a face encoder.
        columns: its per-image columns.
    """
    split = Split.of(columns.table("ingest"), state.bench.spec.calibration)
    faces = FaceFigures(state.bench, columns, split)
    purifiers = [node.purifier for node in faces.systems_of(state)]
    below = 0.5 + 0.17 * len(purifiers)
    tall = 2.6 + below
    figure = Figure(figsize=(WIDTH, tall), facecolor="none")
    axes = figure.add_axes((0.15, below / tall, 0.82, 2.5 / tall))
    words = []
    for i, name in enumerate(purifiers):
        far, frr = det(faces.pairs(f"score/none/{name}"))
        limit = faces.threshold(name)
        label = short("no defence" if name == "none" else name, 30)
        words.append(f"{label}: threshold {limit:.3f}")
        colour, stroke = CURVES[i % len(CURVES)], STROKES[i // len(CURVES) % len(STROKES)]
        axes.plot(
            np.maximum(far, LOWEST / 2),
            np.maximum(frr, LOWEST / 2),
            color=colour,
            linestyle=stroke,
            linewidth=1.8,
            label=words[-1],
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(LOWEST, 1.05)
    axes.set_ylim(LOWEST * 10, 1.05)
    marks = {1e-4: "0.01 %", 1e-3: "0.1 %", 0.01: "1 %", 0.1: "10 %", 1.0: "100 %"}
    axes.set_xticks(list(marks), list(marks.values()))
    axes.set_yticks(list(marks)[1:], list(marks.values())[1:])
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
