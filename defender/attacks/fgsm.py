"""The fast gradient sign method: one step to the border of the linf ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from defender.gradients import gradient
from defender.norms import ascend_
from defender.types import Budget, Images, Objective, Seeds, Threat, check_parameters, parameter


@dataclass(frozen=True)
class FGSM:
    """One gradient sign step: ``x' = clip(x + epsilon * sign(g), 0, 1)``.

    Args:
        epsilon: radius of the linf ball, in [0, 1] units.

    Raises:
        TypeError: an objective without a gradient.
        FloatingPointError: a gradient that is not finite.

    Source: I. Goodfellow, J. Shlens, C. Szegedy, "Explaining and Harnessing Adversarial
    Examples", 2015, arXiv 1412.6572, section 4.
    Differs: the result is clipped to [0, 1].
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "I. Goodfellow, J. Shlens, C. Szegedy, Explaining and Harnessing Adversarial Examples, "
        "2015, arXiv 1412.6572"
    )
    budget: ClassVar[Budget] = "linf"
    threat: ClassVar[Threat] = "oblivious"
    strength: ClassVar[str] = "epsilon"

    epsilon: float = parameter(
        doc="radius of the linf ball", low=0, high=1, unit="[0, 1] intensity"
    )

    def __post_init__(self) -> None:
        check_parameters(self)

    def __call__(self, images: Images, objective: Objective, *, seeds: Seeds) -> Images:
        """Attack images.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            objective: what to raise.
            seeds: unused, the attack is deterministic.

        Returns:
            (n, c, h, w) in [0, 1], within ``epsilon`` of ``images``.
        """
        steepest = gradient(objective, images)
        attacked = images.clone()
        return ascend_(attacked, steepest, self.epsilon, "linf").clamp_(0.0, 1.0)
