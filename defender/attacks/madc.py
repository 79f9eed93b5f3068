"""The attack of the MAD competition: raise the score along a sphere of constant error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from defender.attacks.quality_ascent import range_gradient
from defender.norms import ascend_
from defender.types import Budget, Images, Objective, Seeds, Threat, check_parameters, parameter

_RETURN_STEP = 0.0005


@dataclass(frozen=True)
class MADC:
    """Sign steps along the part of the gradient that does not change the mean squared error.

    With ``d = x' - x`` and g the gradient of the score at x', every step is

    * ``x' = clip(x' + step_size * sign(g - (g . d) / (d . d) d), 0, 1)``, the first one, where
      d = 0, along the sign of g itself;
    * back to ``sqrt(mean(d^2)) <= rmse`` by sign steps of 0.0005 towards x, as many as it takes.

    Args:
        step_size: change of every value in a step, in [0, 1] units.
        steps: number of steps; 0 returns the images.
        rmse: largest root of the mean squared change of an image, in [0, 1] units.

    Raises:
        TypeError: an objective without a gradient.

    Source: Z. Wang, E. Simoncelli, "Maximum differentiation (MAD) competition: A methodology for
    comparing computational models of perceptual quantities", 2008, DOI 10.1167/8.12.8; steps and
    defaults of the benchmark of A. Gushchin et al., "Guardians of Image Quality", 2025.
    Differs: from the paper, signs of directions, and a bound on the error in the place of a given
    one. From the benchmark, a value whose change is below 0.0005 returns to the clean value
    and not beyond it, and values are clipped after the step too. Gradient values that are not
    finite count as 0.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "Z. Wang, E. Simoncelli, Maximum differentiation (MAD) competition: A methodology for "
        "comparing computational models of perceptual quantities, 2008, DOI 10.1167/8.12.8"
    )
    budget: ClassVar[Budget] = "none"
    threat: ClassVar[Threat] = "oblivious"
    strength: ClassVar[str] = "step_size"

    step_size: float = parameter(
        0.001, doc="change of every value in a step", low=0, high=1, unit="[0, 1] intensity"
    )
    steps: int = parameter(8, doc="number of gradient steps", low=0)
    rmse: float = parameter(
        10 / 255,
        doc="largest root mean squared change of an image",
        low=0,
        high=1,
        unit="[0, 1] intensity",
    )

    def __post_init__(self) -> None:
        check_parameters(self)

    @torch.no_grad()
    def __call__(self, images: Images, objective: Objective, *, seeds: Seeds) -> Images:
        """Attack images.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            objective: what to raise.
            seeds: unused, the attack is deterministic.

        Returns:
            (n, c, h, w) in [0, 1], with a root mean squared change of at most ``rmse``.
        """
        attacked = images.clone()
        for _ in range(self.steps):
            ascent = _without_component(range_gradient(objective, attacked), attacked - images)
            ascend_(attacked, ascent, self.step_size, "linf").clamp_(0.0, 1.0)
            _return_within_(attacked, images, self.rmse)
        return attacked


def _without_component(vectors: Tensor, directions: Tensor) -> Tensor:
    """Vectors minus their projections on directions, image by image; all (n, c, h, w)."""
    dims = (1, 2, 3)
    squares = directions.square().sum(dims, keepdim=True)
    products = (vectors * directions).sum(dims, keepdim=True)
    return vectors - directions * torch.where(squares > 0, products / squares, 0.0)


def _return_within_(images: Images, clean: Images, rmse: float) -> None:
    """Bring images back in place until the root mean squared change is at most ``rmse``."""
    while True:
        change = images - clean
        beyond = change.square().mean(dim=(1, 2, 3), keepdim=True).sqrt() > rmse
        if not beyond.any():
            return
        images.sub_(change.clamp_(-_RETURN_STEP, _RETURN_STEP).mul_(beyond))
