"""The orthonormal discrete cosine transform of square blocks, as JPEG and shrinkage use it."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

BLOCK = 8
"""Side of a block in pixels."""


@lru_cache(maxsize=8)
def dct_matrix(size: int = BLOCK) -> Tensor:
    """The orthonormal DCT-II: float64 (size, size), a row a frequency, the constant one first.

    Source: N. Ahmed, T. Natarajan, K. R. Rao, "Discrete Cosine Transform", 1974,
    DOI 10.1109/T-C.1974.223784.
    Differs: none.
    """
    with torch.inference_mode(False):
        frequency = torch.arange(size, dtype=torch.float64).unsqueeze(1)
        place = torch.arange(size, dtype=torch.float64)
        matrix = torch.cos(math.pi * frequency * (2 * place + 1) / (2 * size))
        matrix *= math.sqrt(2 / size)
        matrix[0] /= math.sqrt(2)
        return matrix


def block_dct(planes: Tensor) -> Tensor:
    """Coefficients of the 8 x 8 blocks of planes.

    Args:
        planes: (..., h, w), h and w multiples of 8.

    Returns:
        (..., h / 8, 8, w / 8, 8): block row, vertical frequency, block column, horizontal
        frequency.
    """
    *rest, height, width = planes.shape
    blocks = planes.reshape(*rest, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    return _on_both_axes(blocks, dct_matrix())


def inverse_block_dct(coefficients: Tensor) -> Tensor:
    """Planes (..., h, w) of coefficients as :func:`block_dct` gives them."""
    return _on_both_axes(coefficients, dct_matrix().T).flatten(-2).flatten(-3, -2)


def _on_both_axes(blocks: Tensor, matrix: Tensor) -> Tensor:
    """A matrix (8, 8) applied to rows and columns of blocks (..., block rows, 8, columns, 8)."""
    matrix = matrix.to(blocks)
    across = blocks @ matrix.T
    return (matrix @ across.flatten(-2)).view_as(across)
