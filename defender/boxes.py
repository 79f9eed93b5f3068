"""Rectangles in images, as (n, 4) whole numbers: top, left, height, width in pixels."""

from __future__ import annotations

import torch
from torch import Tensor


def box_mask(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """What rectangles cover.

    Args:
        boxes: (n, 4) top, left, height, width; an empty one has a height or width of 0.
        size: height and width of the images.

    Returns:
        bool (n, 1, height, width).
    """
    top, left, height, width = boxes[:, :, None].unbind(dim=1)
    rows = torch.arange(size[0], device=boxes.device)[None]
    columns = torch.arange(size[1], device=boxes.device)[None]
    down = (rows >= top) & (rows < top + height)
    across = (columns >= left) & (columns < left + width)
    return (down[:, :, None] & across[:, None, :])[:, None]


def bounding_boxes(masks: Tensor) -> Tensor:
    """The smallest rectangle around each mask.

    Args:
        masks: bool (n, c, h, w); a pixel counts that is marked in any channel.

    Returns:
        int64 (n, 4) top, left, height, width; zeros where nothing is marked.
    """
    marked = masks.any(dim=1)
    top, height = _extent(marked.any(dim=2))
    left, width = _extent(marked.any(dim=1))
    return torch.stack([top, left, height, width], dim=1)


def _extent(marked: Tensor) -> tuple[Tensor, Tensor]:
    """First marked place and length up to the last one, of bool (n, places)."""
    length = marked.shape[1]
    whole = marked.to(torch.int64)
    first = whole.argmax(dim=1)
    last = length - 1 - whole.flip(1).argmax(dim=1)
    some = marked.any(dim=1)
    return first * some, (last - first + 1) * some


def box_iou(first: Tensor, second: Tensor) -> Tensor:
    """Area that rectangles share, as a part of what either covers.

    Args:
        first: (n, 4) top, left, height, width.
        second: (n, 4), as many.

    Returns:
        float32 (n,) in [0, 1]; 0 where both are empty.
    """
    start = torch.maximum(first[:, :2], second[:, :2])
    end = torch.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:])
    shared = (end - start).clamp_min(0).prod(dim=1)
    covered = first[:, 2:].prod(dim=1) + second[:, 2:].prod(dim=1) - shared
    return shared.float() / covered.clamp_min(1).float()
