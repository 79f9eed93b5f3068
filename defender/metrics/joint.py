"""Thresholds of several detectors at once, for a false positive rate of all of them together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class JointThresholds:
    """Thresholds that were set together.

    Args:
        values: (k,), to be exceeded; inf where there are too few benign images.
        level: false positive rate of each detector by itself.
        needed: benign images that these detectors would need at this rate, as far as the ones at
            hand tell; no more than there are where the thresholds are finite.
    """

    values: NDArray[np.float64]
    level: float
    needed: int


def joint_thresholds(benign_scores: ArrayLike, fpr: float, least: int = 1) -> JointThresholds:
    """Thresholds of which a new benign image exceeds ``least`` or more with probability ``fpr``.

    All detectors take their r-th largest benign score, with the largest r at which the rate holds.
    It holds for any dependence between the detectors, provided that the new image and the benign
    ones come in no particular order. For one detector this is split conformal prediction; for
    several, with ``least`` 1, it is never stricter than an equal share of the rate for each
    (Bonferroni), and the less so the more the detectors flag the same images.

    An image's place is the ``least``-th smallest of its ranks among all images, the new one
    included; the share of images whose place is not behind that of the new image is a p-value.
    Where the new image exceeds ``least`` thresholds, its place is r at most, and the images in
    front of place r can be counted without it.

    Args:
        benign_scores: (n, k), a column a detector; larger is more suspicious.
        fpr: wanted rate, at most, in (0, 1).
        least: number of detectors that have to flag an image, 1 to k.

    Raises:
        ValueError: a rate or number out of range, no detector, or scores that are NaN.

    Source: P. Westfall, S. Young, "Resampling-Based Multiple Testing", 1993, Wiley (the smallest
    of several p-values as a statistic); V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in
    a Random World", 2005, DOI 10.1007/b106715 (p-values from ranks).
    Differs: fixed thresholds in place of a p-value that ranks all images anew for each new one.
    """
    scores = np.asarray(benign_scores, dtype=np.float64)
    if scores.ndim != 2 or not scores.shape[1]:
        raise ValueError(f"benign_scores: expected (images, detectors), got {scores.shape}")
    if np.isnan(scores).any():
        raise ValueError("benign_scores: expected numbers, got NaN")
    if not 0 < fpr < 1:
        raise ValueError(f"fpr: expected (0, 1), got {fpr}")
    n, k = scores.shape
    if not 1 <= least <= k:
        raise ValueError(f"least: expected [1, {k}], got {least}")
    allowed = math.floor(fpr * (n + 1) + 1e-9) - 1
    places = _places(scores, least) if n else np.empty((0, 1))
    in_front = int((places <= 1).sum(axis=0).max(initial=0))
    needed = math.ceil((in_front + 1) / fpr - 1 - 1e-9)
    rank = int(np.sort(places, axis=0)[allowed].min()) - 1 if 0 <= allowed < n else 0
    if rank < 1:
        return JointThresholds(np.full(k, math.inf), 0.0, needed)
    values = np.sort(scores, axis=0)[n - min(rank, n)]
    return JointThresholds(values, min(rank, n) / (n + 1), needed)


def _places(scores: NDArray[np.float64], least: int) -> NDArray[np.float64]:
    """Place of each image, (n, 1), or (n, k) where it depends on who flags the new image.

    Ties count as ranked before. A new image that a detector flags pushes the others back by one
    there; with ``least`` 1 it does so for one detector at least.
    """
    ranks: NDArray[np.float64] = scipy.stats.rankdata(-scores, method="max", axis=0).astype(
        np.float64
    )
    if least > 1:
        return np.sort(ranks, axis=1)[:, least - 1 : least]
    pushed = np.repeat(ranks[:, :, None], ranks.shape[1], axis=2)
    which = np.arange(ranks.shape[1])
    pushed[:, which, which] += 1
    smallest: NDArray[np.float64] = pushed.min(axis=1)
    return smallest
