"""Smoothing that stops at edges: neighbours count by distance and by likeness."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from defender.pairwise import Region, weighted_mean
from defender.purifiers.filters import Filter, clamp_through, in_blocks
from defender.types import Images, check_parameters, parameter


@dataclass(frozen=True)
class Bilateral(Filter):
    """Mean of a window, each pixel weighed by how near and how alike it is.

    The weight of q in the mean of p is
    ``exp(-|p - q|^2 / (2 sigma^2)) exp(-||x_p - x_q||^2 / (2 sigma_colour^2))``, the norm being
    that of the whole colour. The window ends at the border of the image.

    Args:
        window: odd side of the window in pixels.
        sigma: standard deviation of the distance in pixels.
        sigma_colour: standard deviation of the difference of colours, [0, 1] units; black and
            white are 1 apart in grey images and 1.73 in colour.

    Raises:
        ValueError: an even window.

    Source: C. Tomasi, R. Manduchi, "Bilateral Filtering for Gray and Color Images", 1998,
    DOI 10.1109/ICCV.1998.710815.
    Differs: the difference of colours is that of the values, not taken in CIE-Lab.
    """

    paper: ClassVar[str] = (
        "C. Tomasi, R. Manduchi, Bilateral Filtering for Gray and Color Images, 1998, "
        "DOI 10.1109/ICCV.1998.710815"
    )

    window: int = parameter(5, doc="odd side of the window", low=1, unit="pixels")
    sigma: float = parameter(
        1.5, doc="standard deviation of the distance", low=0, open_low=True, unit="pixels"
    )
    sigma_colour: float = parameter(
        0.1, doc="standard deviation of the difference of colours", low=0, open_low=True
    )

    def __post_init__(self) -> None:
        check_parameters(self)
        if self.window % 2 == 0:
            raise ValueError(f"window: expected an odd number >= 1, got {self.window}")

    def filtered(self, images: Images) -> Images:
        """Smoothed images; differentiable."""
        return clamp_through(in_blocks(self._smoothed, images))

    def _smoothed(self, images: Images) -> Images:
        scale = 1 / (math.sqrt(2) * self.sigma_colour)
        scaled = images * scale

        def weigh(down: int, across: int, first: Region, second: Region) -> Tensor:
            far = (down**2 + across**2) / (2 * self.sigma**2)
            apart = (scaled[:, :, *first] - scaled[:, :, *second]).square().sum(1, keepdim=True)
            return torch.exp(-apart - far)

        return weighted_mean(images, self.window // 2, weigh)
