"""How a purifier for image-quality metrics is judged: likeness to the clean image, gain, ranks.

Per image: :func:`closeness`, and of its two figures :func:`likeness` and :func:`summed`. Of a
dataset, from columns of scores: :func:`relative_gain`, :func:`absolute_gain` (columns, averaged
elsewhere) and :func:`srcc`.
"""

from __future__ import annotations

import math

import numpy as np
import scipy
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

from defender.metrics.image import psnr
from defender.types import Images, Scores

WINDOW = 7
PEAK = 80.0
"""PSNR in dB that counts as 1; more counts as no more."""
_K1, _K2 = 0.01, 0.03


def _box(values: Tensor) -> Tensor:
    """Sums over 7 x 7 windows inside (..., h, w), by doubling."""
    for axis in (-2, -1):
        size = values.shape[axis]
        two = values.narrow(axis, 0, size - 1) + values.narrow(axis, 1, size - 1)
        four = two.narrow(axis, 0, size - 3) + two.narrow(axis, 2, size - 3)
        kept = size - WINDOW + 1
        last = values.narrow(axis, WINDOW - 1, kept)
        values = (four.narrow(axis, 0, kept) + two.narrow(axis, 4, kept)).add_(last)
    return values


def uniform_ssim(reference: Images, distorted: Images) -> Scores:
    """Structural similarity with a flat 7 x 7 window and sample covariances; 1 for equal images.

    This is ``skimage.metrics.structural_similarity`` with ``channel_axis``, ``data_range=1`` and
    its other defaults: the mean over channels and over the pixels whose window lies inside.

    Args:
        reference: (n, c, h, w) in [0, 1].
        distorted: (n, c, h, w) in [0, 1], of the same shape.

    Returns:
        float64 (n,) in [-1, 1], computed in float64; NaN where a side is below 7 pixels.

    Raises:
        ValueError: shapes that differ.

    Source: Z. Wang, A. Bovik, H. Sheikh, E. Simoncelli, "Image Quality Assessment: From Error
    Visibility to Structural Similarity", 2004, DOI 10.1109/TIP.2003.819861.
    Differs: a flat window, where the paper's is Gaussian.
    """
    if reference.shape != distorted.shape:
        raise ValueError(f"expected one shape, got {reference.shape} and {distorted.shape}")
    if min(reference.shape[2:]) < WINDOW or not len(reference):
        return reference.new_full((len(reference),), torch.nan, dtype=torch.float64)
    first, second = _levels(reference), _levels(distorted)
    if first is not None and second is not None:
        return torch.stack([_stored_ssim(x, y) for x, y in zip(first, second, strict=True)])
    return torch.stack(
        [_one_ssim(x.double(), y.double()) for x, y in zip(reference, distorted, strict=True)]
    )


def _levels(images: Images) -> Tensor | None:
    """The 8-bit levels of images as whole float32 numbers, None where they are no such images."""
    levels = (images * 255).round_().float()
    exact = bool(((levels / 255).to(images.dtype) == images).all())
    return levels if exact else None


def _stored_ssim(x: Tensor, y: Tensor) -> Tensor:
    """The figure of one 8-bit image (c, h, w) in levels: sums of whole numbers are exact."""
    pixels = WINDOW * WINDOW
    # 49 * 2 * 255^2 < 2^24: whole in float32; products of two sums fit 32-bit integers
    sum_x, sum_y = _box(x).int(), _box(y).int()
    product, energy = sum_x * sum_y, sum_x.square() + sum_y.square()
    sample = pixels * (pixels - 1)
    variances = (_box(x.square() + y.square()).int() * pixels - energy).float() / sample
    covariance = (_box(x * y).int() * pixels - product).float() / sample
    first, second = (255 * _K1) ** 2, (255 * _K2) ** 2
    area = pixels * pixels
    luminance = (2 * product.float() / area + first) / (energy.float() / area + first)
    structure = (2 * covariance + second) / (variances + second)
    return (luminance * structure).mean(dtype=torch.float64)


def _one_ssim(x: Tensor, y: Tensor) -> Tensor:
    """The figure of one image (c, h, w): one at a time, so that the maps stay in the cache."""
    pixels = WINDOW * WINDOW
    mean_x, mean_y = _box(x) / pixels, _box(y) / pixels
    product, energy = mean_x * mean_y, mean_x.square() + mean_y.square()
    sample = pixels / (pixels - 1)
    variances = (_box(x.square() + y.square()) / pixels - energy) * sample
    covariance = (_box(x * y) / pixels - product) * sample
    luminance = (2 * product + _K1**2) / (energy + _K1**2)
    return (luminance * (2 * covariance + _K2**2) / (variances + _K2**2)).mean()


