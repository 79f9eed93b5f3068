"""Face verification: the rates of pairs of embeddings at a threshold, and their uncertainty.

A pair is accepted where its similarity is at least the threshold. FAR is the share of impostor
pairs (two people) that are accepted, FRR the share of genuine pairs (one person) that are not.
Every figure takes ``weights``, one a pair, so that :func:`by_identity` draws people again without
building any pair twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defender.metrics.pairs import Floats, Pairs, paired_similarities, similarities

Column = NDArray[np.float64]

INTERVAL_PAIRS = 1_000_000
"""Pairs of a kind that the draws of an interval look at; of more, a sample."""
_POINTS = 120
_SLACK = 1e-9


Statistic = Callable[[Pairs, Column], Any]
Statistics = Callable[[Pairs, Column], Iterable[float]]


def far_at(pairs: Pairs, threshold: float, weights: Column | None = None) -> float:
    """Share of impostor pairs whose similarity is at least the threshold; NaN without any."""
    return _share(pairs.similarity >= threshold, ~pairs.same, weights)


def frr_at(pairs: Pairs, threshold: float, weights: Column | None = None) -> float:
    """Share of genuine pairs whose similarity is below the threshold; NaN without any."""
    return _share(pairs.similarity < threshold, pairs.same, weights)


def threshold_at(pairs: Pairs, far: float) -> float:
    """Smallest threshold at which the share of accepted impostor pairs is ``far`` at most.

    It is the next float32 above a similarity that occurs, unless all impostors may be accepted
    (then 0); just above 1 where even equal embeddings must be refused.

    Args:
        pairs: clean pairs.
        far: wanted false accept rate, in [0, 1].

    Raises:
        ValueError: a rate out of range, or no impostor pairs.
    """
    _check_far(far)
    impostor = pairs.impostor
    if not len(impostor):
        raise ValueError("pairs: expected impostor pairs, got none")
    allowed = math.floor(far * len(impostor) + _SLACK)
    if allowed >= len(impostor):
        return 0.0
    place = len(impostor) - allowed - 1
    return float(_above(np.partition(impostor, place)[place]))


@dataclass(frozen=True, eq=False)
class Rates:
    """FAR and FRR at every threshold at which one of them changes.

    Args:
        thresholds: ascending: the similarities that occur, then one above all of them.
        far: share of impostor pairs accepted at each; NaN where there is none.
        frr: share of genuine pairs refused at each; NaN where there is none.
    """

    thresholds: Floats
    far: Column
    frr: Column

    @property
    def known(self) -> bool:
        """Whether there are pairs of both kinds."""
        return not (np.isnan(self.far[0]) or np.isnan(self.frr[0]))

    def at(self, threshold: float) -> tuple[float, float]:
        """FAR and FRR at any threshold."""
        place = int(np.searchsorted(self.thresholds, np.float32(threshold)))
        place = min(place, len(self.far) - 1)
        return float(self.far[place]), float(self.frr[place])

    def equal(self) -> tuple[float, float]:
        """See :func:`equal_error_rate`."""
        if not self.known:
            return math.nan, math.nan
        gap = self.frr - self.far
        after = int(np.argmax(gap >= 0))
        before = max(after - 1, 0)
        step = gap[after] - gap[before]
        part = float(-gap[before] / step) if step > 0 else 0.0
        rate = self.far[before] + part * (self.far[after] - self.far[before])
        low, high = float(self.thresholds[before]), float(self.thresholds[after])
        return float(rate), low + part * (high - low)

    def tpr_at(self, far: float) -> tuple[float, float]:
        """See :func:`tpr_at_far`."""
        _check_far(far)
        if not self.known:
            return math.nan, math.nan
        # of levels with one rate the highest counts: there an impostor is
        own = np.append(np.flatnonzero(np.diff(self.far) < 0), len(self.far) - 1)
        falling, levels = self.far[own][::-1], self.thresholds[own].astype(np.float64)[::-1]
        if far + _SLACK * far < falling[1]:
            found = float(_above(levels[1]))
        else:
            found = float(np.interp(far, falling[1:], levels[1:]))
        return 1 - self.at(found)[1], found

    def area(self) -> float:
        """See :func:`auc`."""
        return float(-np.sum(np.diff(self.far) * (2 - self.frr[1:] - self.frr[:-1])) / 2)


def rates(pairs: Pairs, weights: Column | None = None) -> Rates:
    """FAR and FRR at every threshold."""
    found, places = pairs.levels
    ends = np.append(found, _above(found[-1])) if len(found) else np.zeros(1, np.float32)
    shares = []
    for mask in (~pairs.same, pairs.same):
        own = None if weights is None else weights[mask]
        at = np.bincount(places[mask], own, len(found)).astype(np.float64)
        below = np.concatenate([[0.0], np.cumsum(at)])
        with np.errstate(invalid="ignore"):
            shares.append(below / below[-1])
    return Rates(ends.astype(np.float32), 1 - shares[0], shares[1])


def equal_error_rate(pairs: Pairs, weights: Column | None = None) -> tuple[float, float]:
    """Rate at which FAR and FRR are equal, and the threshold.

    Between the two neighbouring similarities at which FRR passes FAR, both rates and the threshold
    are straight lines.

    Returns:
        rate and threshold; NaN where a kind of pair is missing.
    """
    return rates(pairs, weights).equal()


def tpr_at_far(pairs: Pairs, far: float, weights: Column | None = None) -> tuple[float, float]:
    """Share of genuine pairs accepted at a false accept rate, and the threshold.

    The threshold is the quantile of the impostor similarities, interpolated linearly between the
    two that enclose the rate, as the published LFW and IJB evaluations interpolate it; it never
    accepts more than ``far`` of the impostors. For a rate of less than one impostor pair it is
    just above all of them. Say beside the figure how many impostor pairs there are.

    Returns:
        TPR and threshold; NaN where a kind of pair is missing.

    Raises:
        ValueError: a rate out of range.
    """
    return rates(pairs, weights).tpr_at(far)


def auc(pairs: Pairs, weights: Column | None = None) -> float:
    """Chance that a genuine pair is more similar than an impostor one, ties half; NaN if none."""
    return rates(pairs, weights).area()


def roc(pairs: Pairs) -> tuple[Column, Column]:
    """FAR ascending and TPR: some hundreds of points of the curve, its ends among them."""
    far, frr = det(pairs)
    return far, 1 - frr


def det(pairs: Pairs) -> tuple[Column, Column]:
    """FAR ascending and FRR: some hundreds of points of the curve, its ends among them.

    The points are close where either rate is small, on logarithmic as on linear axes.
    """
    found = rates(pairs)
    if not found.known:
        return np.empty(0), np.empty(0)
    far, frr = found.far[::-1], found.frr[::-1]
    chosen = {0, len(far) - 1}
    for rising in (far, 1 - frr):
        for wanted in (np.linspace(0, 1, _POINTS), np.geomspace(_least(rising), 1, _POINTS)):
            chosen.update(np.searchsorted(rising, wanted - _SLACK).tolist())
    missed = frr[::-1]
    small = np.searchsorted(missed, np.geomspace(_least(missed), 1, _POINTS) - _SLACK)
    chosen.update((len(far) - 1 - small).tolist())
    kept = np.array(sorted(place for place in chosen if 0 <= place < len(far)))
    return far[kept], frr[kept]


def by_identity(
    pairs: Pairs, statistic: Statistic, *, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of a figure over people, not pairs: pairs of one person go together.

    People are drawn with replacement. An impostor pair counts as often as the product of how often
    its two people were drawn, a genuine pair as often as its person.

    Args:
        pairs: the pairs; of more than a million of a kind, a fixed sample is looked at.
        statistic: maps pairs and weights (k,) to a number; e.g.
            ``lambda pairs, weights: far_at(pairs, 0.6, weights)``.
        draws: bootstrap samples.
        seed: the same seed gives the same interval.

    Returns:
        low and high (percentiles); NaN where no draw has a number. Draws that give none (no
        genuine pair among them, say) are left out.

    Raises:
        ValueError: fewer than one draw.

    Source: R. Bolle, N. Ratha, S. Pankanti, "Error analysis of pattern recognition systems: the
    subsets bootstrap", 2004, DOI 10.1016/j.cviu.2003.08.002; weights that are products: A. Owen,
    "The pigeonhole bootstrap", 2007, DOI 10.1214/07-AOAS122.
    Differs: two draws of one person make no impostor pair.
    """
    found = all_by_identity(pairs, lambda some, w: [statistic(some, w)], draws=draws, seed=seed)
    return found[0] if found else (math.nan, math.nan)


