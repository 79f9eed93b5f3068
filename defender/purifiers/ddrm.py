"""Purification by a diffusion model that takes the image for a noisy one: DDRM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from defender.diffusion.ddrm import ddrm, network_steps
from defender.diffusion.prior import Prior
from defender.purifiers.diffusing import RANGES, SIZES, Diffusing
from defender.types import Images, Seeds, parameter


@dataclass(frozen=True)
class DDRM(Diffusing):
    """Takes an image for a noisy one and samples what it could have been without the noise.

    The sampler and its equations are :func:`defender.diffusion.ddrm.ddrm`.

    Args:
        prior: the diffusion model.
        sigma: standard deviation of the noise that the image is taken to have, [0, 1] units.
        range: ``"symmetric"`` shows the network images in [-1, 1], which it was trained on, and
            doubles sigma; ``"unit_compat"`` shows it images in [0, 1] with sigma as it is, as the
            published figures of IWMF-Diff have it.
        steps: steps of the whole sampler.
        pruned: leave out the network calls that cannot influence the result; it is the same to
            the bit.
        eta_a: share of fresh noise in states less noisy than sigma.
        eta_b: weight of the image in states that are noisier; below 1 every call has influence.
        size: at which the network sees images: that of its ``"prior"``, or the ``"image"``'s own.

    Raises:
        ValueError: a prior in training mode, a sigma above the noise of every step, more steps than
            the prior has; when called, images of another number of channels.

    Source: B. Kawar, M. Elad, S. Ermon, J. Song, "Denoising Diffusion Restoration Models", 2022,
    arXiv 2201.11793; as a purifier: H. Wang et al., "Iterative Window Mean Filter: Thwarting
    Diffusion-based Adversarial Purification", 2024, arXiv 2408.10673.
    Differs: each image has noise of its own; calls without influence are left out.
    """

    paper: ClassVar[str] = (
        "B. Kawar, M. Elad, S. Ermon, J. Song, Denoising Diffusion Restoration Models, 2022, "
        "arXiv 2201.11793"
    )

    prior: Prior
    sigma: float = parameter(
        0.15, doc="noise that the image is taken to have", low=0, high=1, open_low=True
    )
    range: str = parameter(
        "unit_compat", doc="what the network sees: [0, 1] as published, or [-1, 1]", choices=RANGES
    )
    steps: int = parameter(20, doc="steps of the whole sampler", low=1)
    pruned: bool = parameter(True, doc="leave out network calls without influence")
    eta_a: float = parameter(0.85, doc="share of fresh noise in late states", low=0, high=1)
    eta_b: float = parameter(1.0, doc="weight of the image in early states", low=0, high=1)
    size: str = parameter("prior", doc="size at which the network sees images", choices=SIZES)

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.network_steps

    @property
    def network_steps(self) -> list[int]:
        """The steps at which the network is asked, from the noisiest to step 0."""
        return network_steps(
            self.prior.schedule, self._sigma, self.steps, self.eta_b, pruned=self.pruned
        )

    @property
    def _sigma(self) -> float:
        """The noise in the units of the network."""
        return 2 * self.sigma if self.range == "symmetric" else self.sigma

    def diffused(self, images: Images, seeds: Seeds) -> Images:
        """A sample for each image."""
        symmetric = self.range == "symmetric"
        made = ddrm(
            self.prior,
            2 * images - 1 if symmetric else images,
            seeds,
            self._sigma,
            steps=self.steps,
            eta_a=self.eta_a,
            eta_b=self.eta_b,
            pruned=self.pruned,
        )
        return (made + 1) / 2 if symmetric else made
