"""Per-image distances and similarities of two sets of images with values in [0, 1]."""

from __future__ import annotations

import math

import torch
from pytorch_msssim import ms_ssim as _ms_ssim
from torch import Tensor

from defender.metrics.structural import WINDOW as SSIM_WINDOW
from defender.metrics.structural import structural_similarity
from defender.types import Images, Scores

LEGACY_OFFSET = 20 * math.log10(255)
MS_SSIM_SIDE = (SSIM_WINDOW - 1) * 2**4


def _check(reference: Images, distorted: Images) -> None:
    if reference.ndim != 4 or reference.shape != distorted.shape:
        raise ValueError(
            f"expected two sets of images (n, c, h, w) of one shape, got "
            f"{tuple(reference.shape)} and {tuple(distorted.shape)}"
        )


def psnr(reference: Images, distorted: Images) -> Scores:
    """Peak signal-to-noise ratio ``10 log10(1 / MSE)`` in dB, peak 1; higher is closer.

    Args:
        reference: (n, c, h, w) in [0, 1].
        distorted: (n, c, h, w) in [0, 1].

    Returns:
        float64 (n,), computed in float64; inf where the images are equal.

    Raises:
        ValueError: shapes that differ.
    """
    _check(reference, distorted)
    difference = reference.double() - distorted.double()
    decibels: Scores = -10 * torch.log10(difference.square().mean(dim=(1, 2, 3)))
    return decibels


def psnr_legacy(reference: Images, distorted: Images) -> Scores:
    """PSNR plus ``20 log10(255)`` = 48.1308 dB, for comparison with Image-Defender's figures.

    The repository divides a peak of 255 by errors of images in [0, 1]; its threshold of 70 dB is
    21.87 dB of true PSNR. Arguments, result and errors as for :func:`psnr`.

    Source: XuanZhao777, Image-Defender (repository).
    """
    return psnr(reference, distorted) + LEGACY_OFFSET


def l2(reference: Images, distorted: Images) -> Scores:
    """Euclidean distance of all values of an image, in [0, 1] units; lower is closer.

    Arguments, result and errors as for :func:`psnr`; 0 where the images are equal.
    """
    _check(reference, distorted)
    difference = reference.double() - distorted.double()
    distances: Scores = torch.linalg.vector_norm(difference, dim=(1, 2, 3))
    return distances


def linf(reference: Images, distorted: Images) -> Scores:
    """Largest difference of a value, in [0, 1] units; lower is closer.

    Arguments, result and errors as for :func:`psnr`; 0 where the images are equal.
    """
    _check(reference, distorted)
    return (reference.double() - distorted.double()).abs().amax(dim=(1, 2, 3))


def ssim(reference: Images, distorted: Images) -> Scores:
    """Structural similarity, mean over pixels and channels; 1 for equal images, higher is closer.

    11 x 11 Gaussian window with sigma 1.5, population covariance, K1 = 0.01, K2 = 0.03, peak 1,
    over the pixels whose window lies inside the image.

    Args:
        reference: (n, c, h, w) in [0, 1].
        distorted: (n, c, h, w) in [0, 1].

    Returns:
        float64 (n,) in [-1, 1], computed in float64; NaN where a side is below 11 pixels.

    Raises:
        ValueError: shapes that differ.

    Source: Z. Wang, A. Bovik, H. Sheikh, E. Simoncelli, "Image Quality Assessment: From Error
    Visibility to Structural Similarity", 2004, DOI 10.1109/TIP.2003.819861.
    Differs: channel by channel, where the paper has grey images; no downsampling before it.
    """
    _check(reference, distorted)
    if min(reference.shape[2:]) < SSIM_WINDOW or not len(reference):
        return _undefined(reference)
    return structural_similarity(reference, distorted)


def ms_ssim(reference: Images, distorted: Images) -> Scores:
    """Multi-scale structural similarity over five scales; 1 for equal images, higher is closer.

    Window as for :func:`ssim`, weights 0.0448, 0.2856, 0.3001, 0.2363 and 0.1333.

    Args:
        reference: (n, c, h, w) in [0, 1].
        distorted: (n, c, h, w) in [0, 1].

    Returns:
        float64 (n,) in [0, 1], computed in float64; NaN where a side is 160 pixels or less,
        which five scales of an 11-pixel window do not fit.

    Raises:
        ValueError: shapes that differ.

    Source: Z. Wang, E. Simoncelli, A. Bovik, "Multiscale Structural Similarity for Image Quality
    Assessment", 2003, DOI 10.1109/ACSSC.2003.1292216.
    Differs: channel by channel; negative terms count as zero.
    """
    _check(reference, distorted)
    if min(reference.shape[2:]) <= MS_SSIM_SIDE or not len(reference):
        return _undefined(reference)
    similarity: Scores = _ms_ssim(
        reference.double(), distorted.double(), data_range=1.0, size_average=False
    )
    return similarity


def _undefined(images: Images) -> Tensor:
    return torch.full((len(images),), torch.nan, dtype=torch.float64, device=images.device)
