"""Defences with a proof: labels that no patch up to a stated size can change, by name."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor

from defender.certification.covering_masks import CoveringMasks
from defender.certification.masks import Size
from defender.certification.patch_cleanser import PatchCleanser
from defender.types import Images, Seeds


@runtime_checkable
class Certifier(Protocol):
    """Labels images such that a patch of a known size cannot change some of the labels."""

    version: ClassVar[int]
    paper: ClassVar[str]

    def patch_side(self, size: Size) -> int:
        """Side in pixels of the square patch that is certified against, for images (h, w)."""
        ...

    def __call__(self, images: Images, *, seeds: Seeds | None = None) -> Tensor:
        """Return the defended label int64 (n,) of images (n, c, h, w) in [0, 1]."""
        ...

    def certify(self, images: Images, labels: Tensor) -> Tensor:
        """Whether the defended label is ``labels`` whatever one patch holds, bool (n,)."""
        ...

    def judge(self, images: Images, labels: Tensor) -> dict[str, Tensor]:
        """Both at once, as columns (n,) by name.

        ``prediction`` int64, ``certified`` bool, ``one_mask_agreement`` in [0, 1], and
        ``evaluations`` int64, how often the model was asked about the image.
        """
        ...


CERTIFIERS: dict[str, type[Any]] = {
    "PatchCleanser": PatchCleanser,
    "CoveringMasks": CoveringMasks,
}

__all__ = ["CERTIFIERS", "Certifier", "CoveringMasks", "PatchCleanser"]