def closeness(reference: Images, purified: Images) -> tuple[Scores, Scores]:
    """SSIM and PSNR of purified images to the clean ones.

    A purified image of another size is first resized to that of the clean one (bilinear,
    antialiased). SSIM is :func:`uniform_ssim`; PSNR counts up to 80 dB, also of equal images.

    Args:
        reference: clean images (n, c, h, w) in [0, 1].
        purified: (n, c, any height, any width) in [0, 1].

    Returns:
        float64 (n,) each: SSIM, at most 1, and PSNR in dB, at most 80.

    Raises:
        ValueError: another number of images or channels.
    """
    if reference.shape[:2] != purified.shape[:2]:
        raise ValueError(
            f"expected {tuple(reference.shape[:2])} images and channels, "
            f"got {tuple(purified.shape[:2])}"
        )
    if reference.shape != purified.shape:
        size = (int(reference.shape[2]), int(reference.shape[3]))
        purified = functional.interpolate(purified, size, mode="bilinear", antialias=True)
    return uniform_ssim(reference, purified), psnr(reference, purified).clamp(max=PEAK)


def halved(ssim: Scores, decibels: Scores) -> Scores:
    """``(SSIM + PSNR / 80 dB) / 2`` of what :func:`closeness` found, (n,)."""
    return (ssim + decibels / PEAK) / 2


def summed(ssim: Scores, decibels: Scores) -> Scores:
    """``SSIM + PSNR / 40 dB`` of what :func:`closeness` found, (n,): of equal images 3.

    Source: A. Gushchin et al., "Guardians of Image Quality: Benchmarking Defenses Against
    Adversarial Attacks on Image Quality Metrics", 2024, arXiv 2408.01541: its similarity.
    Differs: PSNR counts up to 80 dB, as in :func:`likeness`.
    """
    return ssim + decibels / (PEAK / 2)


def likeness(reference: Images, purified: Images) -> Scores:
    """Quality of a purified image, ``(SSIM + min(PSNR, 80) / 80) / 2``; 1 for the clean image.

    Arguments and errors are those of :func:`closeness`.

    Returns:
        float64 (n,), at most 1.

    Source: A. Gushchin et al., "Adversarial purification for no-reference image-quality metrics:
    applicability study and new methods", 2024, arXiv 2404.06957.
    Differs: equal images count as 80 dB; the published evaluator counts them as 150.
    """
    return halved(*closeness(reference, purified))


def relative_gain(clean: ArrayLike, purified: ArrayLike) -> NDArray[np.float64]:
    """What an attack left of its effect behind a purifier, ``|q(D(x')) - q(x)| / |q(x)|``.

    Args:
        clean: scores (n,) of the clean images.
        purified: scores (n,) of the attacked images behind the purifier.

    Returns:
        (n,), >= 0; 0.1 is ten percent of the clean score; NaN where a score is missing or the
        clean one is 0.

    Source: A. Gushchin et al., 2024, arXiv 2404.06957. Differs: shares, not percents.
    """
    before, after = np.asarray(clean, dtype=np.float64), np.asarray(purified, dtype=np.float64)
    scale = np.where(before == 0, math.nan, np.abs(before))
    share: NDArray[np.float64] = np.abs(after - before) / scale
    return share


def absolute_gain(
    clean: ArrayLike, purified: ArrayLike, score_range: tuple[float, float]
) -> NDArray[np.float64]:
    """``|q(D(x')) - q(x)|`` as a share of the metric's range; arguments as before."""
    low, high = score_range
    before, after = np.asarray(clean, dtype=np.float64), np.asarray(purified, dtype=np.float64)
    share: NDArray[np.float64] = np.abs(after - before) / (high - low)
    return share


def srcc(predicted: ArrayLike, reference: ArrayLike) -> float:
    """Spearman's rank correlation of two columns, ties at their mean rank.

    Args:
        predicted: (n,) scores.
        reference: (n,) scores.

    Returns:
        [-1, 1]; NaN where there are fewer than 3 images or a column is constant.

    Raises:
        ValueError: columns of different lengths.
    """
    x, y = np.asarray(predicted, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if x.shape != y.shape:
        raise ValueError(f"reference: expected {len(x)} scores, got {len(y)}")
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(scipy.stats.spearmanr(x, y).statistic)


def srcc_interval(
    predicted: ArrayLike, reference: ArrayLike, *, seed: int = 0, draws: int = 1000
) -> tuple[float, float]:
    """95 % bootstrap interval of :func:`srcc` over images.

    Args:
        predicted: (n,) scores.
        reference: (n,) scores.
        seed: seed of the draws.
        draws: bootstrap samples.

    Returns:
        low and high; (NaN, NaN) where the correlation is not defined.
    """
    x, y = np.asarray(predicted, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if math.isnan(srcc(x, y)):
        return math.nan, math.nan
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    picks = np.random.default_rng(seed).integers(0, len(x), (draws, len(x)))
    ranks_x, ranks_y = (
        scipy.stats.rankdata(x[picks], axis=1),
        scipy.stats.rankdata(y[picks], axis=1),
    )
    ranks_x -= ranks_x.mean(axis=1, keepdims=True)
    ranks_y -= ranks_y.mean(axis=1, keepdims=True)
    power = np.sqrt((ranks_x**2).sum(1) * (ranks_y**2).sum(1))
    known_draws = power > 0
    found = (ranks_x * ranks_y).sum(1)[known_draws] / power[known_draws]
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)
