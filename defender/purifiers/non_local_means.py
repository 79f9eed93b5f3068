"""Denoising by what looks alike elsewhere: pixels averaged by the likeness of their patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from defender.pairwise import Region, weighted_mean
from defender.purifiers.filters import Filter, clamp_through, in_blocks
from defender.shifted_sums import correlate
from defender.smoothing import symmetric_pad
from defender.types import Images, check_parameters, parameter


@dataclass(frozen=True)
class NonLocalMeans(Filter):
    """Mean of a window, each pixel weighed by how alike its surroundings are.

    The weight of q in the mean of p is ``exp(-max(d^2 - 2 sigma^2, 0) / h^2)``, d^2 being the mean
    squared difference of the patches around p and q, over pixels and channels. Patches see the
    image mirrored beyond its border, the window ends there.

    Args:
        h: how unlike patches may be, [0, 1] units; larger smooths more.
        patch: odd side of the patches in pixels.
        window: odd side of the window in pixels, in which alike patches are looked for.
        sigma: standard deviation of the noise in the images, [0, 1] units; 0 where unknown.

    Raises:
        ValueError: an even patch or window.

    Source: A. Buades, B. Coll, J.-M. Morel, "Non-Local Means Denoising", 2011,
    DOI 10.5201/ipol.2011.bcm_nlm (pixelwise); patches compared for all pixels at once, step by
    step: J. Darbon, A. Cunha, T. Chan, S. Osher, G. Jensen, "Fast nonlocal filtering applied to
    electron cryomicroscopy", 2008, DOI 10.1109/ISBI.2008.4541250.
    Differs: sums of shifted images in place of integral images, which lose digits in float32.
    """

    paper: ClassVar[str] = (
        "A. Buades, B. Coll, J.-M. Morel, Non-Local Means Denoising, 2011, "
        "DOI 10.5201/ipol.2011.bcm_nlm"
    )

    h: float = parameter(0.04, doc="how unlike patches may be", low=0, open_low=True)
    patch: int = parameter(3, doc="odd side of the patches", low=1, unit="pixels")
    window: int = parameter(9, doc="odd side of the window", low=1, unit="pixels")
    sigma: float = parameter(0.0, doc="standard deviation of the noise", low=0)

    def __post_init__(self) -> None:
        check_parameters(self)
        for name in ("patch", "window"):
            if getattr(self, name) % 2 == 0:
                raise ValueError(f"{name}: expected an odd number >= 1, got {getattr(self, name)}")

    def filtered(self, images: Images) -> Images:
        """Denoised images; differentiable."""
        return clamp_through(in_blocks(self._denoised, images))

    def _denoised(self, images: Images) -> Images:
        margin = self.patch // 2
        around = symmetric_pad(images, margin)
        mean = [1 / self.patch] * self.patch
        allowed = 2 * self.sigma**2

        def wider(part: slice) -> slice:
            return slice(part.start, part.stop + 2 * margin)

        def weigh(down: int, across: int, first: Region, second: Region) -> Tensor:
            here = around[:, :, wider(first[0]), wider(first[1])]
            there = around[:, :, wider(second[0]), wider(second[1])]
            unlike = correlate((here - there).square().mean(1, keepdim=True), mean)
            if allowed:
                unlike = (unlike - allowed).clamp_min(0.0)
            return torch.exp(unlike * (-1 / self.h**2))

        return weighted_mean(images, self.window // 2, weigh)
