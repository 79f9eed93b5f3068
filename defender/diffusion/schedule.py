"""How much of an image and how much noise there is at each step of a diffusion."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from defender.types import check_parameters, parameter


@dataclass(frozen=True)
class NoiseSchedule:
    """Variances that grow along a line: ``x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) z``.

    ``abar_t = prod_{s <= t} (1 - beta_s)``, and ``sigma_t = sqrt((1 - abar_t) / abar_t)`` is the
    noise level of ``x_t / sqrt(abar_t)``.

    Args:
        steps: number of noise levels.
        first: beta of step 0.
        last: beta of the last step.

    Raises:
        ValueError: for parameters out of range.

    Source: J. Ho, A. Jain, P. Abbeel, "Denoising Diffusion Probabilistic Models", 2020, arXiv
    2006.11239.
    """

    steps: int = parameter(1000, doc="number of noise levels", low=1)
    first: float = parameter(1e-4, doc="variance added at step 0", low=0, high=1, open_low=True)
    last: float = parameter(0.02, doc="variance added at the last step", low=0, high=1)

    def __post_init__(self) -> None:
        check_parameters(self)

    @cached_property
    def abar(self) -> Tensor:
        """Share of the image's variance that is left at each step, float64 (steps,)."""
        betas = torch.linspace(self.first, self.last, self.steps, dtype=torch.float64)
        return torch.cumprod(1 - betas, dim=0)

    @cached_property
    def sigma(self) -> Tensor:
        """Noise level of each step in units of the image, float64 (steps,), growing."""
        return ((1 - self.abar) / self.abar).sqrt()

    def nearest(self, sigma: float) -> int:
        """The step whose noise level is nearest to ``sigma``, by their ratio.

        Args:
            sigma: above 0, in the units of images in [-1, 1].
        """
        if not sigma > 0:
            raise ValueError(f"sigma: expected > 0, got {sigma}")
        ratio = torch.log(self.sigma) - torch.log(torch.tensor(sigma, dtype=torch.float64))
        return int(ratio.abs().argmin())

    def spread(self, count: int) -> list[int]:
        """``count`` steps at equal distances from step 0 on: step ``floor(i steps / count)``.

        Args:
            count: from 1 to the number of steps.

        Returns:
            Step numbers, growing.
        """
        if not 1 <= count <= self.steps:
            raise ValueError(f"steps: expected [1, {self.steps}], got {count}")
        return [i * self.steps // count for i in range(count)]
