"""The translation-invariant fast gradient sign method, with momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from defender.attacks.momentum import momentum_ascent
from defender.gradients import gradient
from defender.smoothing import gaussian_filter
from defender.types import Budget, Images, Objective, Seeds, Threat, check_parameters, parameter


@dataclass(frozen=True)
class TIFGSM:
    """Sign steps along accumulated gradients that are blurred first.

    ``m_i = decay * m_{i-1} + g_i / ||g_i||_1`` and ``x_i = clip(x_{i-1} + epsilon / steps *
    sign(m_i))``, with g_i the gradient at x_{i-1} blurred by a Gaussian kernel, which stands for
    the mean of the gradients at moved images.

    Args:
        epsilon: radius of the linf ball, in [0, 1] units.
        steps: number of steps; 0 returns the images.
        decay: share of the momentum that is kept in a step; 0 is TI-BIM, 1 the paper's
            TI-MI-FGSM.
        window: odd side of the kernel, which ends at 3 standard deviations; 1 is MIFGSM.

    Raises:
        TypeError: an objective without a gradient.
        FloatingPointError: a gradient that is not finite.
        ValueError: an even window.

    Source: Y. Dong, T. Pang, H. Su, J. Zhu, "Evading Defenses to Transferable Adversarial
    Examples by Translation-Invariant Attacks", 2019, arXiv 1904.02884.
    Differs: none; as in the authors' code gradients beyond the border count as 0.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "Y. Dong, T. Pang, H. Su, J. Zhu, Evading Defenses to Transferable Adversarial Examples "
        "by Translation-Invariant Attacks, 2019, arXiv 1904.02884"
    )
    budget: ClassVar[Budget] = "linf"
    threat: ClassVar[Threat] = "oblivious"
    strength: ClassVar[str] = "epsilon"

    epsilon: float = parameter(
        0.03, doc="radius of the linf ball", low=0, high=1, unit="[0, 1] intensity"
    )
    steps: int = parameter(10, doc="number of gradient steps", low=0)
    decay: float = parameter(1.0, doc="share of the momentum kept in a step", low=0)
    window: int = parameter(15, doc="odd side of the Gaussian kernel", low=1, unit="pixels")

    def __post_init__(self) -> None:
        check_parameters(self)
        if self.window % 2 == 0:
            raise ValueError(f"window: expected an odd number >= 1, got {self.window}")

    def __call__(self, images: Images, objective: Objective, *, seeds: Seeds) -> Images:
        """Attack images.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            objective: what to raise.
            seeds: unused, the attack is deterministic.

        Returns:
            (n, c, h, w) in [0, 1], within ``epsilon`` of ``images``.
        """
        reach = self.window // 2

        def steepest(attacked: Images, step: int) -> Tensor:
            slope = gradient(objective, attacked, check=False)
            return gaussian_filter(slope, reach / 3, reach, "zeros") if reach else slope

        radii = images.new_full((len(images),), self.epsilon)
        return momentum_ascent(images, objective, radii, self.steps, self.decay, steepest)
