"""Figures of a verification system on one list of pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defender.metrics.rates import wilson
from defender.metrics.verification import (
    Pairs,
    Rates,
    all_by_identity,
    det,
    far_at,
    frr_at,
    rates,
    threshold_at,
)
from defender.metrics.verification_protocols import ten_fold

FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""False accept rates of the figures, where there are impostor pairs enough to tell them."""
DRAWS, MANY = (1000, 200), 200_000
"""Bootstrap samples of an interval, and of one over more pairs than that."""


def figures(
    pairs: Pairs,
    *,
    far: float,
    threshold: float | None = None,
    folds: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything that is said of one system, as JSON holds it.

    Args:
        pairs: at least one genuine and one impostor pair.
        far: false accept rate that the threshold keeps.
        threshold: similarity from which pairs are accepted; none: found from ``far``.
        folds: fold of each pair, for the ten-fold accuracy; none: without it.
        seed: of the bootstrap.
    """
    limit = threshold_at(pairs, far) if threshold is None else threshold
    impostors, genuine = len(pairs.impostor), len(pairs.genuine)
    fars = told(FARS, impostors)

    def numbers(of: Rates) -> list[float]:
        return [*of.at(limit), of.equal()[0], of.area(), *(of.tpr_at(one)[0] for one in fars)]

    intervals = all_by_identity(
        pairs,
        lambda some, weights: numbers(rates(some, weights)),
        draws=DRAWS[len(pairs.same) > MANY],
        seed=seed,
    )
    whole = rates(pairs)
    values = [far_at(pairs, limit), frr_at(pairs, limit), *numbers(whole)[2:]]
    rows = [
        {"value": _number(value), "by_identity": [_number(end) for end in ends]}
        for value, ends in zip(values, intervals, strict=True)
    ]
    for row, value, n in zip(rows[:2], values[:2], (impostors, genuine), strict=True):
        row |= {"wilson": list(wilson(round(value * n), n)), "n": n}
    curve = det(pairs)
    content = {
        "threshold": limit,
        "far": rows[0],
        "frr": rows[1],
        "eer": {**rows[2], "threshold": _number(whole.equal()[1])},
        "auc": rows[3],
        "tpr_at_far": [
            tpr_row(one, whole.tpr_at(one), ends, genuine, impostors)
            for one, ends in zip(fars, intervals[4:], strict=True)
        ],
        "genuine_pairs": genuine,
        "impostor_pairs": impostors,
        "people": len(np.union1d(pairs.first, pairs.second)),
        "curve": {
            name: [round(float(value), 8) for value in column]
            for name, column in zip(("far", "frr"), curve, strict=True)
        },
    }
    return content if folds is None else {**content, "ten_fold": _folds(pairs, folds)}


def told(fars: Sequence[float], impostors: int) -> list[float]:
    """Those false accept rates that so many impostor pairs can tell: one pair and more."""
    return [one for one in fars if one * impostors >= 1]


def tpr_row(
    far: float,
    found: tuple[float, float],
    between: tuple[float, float],
    genuine: int,
    impostors: int,
) -> dict[str, Any]:
    """The share of genuine pairs accepted at a false accept rate, as JSON holds it.

    Args:
        far: the false accept rate.
        found: the share, and the threshold.
        between: interval over people.
        genuine: pairs of one person.
        impostors: pairs of two people.
    """
    tpr, threshold = found
    return {
        "far": far,
        "tpr": _number(tpr),
        "threshold": _number(threshold),
        "by_identity": [_number(end) for end in between],
        "wilson": list(wilson(round(tpr * genuine), genuine)),
        "impostor_pairs": impostors,
    }


def _folds(pairs: Pairs, folds: NDArray[np.int64]) -> dict[str, Any]:
    found = ten_fold(pairs.similarity, pairs.same, folds)
    columns: Sequence[tuple[Any, ...]] = list(
        zip(found.accuracies, found.thresholds, found.pairs, strict=True)
    )
    return {
        "accuracy": found.mean,
        "std": found.std,
        "folds": [
            {"accuracy": accuracy, "threshold": threshold, "pairs": count}
            for accuracy, threshold, count in columns
        ],
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
