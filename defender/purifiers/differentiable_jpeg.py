"""JPEG compression written out in torch, so that gradients pass through it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from defender.block_dct import BLOCK, block_dct, inverse_block_dct
from defender.purifiers.filters import Filter, clamp_through, in_blocks
from defender.types import Images, parameter

_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47),
    (18, 21, 26, 66),
    (24, 26, 56, 99),
    (47, 66, 99, 99),
)
_TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))


@dataclass(frozen=True)
class DifferentiableJPEG(Filter):
    """JPEG compression and back, in torch, with a gradient.

    YCbCr (JFIF), chroma halved where wanted, DCT of 8 x 8 blocks, division by the quantisation
    table that libjpeg makes of Annex K for the quality, rounding, and all of it back, chroma
    enlarged by libjpeg's triangular filter. Grey images are compressed as luma.

    Args:
        quality: quality factor of the tables, 1 to 100.
        rounding: how coefficients are rounded: ``"straight-through"`` rounds, and its gradient is
            that of the identity; ``"cubic"`` is ``round(c) + (c - round(c))^3`` with the gradient
            of that, which compresses less than a real encoder.
        subsampling: ``"4:2:0"`` halves chroma on both axes, ``"4:4:4"`` keeps it.

    Raises:
        ValueError: when called, images with neither 1 nor 3 channels.

    Source: C. Reich, B. Debnath, D. Patel, S. Chakradhar, "Differentiable JPEG: The Devil is in
    the Details", 2024, arXiv 2309.06978 (straight-through); R. Shin, D. Song, "JPEG-resistant
    Adversarial Images", 2017, NIPS workshop on machine learning and computer security (cubic).
    Differs: levels between the steps are rounded to whole ones too, as libjpeg does, with the
    gradient of the identity; gradients pass where values are clamped.
    """

    paper: ClassVar[str] = (
        "C. Reich, B. Debnath, D. Patel, S. Chakradhar, Differentiable JPEG: The Devil is in the "
        "Details, 2024, arXiv 2309.06978"
    )

    quality: int = parameter(50, doc="quality factor of the tables", low=1, high=100)
    rounding: str = parameter(
        "straight-through",
        doc="how coefficients are rounded",
        choices=("straight-through", "cubic"),
    )
    subsampling: str = parameter(
        "4:2:0", doc="resolution of the chroma", choices=("4:2:0", "4:4:4")
    )

    def filtered(self, images: Images) -> Images:
        """Compressed images; differentiable."""
        if images.shape[1] not in (1, 3):
            raise ValueError(f"expected images with 1 or 3 channels, got {images.shape[1]}")
        return clamp_through(in_blocks(self._compressed, images, alone=True))

    def _compressed(self, images: Images) -> Images:
        channels, height, width = images.shape[1:]
        if channels == 1:
            return (self._coded(_whole(255 * images) - 128, chroma=False) + 128) / 255
        planes = _whole(255 * _mixed(_whole(255 * images) / 255, _TO_YCC))
        luma = self._coded(planes[:, :1] - 128, chroma=False) + 128
        chroma = planes[:, 1:]
        if self.subsampling == "4:2:0":
            even = functional.pad(chroma, [0, width % 2, 0, height % 2], mode="replicate")
            coded = self._coded(_whole(functional.avg_pool2d(even, 2), tie=-0.1), chroma=True)
            larger = functional.interpolate(coded, scale_factor=2, mode="bilinear")
            chroma = _whole(larger, tie=0.01)[:, :, :height, :width]
        else:
            chroma = self._coded(chroma, chroma=True)
        return _mixed(torch.cat([luma, chroma], dim=1) / 255, _TO_RGB)

    def _coded(self, planes: Tensor, *, chroma: bool) -> Tensor:
        """Planes (n, c, h, w) around 0 in levels, quantised; the border is repeated outwards."""
        height, width = planes.shape[2:]
        margin = [0, -width % BLOCK, 0, -height % BLOCK]
        table = quantisation_table(self.quality, chroma).to(planes).view(BLOCK, 1, BLOCK)
        scaled = block_dct(functional.pad(planes, margin, mode="replicate")) / table
        rounded = scaled.round()
        if self.rounding == "cubic":
            # the gradient of round itself is zero, so this has that of the cube
            rounded = rounded + (scaled - rounded) ** 3
        else:
            rounded = scaled + (rounded - scaled).detach()
        decoded = inverse_block_dct(rounded * table)[:, :, :height, :width]
        return decoded + (decoded.round().clamp(-128, 127) - decoded).detach()


def _whole(levels: Tensor, tie: float = 0.0) -> Tensor:
    """Levels rounded to whole ones; gradients pass unchanged.

    Where libjpeg's sums of whole levels end in a half, they go up in every other column and down
    in the others: ``tie`` is added in the even ones and taken off in the odd ones before.
    """
    shifted = levels.detach()
    if tie:
        signs = torch.ones(levels.shape[-1], device=levels.device, dtype=levels.dtype)
        signs[1::2] = -1
        shifted = shifted + tie * signs
    return levels + (shifted.round() - levels.detach())


def _mixed(images: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    """Each pixel's three values multiplied by a matrix (3, 3)."""
    weights = torch.tensor(matrix, dtype=images.dtype, device=images.device)
    return functional.conv2d(images, weights.view(3, 3, 1, 1))


@lru_cache(maxsize=256)
def quantisation_table(quality: int, chroma: bool) -> Tensor:
    """Divisors of the coefficients as libjpeg makes them of Annex K: float64 (8, 8).

    Args:
        quality: 1 to 100.
        chroma: the table for chroma, not that for luma.
    """
    with torch.inference_mode(False):
        if chroma:
            table = torch.full((BLOCK, BLOCK), 99)
            table[:4, :4] = torch.tensor(_CHROMA)
        else:
            table = torch.tensor(_LUMA)
        percent = 5000 // quality if quality < 50 else 200 - 2 * quality
        return ((table * percent + 50) // 100).clamp(1, 255).double()
