"""Likeness over several scales, by shifted sums: MS-SSIM and VIF.

Many versions of one image are compared at once: the maps of the original are computed once.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from defender.metrics.structural import SIGMA, WINDOW
from defender.shifted_sums import correlate, gaussian_weights
from defender.types import Images, Scores

_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_C1, _C2 = 0.01**2, 0.03**2
MS_SSIM_SIDE = (WINDOW - 1) * 2 ** (len(_SCALES) - 1)
"""MS-SSIM is defined for sides above so many pixels."""

VIF_SIDE = 41
"""VIF is defined for sides of so many pixels and more."""

_LUMA = (0.299, 0.587, 0.114)
_NOISE = 2.0 / 255**2
_TINY = 1e-8 / 255**2


def luma(images: Images) -> Images:
    """The luma of ITU-R 601, (n, 1, h, w); grey images are their own."""
    if images.shape[1] == 1:
        return images
    return (images * images.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _check(reference: Images, distorted: Images) -> None:
    same = reference.shape[1:] == distorted.shape[1:]
    if reference.ndim != 4 or not same or len(reference) not in (1, len(distorted)):
        raise ValueError(
            f"expected images (n, c, h, w) and one reference or as many, got "
            f"{tuple(distorted.shape)} and {tuple(reference.shape)}"
        )


def _moments(x: Tensor, y: Tensor, weights: list[float]) -> tuple[Tensor, ...]:
    """Means of either, variances of either, and covariance, under a window."""
    mean_x, mean_y = correlate(x, weights), correlate(y, weights)
    variance_x = correlate(x.square(), weights) - mean_x.square()
    variance_y = correlate(y.square(), weights) - mean_y.square()
    return mean_x, mean_y, variance_x, variance_y, correlate(x * y, weights) - mean_x * mean_y


def multi_scale_similarity(reference: Images, distorted: Images) -> Scores:
    """MS-SSIM as :func:`defender.metrics.image.ms_ssim` defines it, in the type of the images.

    Args:
        reference: (n, c, h, w) or (1, c, h, w) in [0, 1].
        distorted: (n, c, h, w) in [0, 1].

    Returns:
        (n,) in [0, 1], higher is closer; NaN where a side is 160 pixels or less.

    Raises:
        ValueError: shapes that do not go together.

    Source: Z. Wang, E. Simoncelli, A. Bovik, "Multiscale Structural Similarity for Image Quality
    Assessment", 2003, DOI 10.1109/ACSSC.2003.1292216.
    Differs: channel by channel; negative terms count as zero.
    """
    _check(reference, distorted)
    if min(distorted.shape[2:]) <= MS_SSIM_SIDE:
        return distorted.new_full((len(distorted),), torch.nan)
    x, y = reference, distorted
    weights = gaussian_weights(SIGMA, WINDOW // 2)
    total = distorted.new_ones(distorted.shape[:2])
    for scale, power in enumerate(_SCALES):
        mean_x, mean_y, variance_x, variance_y, covariance = _moments(x, y, weights)
        found = (2 * covariance + _C2) / (variance_x + variance_y + _C2)
        if scale == len(_SCALES) - 1:
            energy = mean_x.square() + mean_y.square()
            found = found * (2 * mean_x * mean_y + _C1) / (energy + _C1)
        total = total * found.mean((2, 3)).clamp(min=0) ** power
        odd = [y.shape[2] % 2, y.shape[3] % 2]
        x, y = (functional.avg_pool2d(part, 2, padding=odd) for part in (x, y))
    return total.mean(1)


def vif(reference: Images, distorted: Images) -> Scores:
    """Visual information fidelity in the pixel domain, over four scales, of the luma.

    The share of the information about the original, as a model of natural images has it, that
    is left in the distorted image: 1 for equal images, 0 for none; more contrast gives more.

    Args:
        reference: (n, c, h, w) or (1, c, h, w) in [0, 1], c 1 or 3.
        distorted: (n, c, h, w) in [0, 1].

    Returns:
        (n,) at least 0, higher is closer; NaN where a side is below 41 pixels.

    Raises:
        ValueError: shapes that do not go together.

    Source: H. Sheikh, A. Bovik, "Image Information and Visual Quality", 2006,
    DOI 10.1109/TIP.2005.859378, as the authors' code in the pixel domain (vifp) has it.
    Differs: none from that code; the paper works on wavelets.
    """
    _check(reference, distorted)
    if min(distorted.shape[2:]) < VIF_SIDE:
        return distorted.new_full((len(distorted),), torch.nan)
    x, y = luma(reference), luma(distorted)
    kept = distorted.new_zeros(len(distorted))
    whole = distorted.new_zeros(len(reference))
    for scale in range(4):
        window = 2 ** (4 - scale) + 1
        weights = gaussian_weights(window / 5, window // 2)
        if scale:
            x, y = (correlate(part, weights)[:, :, ::2, ::2].contiguous() for part in (x, y))
        _, _, variance_x, variance_y, covariance = _moments(x, y, weights)
        variance_x, variance_y = variance_x.clamp(min=0), variance_y.clamp(min=0)
        flat = variance_x < _TINY
        gain = torch.where(flat, 0, covariance / (variance_x + _TINY))
        gain = torch.where(variance_y < _TINY, 0, gain)
        # where the gain is negative, everything in the distorted image is noise
        noise = torch.where(flat | (gain < 0), variance_y, variance_y - gain * covariance)
        noise = noise.masked_fill(variance_y < _TINY, 0).clamp(min=_TINY)
        signal = variance_x.masked_fill(flat, 0)
        told = torch.log1p(gain.clamp(min=0).square() * signal / (noise + _NOISE))
        kept = kept + told.sum((1, 2, 3))
        whole = whole + torch.log1p(signal / _NOISE).sum((1, 2, 3))
    return (kept + _TINY) / (whole + _TINY)
