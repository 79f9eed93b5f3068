"""Denoising by wavelets: details that are small are taken for noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional

from defender.purifiers.filters import Filter, clamp_through, in_blocks
from defender.types import Images, parameter
from defender.wavelets import dwt, idwt


@dataclass(frozen=True)
class WaveletShrinkage(Filter):
    """Threshold on the details of the orthonormal Haar transform, averaged over shifts.

    Without shifts, blocks of the transform show in the result. Shifted images go on beyond their
    upper and left border with its pixels repeated.

    Args:
        threshold: size at which a detail counts as noise, [0, 1] units; three standard deviations
            of the noise are usual with ``"hard"``, half of that with ``"soft"``.
        levels: levels of the transform whose details are shrunk.
        mode: ``"hard"`` sets details up to the threshold to zero and keeps the others; ``"soft"``
            brings the others closer to zero too, by the threshold.
        shifts: shifts on either axis, by 0, 1, ... pixels; ``2 ** levels`` are all there are.

    Source: D. Donoho, I. Johnstone, "Ideal Spatial Adaptation by Wavelet Shrinkage", 1994,
    DOI 10.1093/biomet/81.3.425; R. Coifman, D. Donoho, "Translation-Invariant De-Noising", 1995,
    DOI 10.1007/978-1-4612-2544-7_9 (shifts).
    Differs: a threshold as given, for all levels; the Haar wavelet.
    """

    paper: ClassVar[str] = (
        "D. Donoho, I. Johnstone, Ideal Spatial Adaptation by Wavelet Shrinkage, 1994, "
        "DOI 10.1093/biomet/81.3.425"
    )

    threshold: float = parameter(0.06, doc="size at which a detail counts as noise", low=0)
    levels: int = parameter(2, doc="levels of the transform", low=1, high=12)
    mode: str = parameter("hard", doc="what is done to large details", choices=("hard", "soft"))
    shifts: int = parameter(2, doc="shifts on either axis", low=1, high=64)

    def filtered(self, images: Images) -> Images:
        """Denoised images; differentiable."""
        return clamp_through(in_blocks(self._denoised, images))

    def _denoised(self, images: Images) -> Images:
        margin = self.shifts - 1
        framed = functional.pad(images, [margin, 0, margin, 0], mode="replicate")
        total = torch.zeros_like(images)
        for top in range(self.shifts):
            for left in range(self.shifts):
                shrunk = self._shrunk(framed[:, :, top:, left:])
                total += shrunk[:, :, margin - top :, margin - left :]
        return total / self.shifts**2

    def _shrunk(self, images: Images) -> Images:
        shrink = functional.hardshrink if self.mode == "hard" else functional.softshrink
        low, details = dwt(images, self.levels)
        kept = [shrink(detail, self.threshold) for detail in details]
        return idwt(low, kept, (images.shape[2], images.shape[3]))
