"""What comes of drawing a randomised defence again and again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defender.metrics.quality import relative_gain
from tasks.columns import Column, Columns
from tasks.nodes import Node

ASKED = {"model": "prediction", "metric": "score"}
"""Column of each draw, by what the run attacks."""

Found = tuple[str, Column]
"""Metric and its value for each image: true or false, or a number."""


def every_draw(columns: Columns, node: Node, name: str) -> NDArray[Any]:
    """A column of a score node in the first draw and in all others, (draws, n)."""
    again = f"redraw/{node.attack}/{node.purifier}"
    first = columns.column(node.name, name)
    return np.stack(
        [first, *(columns.column(again, one) for one in _further(columns, again, name))]
    )


def every_vector(columns: Columns, first: str | None, again: str) -> NDArray[np.float32]:
    """Embeddings in the first draw and in all others, (draws, n, d).

    Args:
        columns: of a finished run.
        first: the score node of the first draw; None where the other node holds it as well.
        again: the node of further draws, which there need not be.
    """
    found = [] if first is None else [columns.vectors(first, "embedding")]
    found += [columns.vectors(again, one) for one in _further(columns, again, "embedding")]
    return np.stack(found)


def _further(columns: Columns, again: str, name: str) -> list[str]:
    """Names of the columns of further draws."""
    if again not in columns.state.plan.nodes:
        return []
    return [one for one in columns.table(again).schema.names if one.startswith(f"{name}_")]


def over_draws(columns: Columns, node: Node, kind: str, labels: Column) -> Iterator[Found]:
    """What comes of trying a defence again and again, image by image.

    Args:
        columns: of a finished run.
        node: a score node whose purifier was drawn several times.
        kind: what is attacked, a key of :data:`ASKED`.
        labels: true labels (n,), for a model.

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
