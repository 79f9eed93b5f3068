"""The iterative fast gradient sign method, as in the Image-Defender chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from defender.gradients import check_finite, gradient
from defender.norms import ascend_, box
from defender.types import Budget, Images, Objective, Seeds, Threat, check_parameters, parameter


@dataclass(frozen=True)
class IFGSM:
    """Gradient sign steps, each clipped to [0, 1] and to the linf ball.

    ``x_0 = x;  x_i = clip(clip(x_{i-1} + step_size * sign(g), 0, 1), x - epsilon, x + epsilon)``
    with ``g`` the gradient of the objective at ``x_{i-1}``. There is no random start, no momentum
    and no early stop. A targeted attack is the same with a targeted objective.

    Args:
        epsilon: radius of the linf ball, in [0, 1] units.
        step_size: length of a step in every value, in [0, 1] units.
        steps: number of steps; 0 returns the images.

    Raises:
        TypeError: an objective without a gradient.
        FloatingPointError: a gradient that is not finite.

    Source: A. Kurakin, I. Goodfellow, S. Bengio, "Adversarial Examples in the Physical World",
    2017, arXiv 1607.02533, section 2.2; defaults of XuanZhao777, Image-Defender (repository).
    Differs: the paper's epsilon and step are in 8-bit levels; Image-Defender attacks the class
    with index 2 for every image, here the objective says which.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "A. Kurakin, I. Goodfellow, S. Bengio, Adversarial Examples in the Physical World, 2017, "
        "arXiv 1607.02533"
    )
    budget: ClassVar[Budget] = "linf"
    threat: ClassVar[Threat] = "oblivious"
    strength: ClassVar[str] = "step_size"

    epsilon: float = parameter(
        0.03, doc="radius of the linf ball", low=0, high=1, unit="[0, 1] intensity"
    )
    step_size: float = parameter(
        0.0015, doc="change of every value in a step", low=0, high=1, unit="[0, 1] intensity"
    )
    steps: int = parameter(80, doc="number of gradient steps", low=0)

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
            (n, c, h, w) in [0, 1], within ``epsilon`` of ``images``.
        """
        attacked = images.clone()
        low, high = box(images, self.epsilon)
        total = images.new_zeros(())
        for _ in range(self.steps):
            steepest = gradient(objective, attacked, check=False)
            total += steepest.sum()
            ascend_(attacked, steepest, self.step_size, "linf")
            torch.clamp(attacked, low, high, out=attacked)
        check_finite(total, objective)
        return attacked
