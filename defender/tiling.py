"""Small patterns repeated over large images."""

from __future__ import annotations

from torch import Tensor


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
