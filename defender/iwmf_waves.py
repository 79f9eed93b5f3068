"""The iterative window mean filter in torch: windows that do not touch each other at once.

A window is ready when it is the first remaining one at each of its pixels. The windows that are
ready do not overlap, and every earlier window that overlaps one of them is done, so a wave of them
gives to the bit what they give one after the other. At a side of 3 and 112 x 112 pixels there are
about 17 waves for 0.25 windows a pixel and 23 for 0.4; with the image their number grows slowly.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_PIXELS = {"cpu": 1 << 16, "cuda": 1 << 24}
"""Pixels worked on at a time: few enough for a core's cache, or for the memory."""


def replaced(images: Tensor, corners: Tensor, window: int) -> Tensor:
    """Images whose blocks are replaced by their means, as if one after the other.

    Args:
        images: (n, c, h, w), floating point, on any device; left unchanged.
        corners: int32 (n, count), or (1, count) for all images: ``top * width + left`` of each
            block, which lies inside.
        window: side of the blocks in pixels, at most h and w.

    Returns:
        (n, c, h, w), contiguous.
    """
    n, c, height, width = images.shape
    images = images.detach()
    if len(corners) == 1:
        planes = images.reshape(n * c, height * width).clone()
        _replace(planes, corners, (height, width), window)
        return planes.view(n, c, height, width)
    result = torch.empty_like(images, memory_format=torch.contiguous_format)
    part = max(1, _PIXELS.get(images.device.type, _PIXELS["cuda"]) // (height * width))
    for start in range(0, n, part):
        some = images[start : start + part].transpose(0, 1)
        planes = some.reshape(c, -1).clone()
        _replace(planes, corners[start : start + part], (height, width), window)
        result[start : start + part] = planes.view(some.shape).transpose(0, 1)
    return result


def _replace(planes: Tensor, corners: Tensor, size: tuple[int, int], window: int) -> None:
    """Replace blocks of ``planes`` (lanes, m * h * w) in place; corners (m, count)."""
    # a tensor: CUDA multiplies by the reciprocal of a number, which is another rounding
    area = torch.tensor(float(window * window), dtype=planes.dtype, device=planes.device)
    places = [row * size[1] + column for row in range(window) for column in range(window)]
    for first in waves(corners, size, window):
        pixels = [first + place for place in places]
        total = planes.index_select(1, first)
        for others in pixels[1:]:
            total += planes.index_select(1, others)
        total /= area
        for each in pixels:
            planes.index_copy_(1, each, total)


def waves(corners: Tensor, size: tuple[int, int], window: int) -> Iterator[Tensor]:
    """The windows of m sequences in waves.

    Args:
        corners: int32 (m, count), ``top * width + left`` of each window.
        size: height and width of the images.
        window: side of the windows in pixels.

    Yields:
        int64 (windows,), a wave each: the windows' upper left pixels, those of image i numbered
        from ``i * height * width``.
    """
    m, count = corners.shape
    device = corners.device
    offsets = torch.arange(m, device=device).unsqueeze(1) * (size[0] * size[1])
    remaining = (corners + offsets).flatten()
    order = torch.arange(count, device=device).repeat(m)
    while len(order):
        earliest = torch.full((m, *size), count, dtype=torch.int64, device=device)
        earliest.view(-1).scatter_reduce_(0, remaining, order, "amin")
        # two windows overlap where their corners are less than a side apart along both axes
        around = _least_nearby(_least_nearby(earliest, 1, window), 2, window)
        ready = around.view(-1)[remaining] == order
        yield remaining[ready]
        remaining, order = remaining[~ready], order[~ready]


def _least_nearby(values: Tensor, axis: int, reach: int) -> Tensor:
    """The least of the values less than ``reach`` away along an axis, for each place."""
    least = values.clone()
    for shift in range(1, reach):
        length = values.shape[axis] - shift
        for here, there in ((0, shift), (shift, 0)):
            target = least.narrow(axis, here, length)
            torch.minimum(target, values.narrow(axis, there, length), out=target)
    return least
