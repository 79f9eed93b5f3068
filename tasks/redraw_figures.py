"""What comes of drawing a randomised defence again and again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defender.metrics.quality import relative_gain
from tasks.columns import Column, Columns
from tasks.nodes import Node

ASKED = {"model": "prediction", "metric": "score", "encoder": "similarity"}
"""Column of each draw, by what the run attacks."""

Found = tuple[str, Column]
"""Metric and its value for each image: true or false, or a number."""


def every_draw(columns: Columns, node: Node, name: str) -> NDArray[Any]:
    """A column of a score node in the first draw and in all others, (draws, n)."""
    again = f"redraw/{node.attack}/{node.purifier}"
    others = [c for c in columns.table(again).schema.names if c.startswith(f"{name}_")]
    first = columns.column(node.name, name)
    return np.stack([first, *(columns.column(again, other) for other in others)])


def over_draws(
    columns: Columns, node: Node, kind: str, labels: Column, limit: float
) -> Iterator[Found]:
    """What comes of trying a defence again and again, image by image.

    Args:
        columns: of a finished run.
        node: a score node whose purifier was drawn several times.
        kind: what is attacked, a key of :data:`ASKED`.
        labels: true labels (n,), for a model.
        limit: threshold of the defence, for an encoder.

    Yields:
        ``<metric>_mean``, of all draws; ``<metric>_worst``, where whoever attacks may try as often
        as there are draws and needs to pass once; ``<metric>_majority``, where the defence draws
        that often itself and takes what most draws say.
    """
    drawn = every_draw(columns, node, ASKED[kind])
    if kind == "model":
        right = drawn == labels
        yield "accuracy_mean", right.mean(axis=0)
        yield "accuracy_worst", np.asarray(right.all(axis=0), dtype=bool)
        yield "accuracy_majority", np.asarray(plurality(drawn) == labels, dtype=bool)
    elif kind == "encoder":
        passed = drawn.astype(np.float32) >= np.float32(limit)
        yield "far_mean", passed.mean(axis=0)
        yield "far_worst", np.asarray(passed.any(axis=0), dtype=bool)
        yield "far_majority", np.asarray(2 * passed.sum(axis=0) > len(passed), dtype=bool)
    else:
        clean = columns.column("score/none/none", "score")
        gains = np.stack([relative_gain(clean, scores) for scores in drawn])
        yield "gain_mean", gains.mean(axis=0)
        yield "gain_worst", gains.max(axis=0)


def plurality(predictions: NDArray[Any]) -> NDArray[np.int64]:
    """The class that most draws give, (n,); of several, the one that was drawn first.

    Args:
        predictions: classes (draws, n).
    """
    votes = (predictions[:, None] == predictions[None]).sum(axis=1)
    chosen = predictions[votes.argmax(axis=0), np.arange(predictions.shape[1])]
    return np.asarray(chosen, dtype=np.int64)
