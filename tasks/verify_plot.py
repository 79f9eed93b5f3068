"""ROC and DET curves of verification systems, as pictures of their own."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.drawing import CURVES, decades, short
from tasks.inline_svg import SETTINGS
from tasks.roc import STROKES

Kind = Literal["roc", "det"]
LABELS = {
    "roc": "genuine pairs accepted (TPR)",
    "det": "genuine pairs refused (FRR)",
}


def curves(systems: Sequence[Mapping[str, Any]], kind: str) -> str:
    """The curves of all systems as SVG; the same figures give the same text.

    The false accept rate is logarithmic from half of an impostor pair on, and so is the share of
    refused pairs; the operating point of each system is marked.

    Args:
        systems: as ``verify.json`` lists them.
        kind: ``roc`` or ``det``.
    """
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axes = figure.subplots()
    least = 0.5 / max(one["impostor_pairs"] for one in systems)
    lowest = 0.5 / max(one["genuine_pairs"] for one in systems)
    for i, one in enumerate(systems):
        _curve(axes, one, i, kind, least)
    axes.set(xlabel="impostor pairs accepted (FAR)", ylabel=LABELS[kind])
    axes.set_xscale("log")
    axes.set_xlim(least, 1.05)
    axes.set_xticks(*decades(least))
    if kind == "det":
        axes.set_yscale("log")
        axes.set_ylim(lowest, 1.05)
        axes.set_yticks(*decades(lowest))
    else:
        axes.set_ylim(-0.02, 1.02)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.minorticks_off()
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8.5, loc="lower right" if kind == "roc" else "lower left")
    sink = io.StringIO()
    with matplotlib.rc_context({**SETTINGS, "svg.hashsalt": kind}):
        figure.savefig(sink, format="svg", metadata={"Date": None})
    return sink.getvalue()


def _curve(axes: Axes, one: Mapping[str, Any], i: int, kind: str, least: float) -> None:
    far, frr = (np.array(one["curve"][name]) for name in ("far", "frr"))
    shown = frr if kind == "det" else 1 - frr
    colour = CURVES[i % len(CURVES)]
    axes.plot(
        np.maximum(far, least),
        shown,
        drawstyle="steps-post",
        color=colour,
        linewidth=1.6,
        linestyle=STROKES[i // len(CURVES) % len(STROKES)],
        label=f"{short(one['purifier'], 30)}: EER {100 * one['eer']['value']:.2f} %",
    )
    missed = one["frr"]["value"]
    point = max(one["far"]["value"], least), missed if kind == "det" else 1 - missed
    axes.plot(*point, "o", color=colour, markersize=5)
