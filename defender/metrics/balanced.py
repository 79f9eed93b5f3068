"""Balanced accuracy: every class counts the same, however many images it has."""

from __future__ import annotations

import math
from collections.abc import Sequence

from defender.metrics.rates import wilson


def balanced_accuracy(
    correct: Sequence[int], images: Sequence[int], confidence: float = 0.95
) -> tuple[float, float, float]:
    """Mean of the classes' recalls, with its interval.

    Args:
        correct: images of each class that were predicted as it.
        images: images of each class; classes without any are left out.
        confidence: coverage, in (0, 1).

    Returns:
        value, low and high, in [0, 1]; NaN where no class has images.

    Raises:
        ValueError: numbers out of range.

    Source: K. Brodersen et al., "The Balanced Accuracy and Its Posterior Distribution", 2010,
    DOI 10.1109/ICPR.2010.764; the interval of a sum of independent rates from their Wilson
    intervals: R. Newcombe, "Interval Estimation for the Difference Between Independent
    Proportions", 1998, DOI 10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I;
    G. Zou, A. Donner, "Construction of confidence limits about effect measures: A general
    approach", 2008, DOI 10.1002/sim.3095.
    Differs: none.
    """
    if len(correct) != len(images):
        raise ValueError(f"correct: expected {len(images)} classes, got {len(correct)}")
    seen = [(right, n) for right, n in zip(correct, images, strict=True) if n]
    if not seen:
        return math.nan, math.nan, math.nan
    below = above = 0.0
    for right, n in seen:
        low, high = wilson(right, n, confidence)
        below += (right / n - low) ** 2
        above += (high - right / n) ** 2
    value = sum(right / n for right, n in seen) / len(seen)
    return value, value - math.sqrt(below) / len(seen), value + math.sqrt(above) / len(seen)
