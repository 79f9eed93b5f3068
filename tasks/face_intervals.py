"""Rates of face verification with their intervals: people drawn again, and Wilson's beside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defender.metrics.rates import wilson
from defender.metrics.verification import Pairs, all_by_identity

DRAWS = 400
"""Bootstrap samples of an interval."""

Interval = tuple[float, float]
Statistics = Callable[[Pairs, NDArray[np.float64] | None], Sequence[float]]


@dataclass(frozen=True)
class Figure:
    """A figure of a system, with its interval.

    Args:
        metric: its name.
        value: what it is.
        low, high: ends of its 95 % interval.
        n: pairs or images that it is a share or mean of.
        draws: draws of the defence that it is about; 0 for the first one alone.
        wilson: of a rate, Wilson's interval, which takes pairs as independent.
        method: where ``low`` and ``high`` are from, ``by-identity`` or ``wilson``.
    """

    metric: str
    value: float
    low: float
    high: float
    n: int
    draws: int = 0
    wilson: Interval | None = None
    method: str = "by-identity"

    @property
    def more(self) -> dict[str, Any]:
        """What a row of a summary says of it besides."""
        found: dict[str, Any] = {"interval": self.method}
        if self.wilson is not None:
            found["wilson"] = list(self.wilson)
        if self.draws:
            found["draws"] = self.draws
        return found


def rate(metric: str, value: float, between: Interval, n: int, draws: int = 0) -> Figure:
    """A rate with the interval over people, or Wilson's where that is a point or is not there.

    Where all pairs are accepted, or none is, drawing people again finds no spread at all.

    Args:
        metric: its name.
        value: share of ``n``.
        between: interval over people.
        n: pairs or images.
        draws: draws of the defence that it is about; 0 for the first one alone.
    """
    if not n:
        return Figure(metric, value, *between, n, draws)
    plain = wilson(round(value * n), n)
    spread = between[0] < between[1]
    ends, method = (between, "by-identity") if spread else (plain, "wilson")
    return Figure(metric, value, *ends, n, draws, plain, method)


def over_people(pairs: Pairs, statistics: Statistics, seed: int) -> list[Interval]:
    """95 % intervals of figures of pairs, by drawing people again; both of a pair are people.

    Args:
        pairs: of two people each, or of one.
        statistics: maps pairs and weights (k,), or None for one each, to numbers.
        seed: of the bootstrap.
    """
    found = all_by_identity(pairs, statistics, draws=DRAWS, seed=seed)
    return found or [(float("nan"), float("nan"))] * len(statistics(pairs, None))
