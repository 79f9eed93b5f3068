"""The iterative window mean filter, then a diffusion model that restores what it blurred."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from defender.diffusion.prior import Prior
from defender.purifiers.ddrm import DDRM
from defender.purifiers.diffusing import RANGES, SIZES
from defender.purifiers.iwmf import IWMF
from defender.purifiers.randomised import Randomised
from defender.types import Images, Seeds, parameter


@dataclass(frozen=True)
class IWMFDiff(Randomised):
    """:class:`IWMF` at the image's size, then :class:`DDRM` at the prior's, and back.

    Args:
        prior: the diffusion model.
        lambda_0: windows a pixel; 0: no filter.
        window: side of the windows in pixels (the paper's s).
        sigma: standard deviation of the noise that DDRM takes the image to have, [0, 1] units; 0:
            no diffusion.
        range: what the network sees: ``"unit_compat"`` or ``"symmetric"``, see :class:`DDRM`.
        steps: steps of the whole sampler, of which those with influence are made.
        size: at which the network sees images: that of its ``"prior"``, or the ``"image"``'s own.

    Raises:
        ValueError: as :class:`DDRM`.

    Source: H. Wang, R. Sun, C. Chen, M. Xue, L.-K. Soon, S. Wang, Z. Jin, "Iterative Window Mean
    Filter: Thwarting Diffusion-based Adversarial Purification", 2024, arXiv 2408.10673.
    Differs: as :class:`IWMF` and :class:`DDRM`; the resize is skipped where sizes are equal.
    """

    version: ClassVar[int] = IWMF.version + DDRM.version - 1
    paper: ClassVar[str] = IWMF.paper

    prior: Prior
    lambda_0: float = parameter(0.25, doc="windows a pixel; 0: no filter", low=0)
    window: int = parameter(3, doc="side of the windows", low=1, unit="pixels")
    sigma: float = parameter(
        0.15, doc="noise that the filtered image is taken to have; 0: no diffusion", low=0, high=1
    )
    range: str = parameter(
        "unit_compat", doc="what the network sees: [0, 1] as published, or [-1, 1]", choices=RANGES
    )
    steps: int = parameter(20, doc="steps of the whole sampler", low=1)
    size: str = parameter("prior", doc="size at which the network sees images", choices=SIZES)

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self._diffusion

    @property
    def _diffusion(self) -> DDRM | None:
        if not self.sigma:
            return None
        return DDRM(self.prior, self.sigma, self.range, self.steps, size=self.size)

    def drawn(self, images: Images, seeds: Seeds) -> Images:
        """Purified images; differentiable where the images ask for a gradient."""
        return self._diffused(self._filtered(images, seeds), seeds)

    def parts(
        self, images: Images, *, seeds: Seeds, reference: Images | None = None
    ) -> dict[str, Tensor]:
        """The images after the filter under ``"filtered"``, and the purified ones."""
        filtered = self._filtered(images, seeds)
        return {"filtered": filtered, "purified": self._diffused(filtered, seeds)}

    def _filtered(self, images: Images, seeds: Seeds) -> Images:
        if not self.lambda_0:
            return images
        return IWMF(self.lambda_0, self.window)(images, seeds=seeds)

    def _diffused(self, images: Images, seeds: Seeds) -> Images:
        diffusion = self._diffusion
        return images if diffusion is None else diffusion(images, seeds=seeds)
