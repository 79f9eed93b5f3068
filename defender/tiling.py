"""Small patterns repeated over large images, and the gradient's way back."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def tiled(pattern: Tensor, size: tuple[int, int]) -> Tensor:
    """Repeat a pattern from the upper left corner until it covers a size, cut to it.

    Args:
        pattern: (n, c, height, width).
        size: height and width to cover, smaller or larger than those of the pattern.

    Returns:
        (n, c, *size); gradients pass.
    """
    height, width = size
    rows, columns = -(-height // pattern.shape[2]), -(-width // pattern.shape[3])
    return pattern.repeat(1, 1, rows, columns)[:, :, :height, :width]


def folded(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Add up what lies on the same place of a tile: the transpose of :func:`tiled`.

    Args:
        images: (n, c, h, w).
        size: height and width of the tile.

    Returns:
        (n, c, *size); 0 where no image reaches.
    """
    height, width = size
    rows, columns = -(-images.shape[2] // height), -(-images.shape[3] // width)
    margin = (0, columns * width - images.shape[3], 0, rows * height - images.shape[2])
    padded = functional.pad(images, margin).contiguous()
    return padded.view(*images.shape[:2], rows, height, columns, width).sum(dim=(2, 4))
