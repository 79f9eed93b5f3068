"""Labels for image quality without people: ranks by likeness to the pristine image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from defender.metrics.fidelity import multi_scale_similarity, vif
from defender.types import Images, Scores

BEST = 100.0
"""Label of a pristine image."""

_TOGETHER = 5


def likeness(pristine: Images, versions: Images) -> tuple[Scores, Scores]:
    """MS-SSIM and VIF of versions of one image to that image.

    Args:
        pristine: (1, c, h, w) in [0, 1].
        versions: (n, c, h, w) in [0, 1].

    Returns:
        Both float64 (n,); NaN where a side is 160 pixels or less.
    """
    ms_ssim, information = [], []
    # few at a time, because the maps of many fall out of the processor's cache
    for part in torch.split(versions, _TOGETHER):
        # what float32 loses is below 1e-6 here; VIF divides by the variances of flat regions
        ms_ssim.append(multi_scale_similarity(pristine, part).double())
        information.append(vif(pristine.double(), part.double()))
    return torch.cat(ms_ssim), torch.cat(information)


@dataclass(frozen=True)
class RankScale:
    """Mean rank of MS-SSIM and VIF in a fixed collection of images, from 0 to 100.

    ``label = 50 (F(MS-SSIM) + G(VIF))``, where F and G are the shares of the collection with no
    larger value. A pristine image has both values at their largest, so its label is 100.

    Args:
        ms_ssim: MS-SSIM of the images of the collection, sorted.
        vif: VIF of these images, sorted.
    """

    ms_ssim: Tensor
    vif: Tensor

    @classmethod
    def of(cls, ms_ssim: Tensor, vif: Tensor) -> RankScale:
        """The scale of a collection.

        Args:
            ms_ssim: (n,), of every image of the collection, pristine ones included.
            vif: (n,), of the same images.

        Raises:
            ValueError: for no images, values that are not finite, or two lengths.
        """
        if ms_ssim.ndim != 1 or ms_ssim.shape != vif.shape or not len(vif):
            raise ValueError(
                f"expected two rows of numbers (n,), got {tuple(ms_ssim.shape)} and "
                f"{tuple(vif.shape)}"
            )
        if not (torch.isfinite(ms_ssim).all() and torch.isfinite(vif).all()):
            raise ValueError("expected finite similarities, got others")
        return cls(ms_ssim.double().sort().values, vif.double().sort().values)

    def labels(self, ms_ssim: Tensor, vif: Tensor) -> Tensor:
        """Labels, float32 (n,) in [0, 100], of images with these values (n,)."""
        total = torch.zeros(len(vif), dtype=torch.float64)
        for known, values in ((self.ms_ssim, ms_ssim), (self.vif, vif)):
            no_larger = torch.searchsorted(known, values.double().contiguous(), right=True)
            total += no_larger / len(known)
        return (BEST / 2 * total).float()


def least_squares_line(raw: Tensor, target: Tensor) -> tuple[float, float]:
    """Slope k and offset b of the line ``k raw + b`` with the least squared distance to targets.

    Args:
        raw: (n,), not all equal.
        target: (n,).

    Raises:
        ValueError: for numbers that are not finite, or raw values that are all equal.
    """
    x, y = raw.double(), target.double()
    spread = x - x.mean()
    if not (torch.isfinite(x).all() and torch.isfinite(y).all() and spread.any()):
        raise ValueError("raw: expected finite numbers that are not all equal")
    slope = float((spread * y).sum() / spread.square().sum())
    return slope, float(y.mean() - slope * x.mean())
