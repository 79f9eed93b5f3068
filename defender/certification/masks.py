"""Mask sets that cover every place where a patch of known size can lie."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Size = tuple[int, int]


def bands(length: int, patch: int, count: int) -> Tensor:
    """Intervals of one axis such that one of them covers each interval of ``patch`` pixels.

    Stride ``s = ceil((n - p + 1) / k)``, width ``p + s - 1``: an interval at ``a`` covers the
    patches at ``a, ..., a + s - 1``, so steps of ``s`` leave none out. The last interval is moved
    back to end with the axis.

    Args:
        length: pixels of the axis, n.
        patch: pixels of the patch along it, p, in [1, n].
        count: intervals at most, k; fewer where fewer suffice.

    Returns:
        bool (intervals, length), true inside; one interval a row.

    Raises:
        ValueError: numbers out of range.

    Source: C. Xiang et al., "PatchCleanser: Certifiably Robust Defense against Adversarial
    Patches for Any Image Classifier", 2022, arXiv 2108.09135, section 3.2.
    """
    if not 1 <= patch <= length:
        raise ValueError(f"patch: expected [1, {length}] pixels, got {patch}")
    if count < 1:
        raise ValueError(f"count: expected >= 1, got {count}")
    places = length - patch + 1
    stride = math.ceil(places / count)
    width = patch + stride - 1
    starts = torch.arange(0, places, stride).clamp(max=length - width)[:, None]
    pixels = torch.arange(length)[None]
    return (pixels >= starts) & (pixels < starts + width)


def rectangles(size: Size, patch: Size, count: int) -> Tensor:
    """Rectangular masks such that one of them covers each place of the patch.

    Args:
        size: height and width of the image, pixels.
        patch: height and width of the patch, pixels.
        count: masks along an axis at most, k.

    Returns:
        bool (masks, h, w), true where hidden; at most k^2 masks, row by row.
    """
    rows, columns = (bands(*axis, count) for axis in zip(size, patch, strict=True))
    return (rows[:, None, :, None] & columns[None, :, None, :]).flatten(0, 1)


def crosses(size: Size, patch: Size, count: int) -> Tensor:
    """Masks of a full band of rows and a full band of columns, in every combination.

    A patch that lies in row band i and column band j is covered by the mask (i, b) for every b
    and by the mask (a, j) for every a. So each place is covered by at least ``rows + columns - 1``
    masks, and *any two places* are covered together by one mask.

    Args:
        size: height and width of the image, pixels.
        patch: height and width of the patch, pixels.
        count: bands along an axis at most, k.

    Returns:
        bool (row bands, column bands, h, w), true where hidden; at most k^2 masks.
    """
    rows, columns = (bands(*axis, count) for axis in zip(size, patch, strict=True))
    return rows[:, None, :, None] | columns[None, :, None, :]
