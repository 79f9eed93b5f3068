"""The orthonormal Haar wavelet transform of images, and its inverse."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from defender.types import Images


def halved(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the sub-bands of an image: half of its own, rounded up."""
    return -(-size[0] // 2), -(-size[1] // 2)


def dwt(images: Images, levels: int = 1) -> tuple[Tensor, list[Tensor]]:
    """Split images into a low-frequency sub-band and the details of each level.

    A level splits every block ``a b / c d`` of 2 x 2 pixels into ``low = (a + b + c + d) / 2`` and
    the details ``(a - b + c - d) / 2`` (across columns), ``(a + b - c - d) / 2`` (across rows) and
    ``(a - b - c + d) / 2`` (diagonal); the next level splits ``low``. The low sub-band is thus
    ``2 ** levels`` times the mean of its block. For sides divisible by ``2 ** levels`` the
    transform is orthonormal: it keeps lengths and angles, and is its own transpose's inverse. An
    odd side is completed by its last row or column once more, whose detail across it is then 0.

    Args:
        images: (n, c, h, w), of any size and range; gradients pass.
        levels: number of splits, >= 0.

    Returns:
        The low sub-band (n, c, h', w'), and one tensor (n, c, 3, h', w') of details a level, the
        finest first. Each level halves the sides, rounded up.

    Raises:
        ValueError: fewer than 0 levels, or images of another shape.

    Source: S. Mallat, "A Theory for Multiresolution Signal Decomposition: The Wavelet
    Representation", 1989, DOI 10.1109/34.192463, for the wavelet of A. Haar, 1910.
    Differs: none.
    """
    if levels < 0:
        raise ValueError(f"levels: expected >= 0, got {levels}")
    if images.ndim != 4:
        raise ValueError(f"images: expected (n, c, h, w), got {tuple(images.shape)}")
    low, details = images, []
    for _ in range(levels):
        height, width = low.shape[2:]
        if height % 2 or width % 2:
            low = functional.pad(low, (0, width % 2, 0, height % 2), mode="replicate")
        upper, lower = low[:, :, 0::2], low[:, :, 1::2]
        rows, across_rows = (upper + lower) / 2, (upper - lower) / 2
        details.append(
            torch.stack(
                [
                    rows[..., 0::2] - rows[..., 1::2],
                    across_rows[..., 0::2] + across_rows[..., 1::2],
                    across_rows[..., 0::2] - across_rows[..., 1::2],
                ],
                dim=2,
            )
        )
        low = rows[..., 0::2] + rows[..., 1::2]
    return low, details


def idwt(low: Tensor, details: Sequence[Tensor], size: tuple[int, int]) -> Images:
    """Put sub-bands together again: the inverse of :func:`dwt`.

    Args:
        low: (n, c, h', w'), the low-frequency sub-band of the last level.
        details: (n, c, 3, h', w') a level, the finest first, as :func:`dwt` gives them.
        size: height and width of the images.

    Returns:
        (n, c, h, w).

    Raises:
        ValueError: sub-bands that do not have the shapes that images of this size give.
    """
    sizes = [(size[0], size[1])]
    for _ in details:
        sizes.append(halved(sizes[-1]))
    if low.ndim != 4 or tuple(low.shape[2:]) != sizes[-1]:
        raise ValueError(f"low: expected (n, c, *{sizes[-1]}), got {tuple(low.shape)}")
    images = low
    for level in reversed(range(len(details))):
        expected = (*low.shape[:2], 3, *sizes[level + 1])
        if tuple(details[level].shape) != expected:
            raise ValueError(
                f"details[{level}]: expected {expected}, got {tuple(details[level].shape)}"
            )
        height, width = sizes[level]
        images = _join(images, details[level])[:, :, :height, :width]
    return images


def _join(low: Tensor, details: Tensor) -> Tensor:
    """One level back: sub-bands (n, c, h, w) to images (n, c, 2 h, 2 w)."""
    columns, rows, diagonal = details.unbind(dim=2)
    plus, minus = low + rows, low - rows
    plus_columns, minus_columns = columns + diagonal, columns - diagonal
    upper = torch.stack([plus + plus_columns, plus - plus_columns], dim=-1).flatten(-2)
    lower = torch.stack([minus + minus_columns, minus - minus_columns], dim=-1).flatten(-2)
    return torch.stack([upper, lower], dim=-2).flatten(-3, -2) / 2
