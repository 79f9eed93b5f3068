"""Purification by noise and a single look of a diffusion model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from defender.diffusion.prior import Prior
from defender.noise import derive_seeds, normal
from defender.purifiers.diffusing import SIZES, Diffusing
from defender.types import Images, Seeds, parameter


@dataclass(frozen=True)
class OneStepDenoise(Diffusing):
    """Adds normal noise and takes it out in one network call.

    With t the step whose noise level is nearest to ``2 sigma`` (images in [-1, 1] have twice the
    range): ``x_t = sqrt(abar_t) (2 x - 1 + 2 sigma z)``, and the result is the mean of all images
    that could have become ``x_t``.

    Args:
        prior: the diffusion model.
        sigma: standard deviation of the noise, [0, 1] units.
        size: at which the network sees images: that of its ``"prior"``, or the ``"image"``'s own.

    Raises:
        ValueError: a prior in training mode; when called, images of another number of channels.

    Source: N. Carlini, F. Tramèr, K. Dvijotham, L. Rice, M. Sun, J. Z. Kolter, "(Certified!!)
    Adversarial Robustness for Free!", 2023, arXiv 2206.10550, one draw.
    Differs: one draw, no vote.
    """

    paper: ClassVar[str] = (
        "N. Carlini, F. Tramèr, K. Dvijotham, L. Rice, M. Sun, J. Z. Kolter, (Certified!!) "
        "Adversarial Robustness for Free!, 2023, arXiv 2206.10550"
    )

    prior: Prior
    sigma: float = parameter(
        0.25, doc="standard deviation of the noise", low=0, high=1, open_low=True
    )
    size: str = parameter("prior", doc="size at which the network sees images", choices=SIZES)

    def diffused(self, images: Images, seeds: Seeds) -> Images:
        """Noise in, noise out."""
        schedule = self.prior.schedule
        step = schedule.nearest(2 * self.sigma)
        noise = normal(derive_seeds(seeds, "one step"), tuple(images.shape[1:])).to(images)
        noisy = 2 * images - 1 + 2 * self.sigma * noise
        made = self.prior.denoised(float(schedule.abar[step].sqrt()) * noisy, step)
        return (made + 1) / 2
