"""Filters on images; the border is reflected (``d c b | a b c d | c b a``) unless stated."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from defender.types import Images

_BLOCK = 1 << 17
"""Values of windows sorted at a time."""


def _reflect(images: Images, margin: int) -> Tensor:
    side = min(images.shape[2:])
    if margin >= side:
        raise ValueError(
            f"expected images with sides above {margin} pixels for this window, got {side}"
        )
    return functional.pad(images, [margin] * 4, mode="reflect")


def symmetric_pad(images: Images, margin: int) -> Images:
    """Images with a margin in which the border pixels are repeated first: ``b a | a b c | c b``.

    Args:
        images: (n, c, h, w).
        margin: pixels on each side, of any number.

    Returns:
        (n, c, h + 2 margin, w + 2 margin).
    """
    for axis in (2, 3):
        size = images.shape[axis]
        places = torch.arange(-margin, size + margin, device=images.device) % (2 * size)
        images = images.index_select(axis, torch.minimum(places, 2 * size - 1 - places))
    return images


def _check_window(window: int) -> None:
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window: expected an odd number >= 1, got {window}")


def median_filter(images: Images, window: int, padding: str = "reflect") -> Images:
    """Median of the square window around each pixel, channel by channel.

    Args:
        images: (n, c, h, w).
        window: odd side of the window in pixels; 1 changes nothing.
        padding: ``"reflect"`` or ``"symmetric"``, which repeats the border pixels.

    Returns:
        (n, c, h, w); gradients pass to the pixel that is the median.

    Raises:
        ValueError: an even window, another padding, or reflected images no larger than half the
            window.
    """
    _check_window(window)
    if padding not in ("reflect", "symmetric"):
        raise ValueError(f"padding: expected reflect | symmetric, got {padding!r}")
    height, width = images.shape[2:]
    padded = (_reflect if padding == "reflect" else symmetric_pad)(images, window // 2)
    if window > 1 and padded.device.type == "cpu" and not padded.requires_grad:
        return _sorted_median(padded, window)
    shifted = [
        padded[:, :, row : row + height, column : column + width]
        for row in range(window)
        for column in range(window)
    ]
    return torch.stack(shifted).median(dim=0).values


def _sorted_median(padded: Tensor, window: int) -> Images:
    """The median of each window that lies inside, by sorting: many times as fast as selecting."""
    planes = padded.flatten(0, 1).numpy()
    views = np.lib.stride_tricks.sliding_window_view(planes, (window, window), axis=(1, 2))
    medians = np.empty(views.shape[:3], planes.dtype)
    rows = max(1, _BLOCK // (views.shape[2] * window**2))
    for view, median in zip(views, medians, strict=True):
        for top in range(0, len(view), rows):
            ranked = np.sort(view[top : top + rows].reshape(-1, window**2), axis=-1)
            median[top : top + rows] = ranked[:, window**2 // 2].reshape(-1, view.shape[1])
    return torch.from_numpy(medians).view(*padded.shape[:2], *medians.shape[1:])


def minimum_filter(images: Images, window: int) -> Images:
    """Least value of the square window around each pixel, channel by channel.

    The window is cropped at the border, which gives the same as a symmetric border.

    Args:
        images: (n, c, h, w).
        window: odd side of the window in pixels; 1 changes nothing.

    Returns:
        (n, c, h, w); gradients pass to the pixel that is the minimum.

    Raises:
        ValueError: an even window.
    """
    _check_window(window)
    return -functional.max_pool2d(-images, window, stride=1, padding=window // 2)


def gaussian_filter(
    images: Images, sigma: float, reach: int | None = None, padding: str = "reflect"
) -> Images:
    """Gaussian blur, channel by channel, with a kernel that is cut and then normalised.

    Args:
        images: (n, c, h, w).
        sigma: standard deviation in pixels, > 0.
        reach: pixels from the middle of the kernel to its end; None for ``ceil(3 sigma)``.
        padding: ``"reflect"``, or ``"zeros"`` beyond the border, for images of any size.

    Returns:
        (n, c, h, w), within the range of ``images`` and the padding.

    Raises:
        ValueError: sigma, reach or padding out of range, or reflected images no larger than the
            reach.
    """
    if padding not in ("reflect", "zeros"):
        raise ValueError(f"padding: expected reflect | zeros, got {padding!r}")
    if sigma <= 0:
        raise ValueError(f"sigma: expected > 0, got {sigma}")
    reach = max(1, -int(-3 * sigma // 1)) if reach is None else reach
    if reach < 0:
        raise ValueError(f"reach: expected >= 0, got {reach}")
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).to(images)
    channels = images.shape[1]
    padded = (
        _reflect(images, reach) if padding == "reflect" else functional.pad(images, [reach] * 4)
    )
    vertical = kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    horizontal = kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    blurred = functional.conv2d(padded, vertical, groups=channels)
    return functional.conv2d(blurred, horizontal, groups=channels)
