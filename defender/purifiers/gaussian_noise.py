"""Noise against noise: what an attack fitted to single values drowns in random ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from defender.noise import derive_seeds, normal
from defender.purifiers.filters import clamp_through
from defender.purifiers.randomised import Randomised
from defender.types import Images, Seeds, parameter


@dataclass(frozen=True)
class GaussianNoise(Randomised):
    """Adds independent normal noise to every value and clamps to [0, 1].

    Args:
        sigma: standard deviation, [0, 1] units.

    Source: J. Cohen, E. Rosenfeld, J. Z. Kolter, "Certified Adversarial Robustness via Randomized
    Smoothing", 2019, arXiv 1902.02918, the noise of one draw.
    Differs: one draw, no vote; clamped.
    """

    paper: ClassVar[str] = (
        "J. Cohen, E. Rosenfeld, J. Z. Kolter, Certified Adversarial Robustness via Randomized "
        "Smoothing, 2019, arXiv 1902.02918"
    )

    sigma: float = parameter(0.01, doc="standard deviation of the noise", low=0, high=1)

    def drawn(self, images: Images, seeds: Seeds) -> Images:
        """Noisy images; gradients pass unchanged."""
        noise = normal(derive_seeds(seeds, "gaussian noise"), tuple(images.shape[1:]))
        return clamp_through(images + self.sigma * noise.to(images))
