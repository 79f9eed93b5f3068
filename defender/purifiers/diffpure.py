"""Purification by noise that drowns an attack and a diffusion model that takes it out again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from defender.diffusion.prior import Prior
from defender.diffusion.sampling import SAMPLERS, diffuse, reverse
from defender.purifiers.diffusing import SIZES, Diffusing
from defender.types import Images, Seeds, parameter


@dataclass(frozen=True)
class DiffPure(Diffusing):
    """Diffuses an image to a share of the schedule, then runs the diffusion backwards.

    The samplers and their equations are :func:`defender.diffusion.sampling.reverse`. A gradient
    goes through every network call, computing each anew, so that memory does not grow with them.

    Args:
        prior: the diffusion model.
        t: share of the schedule's steps whose noise is put in; at least one step.
        sampler: ``"ddpm"``, ancestral; ``"sde"``, Euler-Maruyama; ``"ddim"``, without noise on the
            way back.
        steps: network calls; none: one at every step.
        size: at which the network sees images: that of its ``"prior"``, or the ``"image"``'s own.

    Raises:
        ValueError: a prior in training mode, more calls than steps; when called, images of another
            number of channels.

    Source: W. Nie, B. Guo, Y. Huang, C. Xiao, A. Vahdat, A. Anandkumar, "Diffusion Models for
    Adversarial Purification", 2022, arXiv 2205.07460.
    Differs: each image has noise of its own; gradients by recomputing, where the authors solve an
    adjoint equation.
    """

    paper: ClassVar[str] = (
        "W. Nie, B. Guo, Y. Huang, C. Xiao, A. Vahdat, A. Anandkumar, Diffusion Models for "
        "Adversarial Purification, 2022, arXiv 2205.07460"
    )

    prior: Prior
    t: float = parameter(
        0.1, doc="share of the schedule whose noise is put in", low=0, high=1, open_low=True
    )
    sampler: str = parameter("ddpm", doc="how the noise is taken out", choices=SAMPLERS)
    steps: int | None = parameter(None, doc="network calls; none: one at every step", low=1)
    size: str = parameter("prior", doc="size at which the network sees images", choices=SIZES)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps is not None and self.steps > self.last + 1:
            raise ValueError(f"steps: expected [1, {self.last + 1}], got {self.steps}")

    @property
    def last(self) -> int:
        """The step whose noise is put in."""
        return max(1, round(self.t * self.prior.schedule.steps)) - 1

    def diffused(self, images: Images, seeds: Seeds) -> Images:
        """Noise in, noise out."""
        noisy = diffuse(self.prior, 2 * images - 1, seeds, self.last)
        made = reverse(self.prior, noisy, seeds, self.last, sampler=self.sampler, steps=self.steps)
        return (made + 1) / 2
