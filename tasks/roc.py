"""ROC curves of a report: all attacks on one detector, or all detectors on one attack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tasks.columns import Columns
from tasks.counted import attacks, counted
from tasks.drawing import CURVES, WIDTH, Plot, plain, short
from tasks.inline_svg import INK, inline
from tasks.nodes import Node
from tasks.survey import Survey

Points = tuple[NDArray[np.float64], NDArray[np.float64]]

LOWEST = 0.001
"""False positive rate at the left edge of a logarithmic axis."""
LEGEND = 0.17
"""Inches of a line of a legend below a plot."""
STROKES = ("-", (0, (5, 2)), (0, (2, 1.5)))
"""Solid, dashed, dotted: for curves beyond the number of colours."""


def detector_roc(columns: Columns, node: Node, tried: Sequence[Node]) -> Plot:
    """ROC curves of a detector, clean images against those of each attack."""
    among = counted(columns)
    benign = np.sort(columns.column(node.name, "score").astype(np.float64)[among])
    figure = Figure(figsize=(WIDTH, 3.5), facecolor="none")
    axes = figure.add_axes((0.13, 0.14, 0.84, 0.83))
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, alpha=0.4, linestyle=(0, (2, 3)))
    words = []
    for i, attack in enumerate(tried):
        scores = columns.column(f"detect/{attack.attack}/{node.detector}", "score")
        points = roc_points(benign, np.sort(scores.astype(np.float64)[among]))
        words.append(f"{short(attack.attack)}: area {roc_area(points):.3f}")
        keep = np.unique(np.linspace(0, len(points[0]) - 1, 240).astype(int))
        _curve(axes, points[0][keep], points[1][keep], i, words[-1])
    axes.set_xlim(-0.01, 1.01)
    axes.legend(loc="lower right", fontsize=8.5, frameon=False, labelcolor=INK)
    _rates(axes)
    title = f"ROC of {node.detector}"
    return Plot(title, f"{title}: {'; '.join(words)}", inline(figure, f"roc {node.name}"))


def attack_rocs(state: Survey, columns: Columns) -> list[Plot]:
    """For each attack the ROC curves of all detectors that were tried on it."""
    made = []
    for attack in attacks(state):
        nodes = [n for n in state.plan if n.kind == "detect" and n.attack == attack.attack]
        if nodes:
            made.append(_attack_roc(columns, attack, nodes))
    return made


def _attack_roc(columns: Columns, attack: Node, nodes: Sequence[Node]) -> Plot:
    """ROC curves on a logarithmic axis, the detector with the largest area first."""
    among = counted(columns)
    curves = []
    for node in nodes:
        benign = columns.column(f"detect/none/{node.detector}", "score").astype(np.float64)[among]
        scores = columns.column(node.name, "score").astype(np.float64)[among]
        points = roc_points(np.sort(benign), np.sort(scores))
        curves.append((roc_area(points), node, points))
    curves.sort(key=lambda curve: (-curve[0], curve[1].position))
    below = 0.5 + LEGEND * len(nodes)
    tall = 2.6 + below
    figure = Figure(figsize=(WIDTH, tall), facecolor="none")
    axes = figure.add_axes((0.13, below / tall, 0.84, 2.5 / tall))
    chance = np.geomspace(LOWEST, 1, 40)
    axes.plot(chance, chance, color=INK, linewidth=0.8, alpha=0.4, linestyle=(0, (2, 3)))
    words = []
    for area, node, points in curves:
        found = f"area {area:.3f}, {100 * rate_at(points, 0.01):.1f}\u00a0% at 1\u00a0%"
        words.append(f"{short(node.detector, 30)}: {found}")
        _curve(axes, *_steps(points), node.position, words[-1])
    axes.set_xscale("log")
    axes.set_xlim(LOWEST, 1.02)
    axes.set_xticks([0.001, 0.01, 0.1, 1], ["0.1 %", "1 %", "10 %", "100 %"])
    axes.minorticks_off()
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(-0.02, -0.42 / 2.5),
        fontsize=8.5,
        frameon=False,
        labelcolor=INK,
        borderpad=0,
        labelspacing=0.3,
    )
    _rates(axes)
    title = f"ROC under {attack.attack}"
    return Plot(title, f"{title}: {'; '.join(words)}", inline(figure, f"roc {attack.name}"))


def _curve(
    axes: Axes, false: NDArray[np.float64], true: NDArray[np.float64], i: int, label: str
) -> None:
    axes.plot(
        false,
        true,
        color=CURVES[i % len(CURVES)],
        linewidth=1.8,
        linestyle=STROKES[i // len(CURVES) % len(STROKES)],
        label=label,
    )


def _rates(axes: Axes) -> None:
    axes.set_ylim(-0.01, 1.01)
    axes.set_ylabel("attacked images flagged", fontsize=9, color=INK)
    plain(axes, "clean images flagged")
    axes.spines["left"].set_visible(True)


def _steps(points: Points) -> Points:
    """The curve at chosen false positive rates, with the largest true positive rate at each."""
    rates = np.unique(points[0][points[0] >= LOWEST])
    some = rates[:: max(1, len(rates) // 120)]
    wanted = np.unique(np.concatenate([np.geomspace(LOWEST, 1, 120), some]))
    return wanted, rate_at(points, wanted)


def rate_at(points: Points, false_positives: Any) -> Any:
    """Largest true positive rate at or below a false positive rate; of one or of many."""
    false, true = points
    return true[np.searchsorted(false, np.asarray(false_positives) + 1e-9, side="right") - 1]


def roc_points(benign: NDArray[np.float64], attacked: NDArray[np.float64]) -> Points:
    """False and true positive rates at every threshold, from both columns sorted upwards."""
    levels = np.unique(np.concatenate([benign, attacked]))[::-1]
    false = 1 - np.searchsorted(benign, levels, side="left") / max(1, len(benign))
    true = 1 - np.searchsorted(attacked, levels, side="left") / max(1, len(attacked))
    return np.concatenate([[0.0], false]), np.concatenate([[0.0], true])


def roc_area(points: Points) -> float:
    """Area under a curve of straight pieces."""
    false, true = points
    return float(np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2))