def all_by_identity(
    pairs: Pairs, statistics: Statistics, *, draws: int = 1000, seed: int = 0
) -> list[tuple[float, float]]:
    """The intervals of several figures from the same draws; see :func:`by_identity`.

    Args:
        pairs: the pairs.
        statistics: maps pairs and weights (k,) to numbers, as many every time.
        draws: bootstrap samples.
        seed: the same seed gives the same intervals.

    Returns:
        low and high of each figure; nothing where there are no pairs.

    Raises:
        ValueError: fewer than one draw.
    """
    if draws < 1:
        raise ValueError(f"draws: expected >= 1, got {draws}")
    pairs = pairs.thinned(INTERVAL_PAIRS)
    known, places = np.unique(np.concatenate([pairs.first, pairs.second]), return_inverse=True)
    if not len(known):
        return []
    first, second = places.reshape(2, -1)
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        drawn = np.bincount(generator.integers(0, len(known), len(known)), minlength=len(known))
        counts = drawn.astype(np.float64)
        weights = counts[first] * np.where(pairs.same, 1.0, counts[second])
        found.append(list(statistics(pairs, weights)))
    return [_percentiles(column) for column in np.array(found, dtype=np.float64).T]


def _percentiles(drawn: Column) -> tuple[float, float]:
    finite = drawn[np.isfinite(drawn)]
    if not len(finite):
        return math.nan, math.nan
    low, high = np.quantile(finite, [0.025, 0.975])
    return float(low), float(high)


def _above(value: Any) -> np.float32:
    return np.float32(np.nextafter(np.float32(value), np.float32(np.inf)))


def _least(rising: Column) -> float:
    """Smallest rate above zero."""
    positive = rising[rising > 0]
    return float(positive[0]) if len(positive) else 1.0


def _share(hit: NDArray[np.bool_], among: NDArray[np.bool_], weights: Column | None) -> float:
    if weights is None:
        total, part = float(among.sum()), float((hit & among).sum())
    else:
        total, part = float(weights[among].sum()), float(weights[hit & among].sum())
    return part / total if total else math.nan


def _check_far(far: float) -> None:
    if not 0 <= far <= 1:
        raise ValueError(f"far: expected [0, 1], got {far}")


__all__ = [
    "Pairs",
    "Rates",
    "all_by_identity",
    "auc",
    "by_identity",
    "det",
    "equal_error_rate",
    "far_at",
    "frr_at",
    "paired_similarities",
    "rates",
    "roc",
    "similarities",
    "threshold_at",
    "tpr_at_far",
]
