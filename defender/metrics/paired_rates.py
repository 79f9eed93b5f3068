"""The difference of two rates over the same images."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from defender.metrics.rates import wilson


def paired_difference(
    first: ArrayLike, second: ArrayLike, confidence: float = 0.95
) -> tuple[float, float, float]:
    """How much larger one rate is than another that was measured on the same images.

    Args:
        first: true or false, one an image.
        second: the same images under another condition.
        confidence: coverage of the interval, in (0, 1).

    Returns:
        The difference and its interval, in [-1, 1]; NaN without images. Also where no image
        differs the interval has a width, unlike that of a bootstrap.

    Raises:
        ValueError: columns of different lengths.

    Source: R. Newcombe, "Improved confidence intervals for the difference between binomial
    proportions based on paired data", 1998, method 10,
    DOI 10.1002/(SICI)1097-0258(19981130)17:22<2635::AID-SIM954>3.0.CO;2-C.
    Differs: none.
    """
    one, other = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if one.shape != other.shape:
        raise ValueError(f"second: expected {len(one)}, got {len(other)}")
    n = len(one)
    if not n:
        return math.nan, math.nan, math.nan
    both, neither = int((one & other).sum()), int((~one & ~other).sum())
    only_one, only_other = int((one & ~other).sum()), int((~one & other).sum())
    phi = _phi(both, only_one, only_other, neither)
    p, q = (both + only_one) / n, (both + only_other) / n
    (p_low, p_high), (q_low, q_high) = (
        wilson(both + only_one, n, confidence),
        wilson(both + only_other, n, confidence),
    )
    below = _added(p - p_low, q_high - q, phi)
    above = _added(p_high - p, q - q_low, phi)
    return p - q, p - q - below, p - q + above


def _phi(both: int, only_one: int, only_other: int, neither: int) -> float:
    """Correlation of the two, positive ones corrected for continuity."""
    n = both + only_one + only_other + neither
    margins = (both + only_one) * (only_other + neither) * (both + only_other)
    margins *= only_one + neither
    if not margins:
        return 0.0
    excess = float(both * neither - only_one * only_other)
    return (max(excess - n / 2, 0.0) if excess > 0 else excess) / math.sqrt(margins)


def _added(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))
