"""Weighted means over neighbourhoods whose weights are the same both ways round.

The weight of pixel q in the mean of pixel p is that of p in the mean of q, so each pair is weighed
once. A neighbourhood ends at the border of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from defender.types import Images

Region = tuple[slice, slice]
Weigh = Callable[[int, int, Region, Region], Tensor]


def offsets(reach: int, height: int, width: int) -> Iterator[tuple[int, int]]:
    """One of each two opposite steps within a square, (0, 0) left out, that fit into an image.

    Args:
        reach: longest step down or across, in pixels.
        height: rows of the image.
        width: columns of the image.

    Yields:
        down >= 0 and across, in pixels.
    """
    for down in range(min(reach, height - 1) + 1):
        for across in range(-min(reach, width - 1), min(reach, width - 1) + 1):
            if down > 0 or across > 0:
                yield down, across


def pairs(down: int, across: int, height: int, width: int) -> tuple[Region, Region]:
    """Where the first and the second pixels of all pairs with a step between them lie.

    Args:
        down: step from the first to the second pixel, >= 0.
        across: the same along the rows, of either sign.
        height: rows of the image.
        width: columns of the image.

    Returns:
        Two regions (rows, columns) of the same size.
    """
    left, right = max(0, -across), max(0, across)
    first = (slice(0, height - down), slice(left, width - right))
    second = (slice(down, height), slice(right, width - left))
    return first, second


def weighted_mean(images: Images, reach: int, weigh: Weigh) -> Images:
    """The mean of the pixels around each pixel, its own with weight 1.

    Args:
        images: (n, c, h, w).
        reach: pixels from the middle of the neighbourhood to its ends.
        weigh: given a step (down, across) and the regions of the first and the second pixels of
            the pairs, the weights of these pairs (n, 1, rows, columns), >= 0.

    Returns:
        (n, c, h, w), within the range of ``images``; differentiable.
    """
    height, width = images.shape[2:]
    # ones as a further channel, so that weights and weighted values are summed in one go
    values = torch.cat([images, torch.ones_like(images[:, :1])], dim=1)
    total = values.clone()
    for down, across in offsets(reach, height, width):
        first, second = pairs(down, across, height, width)
        weights = weigh(down, across, first, second)
        total[:, :, *first] += weights * values[:, :, *second]
        total[:, :, *second] += weights * values[:, :, *first]
    return total[:, :-1] / total[:, -1:]
