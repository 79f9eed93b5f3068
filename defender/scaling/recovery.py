"""The matrices of a resize from what it does to single pixels, whatever the library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from defender.scaling.scaler import Scaler, Size
from defender.types import Images

Resize = Callable[[Images, Size], Images]


def recover(scaler: Scaler, resize: Resize | None = None) -> tuple[Tensor, Tensor]:
    """Matrices L and R of a resize, by resizing float images that are one pixel in a row or column.

    The identity of the source height is scaled along its rows, that of the source width along its
    columns, and every row of L and column of R is made to sum to 1. What a resize does along one
    axis must not depend on the other; OpenCV's area where it shrinks one and enlarges the other is
    the one exception among those of :class:`Scaler`.

    Args:
        scaler: the sizes, and the library that is run unless ``resize`` is given.
        resize: another resize: maps float images (1, 1, h, w) and a height and width to images of
            that size, linearly and one axis at a time.

    Returns:
        L (target height, source height) and R (source width, target width), float64, as exact as
        the resize's own arithmetic, single precision as a rule.

    Raises:
        ValueError: a resize whose result has another size, or that is no weighted mean.

    Source: E. Quiring, D. Klein, D. Arp, M. Johns, K. Rieck, "Adversarial Preprocessing:
    Understanding and Preventing Image-Scaling Attacks in Machine Learning", 2020, USENIX Security.
    Differs: float images, where 8-bit ones lose weights below 1/255 and all negative ones.
    """
    (height, width), (rows, columns) = scaler.source, scaler.target
    left = _scaled(scaler, resize, height, (rows, height))
    right = _scaled(scaler, resize, width, (width, columns))
    return left / _sums(left, 1), right / _sums(right, 0)


def _scaled(scaler: Scaler, resize: Resize | None, side: int, target: Size) -> Tensor:
    # 255, not 1: what a library rounds or cuts off for images in 0..255 shows
    image = 255 * torch.eye(side).view(1, 1, side, side)
    if resize is None:
        made = replace(scaler, source=(side, side), target=target)(image)
    else:
        made = resize(image, target)
    if tuple(made.shape) != (1, 1, *target):
        raise ValueError(f"resize: expected images {(1, 1, *target)}, got {tuple(made.shape)}")
    return made[0, 0].double() / 255


def _sums(matrix: Tensor, axis: int) -> Tensor:
    sums = matrix.sum(axis, keepdim=True)
    if not bool((sums - 1).abs().max() < 1e-2):
        raise ValueError("resize: expected weighted means, got weights that do not sum to 1")
    return sums
