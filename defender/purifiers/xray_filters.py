"""The plain filters that an X-ray project set against scaling attacks, as written and corrected.

Its fourth filter is :class:`~defender.purifiers.filters.Median` with ``padding="symmetric"``. The
windows of its median and minimum are called 4 x 4 there; their arithmetic makes them 3 x 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from defender.norms import to_uint8
from defender.purifiers.filters import Filter, repr_without
from defender.smoothing import minimum_filter, symmetric_pad
from defender.types import Images, check_parameters, parameter

_PROJECT = "eriksonJAguiar, scc5830_final_project, GitHub repository"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Minimum(Filter):
    """Least value of the square window around each pixel, channel by channel.

    Args:
        window: odd side of the window in pixels.

    Raises:
        ValueError: an even window.

    Source: eriksonJAguiar, scc5830_final_project (repository); the filter that its method switch
    always ends in.
    Differs: none; the window is cropped at the border, which is what its symmetric border gives.
    """

    paper: ClassVar[str] = _PROJECT

    window: int = parameter(3, doc="odd side of the window", low=1, unit="pixels")

    def __post_init__(self) -> None:
        check_parameters(self)
        if self.window % 2 == 0:
            raise ValueError(f"window: expected an odd number >= 1, got {self.window}")

    def filtered(self, images: Images) -> Images:
        """Minimum filter; gradients pass to the pixel that is the minimum."""
        return minimum_filter(images, self.window)


@dataclass(frozen=True)
class PeakRemoval(Filter):
    """Replaces pixels whose level is a peak of the histogram by a median of their surroundings.

    A level is a peak if it is more frequent than both its neighbours, channel by channel.

    * ``"original"``: the histogram has 254 bins, for the levels 0 to 253, and its ends are no
      peaks. The median is that of the 4 x 4 block whose first pixel is the replaced one, cropped
      at the border; of an even number of values the two middle ones are averaged and cut down to
      a whole level. The project replaces in place; as it goes down the image, a block never holds
      a pixel that was replaced before, so that it makes no difference.
    * ``"corrected"``: all 256 levels, the ends having one neighbour. The lower median is that of
      the pixels of the 3 x 3 window around the replaced one that are no peaks themselves, cropped
      at the border; a pixel without any stays.

    Args:
        variant: ``"original"`` or ``"corrected"``.

    Source: eriksonJAguiar, scc5830_final_project (repository).
    Differs: ``"original"`` in colour images, which the project does not have; ``"corrected"`` as
    described.
    """

    paper: ClassVar[str] = _PROJECT

    variant: str = parameter(
        "corrected", doc="the project's arithmetic or ours", choices=("original", "corrected")
    )

    def filtered(self, images: Images) -> Images:
        """Images without the pixels at peaks, without a gradient."""
        n, c, height, width = images.shape
        levels = to_uint8(images.detach()).long().flatten(0, 1)
        original = self.variant == "original"
        peaks = _peak_levels(levels.flatten(1), 254 if original else 256, ends=not original)
        chosen = peaks.gather(1, levels.flatten(1)).view_as(levels)
        known = levels.float()
        if not original:
            known = known.masked_fill(chosen, torch.nan)
        before, after = (0, 3) if original else (1, 1)
        known = functional.pad(known, [before, after, before, after], value=torch.nan)
        window = torch.arange(before + after + 1, device=images.device)
        spread = (window.unsqueeze(1) * known.shape[2] + window).flatten()
        plane, row, column = chosen.nonzero(as_tuple=True)
        corners = (plane * known.shape[1] + row) * known.shape[2] + column
        medians = [
            _middle(known.flatten()[part.unsqueeze(1) + spread], averaged=original)
            for part in torch.split(corners, _BLOCK // len(spread))
        ]
        made = images.detach().clone().flatten(0, 1)
        taken = torch.cat(medians).to(made) / 255
        made[chosen] = torch.where(taken.isnan(), made[chosen], taken)
        return made.view(n, c, height, width)


@dataclass(frozen=True, repr=False)
class Unsharp(Filter):
    """Unsharp masking: ``clip(x + a (x - blur(x)))`` with a square Gaussian, border symmetric.

    * ``"original"``: the Gaussian is multiplied by ``1 / 2 * pi * sigma^2`` as a program reads it,
      which is pi / 2 for sigma 1. Its values then sum to 9.69, so that nearly everything turns
      black.
    * ``"corrected"``: the Gaussian sums to 1.

    Args:
        variant: ``"original"`` or ``"corrected"``.
        amount: a, how much of the difference from the blurred image is added.
        window: odd side of the Gaussian in pixels.
        sigma: standard deviation of the Gaussian in pixels.

    Raises:
        ValueError: an even window.

    Source: eriksonJAguiar, scc5830_final_project (repository).
    Differs: ``"original"`` in none that we know of at the other defaults, which are the
    project's; ``"corrected"`` in the sum of the Gaussian.
    """

    paper: ClassVar[str] = _PROJECT

    variant: str = parameter(
        "corrected", doc="the project's arithmetic or ours", choices=("original", "corrected")
    )
    amount: float = parameter(1.0, doc="how much of the difference from the blur is added", low=0)
    window: int = parameter(5, doc="odd side of the Gaussian", low=1, unit="pixels")
    sigma: float = parameter(
        1.0, doc="standard deviation of the Gaussian", low=0, open_low=True, unit="pixels"
    )

    def __post_init__(self) -> None:
        check_parameters(self)
        if self.window % 2 == 0:
            raise ValueError(f"window: expected an odd number >= 1, got {self.window}")

    def __repr__(self) -> str:
        return repr_without(self, later=("amount", "window", "sigma"))

    def filtered(self, images: Images) -> Images:
        """Sharpened images; differentiable."""
        reach = self.window // 2
        offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
        line = torch.exp(-(offsets**2) / (2 * self.sigma**2))
        kernel = torch.outer(line, line)
        original = self.variant == "original"
        factor = math.pi / 2 * self.sigma**2 if original else 1 / kernel.sum()
        planes = symmetric_pad(images, reach).flatten(0, 1).unsqueeze(1)
        blurred = functional.conv2d(planes, (kernel * factor).to(images)[None, None])
        sharpened = (1 + self.amount) * images - self.amount * blurred.view_as(images)
        return sharpened.clamp(0.0, 1.0)


def _peak_levels(levels: Tensor, bins: int, *, ends: bool) -> Tensor:
    """Levels more frequent than both neighbours: int64 (planes, pixels) to bool (planes, 256)."""
    planes = torch.arange(len(levels), device=levels.device).unsqueeze(1)
    counts = (planes * 256 + levels).flatten().bincount(minlength=256 * len(levels))
    counts = counts.view(-1, 256)[:, :bins]
    # beyond an end there is nothing, or more than anything
    outside = -1 if ends else levels.shape[1] + 1
    framed = functional.pad(counts, [1, 1], value=outside)
    peaks = (counts > framed[:, :-2]) & (counts > framed[:, 2:])
    return functional.pad(peaks, [0, 256 - bins], value=False)


def _middle(values: Tensor, *, averaged: bool) -> Tensor:
    """Median of the whole numbers along the last axis, NaN where there is none.

    NaN does not count. Of an even number of values the lower one of the middle, or the mean of
    both cut down to a whole number.
    """
    ranked = torch.from_numpy(np.sort(values.cpu().numpy(), axis=-1))
    last = (~ranked.isnan()).sum(-1, keepdim=True) - 1
    low = ranked.gather(-1, last.div(2, rounding_mode="floor").clamp_min(0))
    if averaged:
        low = ((low + ranked.gather(-1, (last + 1) // 2)) / 2).floor()
    return low.squeeze(-1).to(values.device)
