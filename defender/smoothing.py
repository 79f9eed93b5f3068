"""Smoothing filters on images, with the border reflected (``d c b | a b c d | c b a``)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from defender.types import Images


def _reflect(images: Images, margin: int) -> Tensor:
    side = min(images.shape[2:])
    if margin >= side:
        raise ValueError(
            f"expected images with sides above {margin} pixels for this window, got {side}"
        )
    return functional.pad(images, [margin] * 4, mode="reflect")


def median_filter(images: Images, window: int) -> Images:
    """Median of the square window around each pixel, channel by channel.

    Args:
        images: (n, c, h, w).
        window: odd side of the window in pixels; 1 changes nothing.

    Returns:
        (n, c, h, w); gradients pass to the pixel that is the median.

    Raises:
        ValueError: an even window, or images no larger than half of it.
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window: expected an odd number >= 1, got {window}")
    height, width = images.shape[2:]
    padded = _reflect(images, window // 2)
    shifted = [
        padded[:, :, row : row + height, column : column + width]
        for row in range(window)
        for column in range(window)
    ]
    return torch.stack(shifted).median(dim=0).values


def gaussian_filter(images: Images, sigma: float) -> Images:
    """Gaussian blur, channel by channel, with the kernel cut at ``ceil(3 sigma)`` pixels.

    Args:
        images: (n, c, h, w).
        sigma: standard deviation in pixels, > 0.

    Returns:
        (n, c, h, w), within the range of ``images``.

    Raises:
        ValueError: sigma out of range, or images no larger than the reach of the kernel.
    """
    if sigma <= 0:
        raise ValueError(f"sigma: expected > 0, got {sigma}")
    reach = max(1, -int(-3 * sigma // 1))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).to(images)
    channels = images.shape[1]
    padded = _reflect(images, reach)
    vertical = kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    horizontal = kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    blurred = functional.conv2d(padded, vertical, groups=channels)
    return functional.conv2d(blurred, horizontal, groups=channels)
