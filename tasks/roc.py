"""ROC curves of a report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tasks.drawing import CURVES, WIDTH, Plot, plain, short
from tasks.inline_svg import INK, inline
from tasks.plan import Node
from tasks.summary import Columns


def detector_roc(columns: Columns, node: Node, attacks: Sequence[Node]) -> Plot:
    """ROC curves of a detector, clean images against those of each attack."""
    benign = np.sort(columns.column(node.name, "score").astype(np.float64))
    figure = Figure(figsize=(WIDTH, 3.5), facecolor="none")
    axes = figure.add_axes((0.13, 0.14, 0.84, 0.83))
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, alpha=0.4, linestyle=(0, (2, 3)))
    words = []
    for i, attack in enumerate(attacks):
        scores = columns.column(f"detect/{attack.attack}/{node.detector}", "score")
        false, true = roc_points(benign, np.sort(scores.astype(np.float64)))
        area = float(np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2))
        words.append(f"{short(attack.attack)}: area {area:.3f}")
        keep = np.unique(np.linspace(0, len(false) - 1, 240).astype(int))
        axes.plot(
            false[keep],
            true[keep],
            color=CURVES[i % len(CURVES)],
            linewidth=1.8,
            linestyle=("-", (0, (5, 2)), (0, (2, 1.5)))[i // len(CURVES) % 3],
            label=words[-1],
        )
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_ylabel("attacked images flagged", fontsize=9, color=INK)
    axes.legend(loc="lower right", fontsize=8.5, frameon=False, labelcolor=INK)
    plain(axes, "clean images flagged")
    axes.spines["left"].set_visible(True)
    title = f"ROC of {node.detector}"
    return Plot(title, f"{title}: {'; '.join(words)}", inline(figure, f"roc {node.name}"))


def roc_points(
    benign: NDArray[np.float64], attacked: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False and true positive rates at every threshold, from both columns sorted upwards."""
    levels = np.unique(np.concatenate([benign, attacked]))[::-1]
    false = 1 - np.searchsorted(benign, levels, side="left") / max(1, len(benign))
    true = 1 - np.searchsorted(attacked, levels, side="left") / max(1, len(attacked))
    return np.concatenate([[0.0], false]), np.concatenate([[0.0], true])
