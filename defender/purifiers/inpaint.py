"""Removal of a patch: find it, hide it, fill the hole from its surroundings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from defender.detectors.patch_energy import PatchEnergy
from defender.purifiers.inpainting import dilated, fill_diffusion, fill_mean, fill_telea
from defender.types import Detector, Images, Knowledge, Seeds, check_parameters, parameter


@dataclass(frozen=True)
class MaskInpaint:
    """Fills where a detector sees a patch; images in which it sees none stay as they are.

    Args:
        fill: ``"mean"``: the mean colour around the mask; ``"diffusion"``: the harmonic function of
            the surroundings; ``"telea"``: fast marching, by OpenCV.
        dilation: pixels that the mask is grown by, which takes what a resize or a JPEG file has
            spread out of the patch.
        threshold: score above which ``PatchEnergy`` counts as having found a patch.
        radius: neighbourhood of ``"telea"``, in pixels.
        detector: says where, by its map; None for ``PatchEnergy`` with the threshold.

    Raises:
        ValueError: when called, a detector that cannot say where.
        ModuleNotFoundError: ``"telea"`` without OpenCV.

    Source: after M. Naseer, S. Khan, F. Porikli, "Local Gradients Smoothing: Defense Against
    Localized Adversarial Attacks", 2019, arXiv 1807.01216, for the gradient energy; the fillings
    are those of :mod:`defender.purifiers.inpainting`.
    Differs: the region is replaced, not smoothed.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "after M. Naseer, S. Khan, F. Porikli, Local Gradients Smoothing: Defense Against "
        "Localized Adversarial Attacks, 2019, arXiv 1807.01216; A. Telea, 2004, "
        "DOI 10.1080/10867651.2004.10487596"
    )
    keeps_size: ClassVar[bool] = True

    fill: str = parameter(
        "diffusion", doc="what the hole is filled with", choices=("mean", "diffusion", "telea")
    )
    dilation: int = parameter(1, doc="pixels that the mask is grown by", low=0, unit="pixels")
    threshold: float = parameter(1.0, doc="score above which PatchEnergy has found a patch")
    radius: float = parameter(
        3.0, doc="neighbourhood of telea", low=0, open_low=True, unit="pixels"
    )
    detector: Any = None

    def __post_init__(self) -> None:
        check_parameters(self)
        if self.detector is not None and (
            isinstance(self.detector, type) or not isinstance(self.detector, Detector)
        ):
            raise TypeError(f"detector: expected a detector, got {self.detector!r}")

    @property
    def knowledge(self) -> Knowledge:
        """That of the detector: ``"blind"`` by default."""
        return self._detector.knowledge

    @property
    def _detector(self) -> Detector:
        return self.detector or PatchEnergy(threshold=self.threshold)

    def __call__(self, images: Images, *, seeds: Seeds, reference: Images | None = None) -> Images:
        """Images without their patches.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            seeds: int64 (n,), for detectors that draw.
            reference: clean images, for detectors that are told them.

        Returns:
            (n, c, h, w) in [0, 1], equal to the images outside the masks.
        """
        return self.parts(images, seeds=seeds, reference=reference)["purified"]

    @torch.no_grad()
    def parts(
        self, images: Images, *, seeds: Seeds, reference: Images | None = None
    ) -> dict[str, Tensor]:
        """What was hidden, what was put there, and the result; arguments as for the call.

        Returns:
            ``mask`` bool, ``replacement``, black elsewhere, and ``purified``, floats in [0, 1];
            all (n, c, h, w).
        """
        images = images.detach()
        where = self._detector.map(images, seeds=seeds, reference=reference)
        if where is None:
            raise ValueError(f"detector: expected one that says where, got {self.detector!r}")
        mask = dilated(where.any(dim=1, keepdim=True), self.dilation)
        purified = torch.where(mask, self._filled(images, mask).clamp(0.0, 1.0), images)
        return {
            "mask": mask.expand(images.shape),
            "replacement": purified.masked_fill(~mask, 0.0),
            "purified": purified,
        }

    def _filled(self, images: Images, mask: Tensor) -> Images:
        if not bool(mask.any()):
            return images
        if self.fill == "mean":
            return fill_mean(images, mask)
        if self.fill == "diffusion":
            return fill_diffusion(images, mask)
        return fill_telea(images, mask, self.radius)
