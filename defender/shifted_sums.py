"""Separable filters with short windows as sums of shifted images.

A convolution of single channels spends most of its time outside the arithmetic; here each tap is
one sum over all pixels of all images.
"""

from __future__ import annotations

import math

from torch import Tensor


def gaussian_weights(sigma: float, reach: int) -> list[float]:
    """Samples of a Gaussian at -reach, ..., reach, with sum 1.

    Args:
        sigma: standard deviation in samples, > 0.
        reach: samples on each side of the middle, >= 0.
    """
    samples = [math.exp(-((i / sigma) ** 2) / 2) for i in range(-reach, reach + 1)]
    return [sample / math.fsum(samples) for sample in samples]


def correlate(values: Tensor, weights: list[float]) -> Tensor:
    """Weighted means under a window that is the same down and across, where it lies inside.

    Args:
        values: (..., h, w), floats.
        weights: weights of the window along either axis, no more than h and w.

    Returns:
        (..., h - k + 1, w - k + 1) for k weights, in the order of the values, not turned around.
    """
    for axis in (-2, -1):
        kept = values.shape[axis] - len(weights) + 1
        total = values.narrow(axis, 0, kept) * weights[0]
        for start, weight in enumerate(weights[1:], 1):
            total.add_(values.narrow(axis, start, kept), alpha=weight)
        values = total
    return values
