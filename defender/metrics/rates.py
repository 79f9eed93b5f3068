"""Figures of a whole dataset from columns of per-image rows, with their uncertainty."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

_DRAWS_AT_ONCE = 4_000_000
Column = NDArray[np.float64]


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a rate.

    Args:
        successes: number of successes, 0 to n.
        n: number of trials.
        confidence: coverage, in (0, 1).

    Returns:
        low and high, in [0, 1]; (NaN, NaN) without trials.

    Raises:
        ValueError: numbers out of range.

    Source: E. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference",
    1927, DOI 10.1080/01621459.1927.10502953.
    """
    _check_share("confidence", confidence)
    if not 0 <= successes <= n:
        raise ValueError(f"successes: expected [0, {n}], got {successes}")
    if n == 0:
        return math.nan, math.nan
    z = float(scipy.stats.norm.ppf(0.5 + confidence / 2))
    rate, shrink = successes / n, 1 / (1 + z * z / n)
    centre = shrink * (rate + z * z / (2 * n))
    half = shrink * z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return low, high


def balanced_accuracy(
    correct: ArrayLike, labels: ArrayLike, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Mean over the classes of the share of their images that are classified correctly.

    Args:
        correct: true or false, one an image.
        labels: class of each image.
        confidence: coverage of the interval, in (0, 1).

    Returns:
        The figure and its interval, in [0, 1]; NaN without images.

    Raises:
        ValueError: columns of different lengths.

    Source: K. Brodersen et al., "The Balanced Accuracy and Its Posterior Distribution", 2010,
    DOI 10.1109/ICPR.2010.764; the interval of a sum of independent rates from their Wilson
    intervals: G. Zou, A. Donner, "Construction of confidence limits about effect measures: A
    general approach", 2008, DOI 10.1002/sim.3095.
    Differs: none.
    """
    right, classes = np.asarray(correct, dtype=bool), np.asarray(labels)
    if right.shape != classes.shape:
        raise ValueError(f"labels: expected {len(right)}, got {len(classes)}")
    if not len(right):
        return math.nan, math.nan, math.nan
    rates, below, above = [], 0.0, 0.0
    for label in np.unique(classes):
        own = right[classes == label]
        rate = float(own.mean())
        low, high = wilson(int(own.sum()), len(own), confidence)
        rates.append(rate)
        below += (rate - low) ** 2
        above += (high - rate) ** 2
    value = float(np.mean(rates))
    return value, value - math.sqrt(below) / len(rates), value + math.sqrt(above) / len(rates)


def mean_interval(
    values: ArrayLike, seed: int, resamples: int = 1000, confidence: float = 0.95
) -> tuple[float, float]:
    """Bias-corrected and accelerated (BCa) bootstrap interval of the mean of the finite values.

    Values that are not finite, such as the PSNR of equal images, are left out; say beside the
    interval how many there were.

    Args:
        values: one value an image.
        seed: seed of the resampling; the same seed gives the same interval.
        resamples: bootstrap resamples.
        confidence: coverage, in (0, 1).

    Returns:
        low and high; both the value itself where all values are equal, (NaN, NaN) for fewer than
        3 finite values.

    Raises:
        ValueError: numbers out of range.

    Source: B. Efron, "Better Bootstrap Confidence Intervals", 1987,
    DOI 10.1080/01621459.1987.10478410.
    Differs: none; the jackknife of a mean is taken in closed form, so that a million values can
    be used.
    """
    _check_share("confidence", confidence)
    if resamples < 1:
        raise ValueError(f"resamples: expected >= 1, got {resamples}")
    column = _column(values)
    column = column[np.isfinite(column)]
    n = len(column)
    if n < 3:
        return math.nan, math.nan
    mean = float(column.mean())
    centred = column - mean
    if column.min() == column.max():
        return float(column[0]), float(column[0])
    generator = np.random.default_rng(seed)
    batch = max(1, _DRAWS_AT_ONCE // n)
    means = np.concatenate(
        [
            centred[generator.integers(0, n, (min(batch, resamples - start), n))].mean(axis=1)
            for start in range(0, resamples, batch)
        ]
    )
    below = (np.sum(means < 0) + np.sum(means <= 0)) / (2 * resamples)
    bias = float(scipy.stats.norm.ppf(np.clip(below, 0.5 / resamples, 1 - 0.5 / resamples)))
    acceleration = float(np.sum(centred**3) / (6 * np.sum(centred**2) ** 1.5))
    z = scipy.stats.norm.ppf([0.5 - confidence / 2, 0.5 + confidence / 2]) + bias
    levels = scipy.stats.norm.cdf(bias + z / (1 - acceleration * z))
    low, high = mean + np.quantile(means, levels)
    return float(low), float(high)


def conformal_threshold(benign_scores: ArrayLike, fpr: float) -> float:
    """Threshold that a new benign score exceeds with probability ``fpr`` at most.

    The ``ceil((n + 1)(1 - fpr))``-th smallest of n calibration scores (split conformal).

    Args:
        benign_scores: scores of benign images kept for calibration; larger is more suspicious.
        fpr: wanted false positive rate, in (0, 1).

    Returns:
        The threshold, to be exceeded; inf where n is too small for the rate.

    Raises:
        ValueError: a rate out of range, or scores that are NaN.

    Source: H. Papadopoulos, K. Proedrou, V. Vovk, A. Gammerman, "Inductive Confidence Machines
    for Regression", 2002, DOI 10.1007/3-540-36755-1_29.
    """
    _check_share("fpr", fpr)
    scores = np.sort(_scores("benign_scores", benign_scores))
    rank = math.ceil((len(scores) + 1) * (1 - fpr) - 1e-9)
    return float(scores[rank - 1]) if rank <= len(scores) else math.inf


def roc_auc(benign: ArrayLike, attacked: ArrayLike) -> float:
    """Area under the ROC curve: chance that an attacked score exceeds a benign one, ties half.

    Args:
        benign: scores of benign images.
        attacked: scores of attacked images.

    Returns:
        [0, 1]; NaN where a side is empty.

    Raises:
        ValueError: scores that are NaN.

    Source: J. Hanley, B. McNeil, "The Meaning and Use of the Area under a Receiver Operating
    Characteristic (ROC) Curve", 1982, DOI 10.1148/radiology.143.1.7063747.
    """
    low, high = _scores("benign", benign), _scores("attacked", attacked)
    if not len(low) or not len(high):
        return math.nan
    ranks = scipy.stats.rankdata(np.concatenate([low, high]))[len(low) :]
    wins = float(ranks.sum()) - len(high) * (len(high) + 1) / 2
    return wins / (len(low) * len(high))


def tpr_at_fpr(benign: ArrayLike, attacked: ArrayLike, fpr: float) -> float:
    """Largest true positive rate of a threshold that at most ``fpr`` of the benign scores exceed.

    Args:
        benign: scores of benign images.
        attacked: scores of attacked images.
        fpr: allowed share of benign scores above the threshold, in (0, 1).

    Returns:
        [0, 1]; NaN where a side is empty.

    Raises:
        ValueError: a rate out of range, or scores that are NaN.
    """
    _check_share("fpr", fpr)
    low, high = np.sort(_scores("benign", benign)), _scores("attacked", attacked)
    if not len(low) or not len(high):
        return math.nan
    allowed = math.floor(fpr * len(low) + 1e-9)
    return float(np.mean(high > low[len(low) - allowed - 1]))


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name}: expected (0, 1), got {value}")


def _column(values: ArrayLike) -> Column:
    array: NDArray[Any] = np.asarray(values, dtype=np.float64)
    return array.reshape(-1)


def _scores(name: str, values: ArrayLike) -> Column:
    column = _column(values)
    if np.isnan(column).any():
        raise ValueError(f"{name}: expected numbers, got NaN")
    return column
