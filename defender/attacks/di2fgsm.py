"""The diverse inputs iterative fast gradient sign method, with momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from defender.attacks.momentum import momentum_ascent
from defender.gradients import gradient
from defender.input_diversity import Diverse
from defender.noise import derive_seeds
from defender.types import Budget, Images, Objective, Seeds, Threat, check_parameters, parameter


@dataclass(frozen=True)
class DI2FGSM:
    """Sign steps along accumulated gradients of randomly resized and padded images.

    ``m_i = decay * m_{i-1} + g_i / ||g_i||_1`` and ``x_i = clip(x_{i-1} + epsilon / steps *
    sign(m_i))``, with g_i the gradient at x_{i-1} of the objective after, with the given
    probability, a resize to a random size and a move to a random place on black.

    Args:
        epsilon: radius of the linf ball, in [0, 1] units.
        steps: number of steps; 0 returns the images.
        decay: share of the momentum that is kept in a step; 0 is DI2-FGSM, 1 the paper's
            M-DI2-FGSM.
        probability: chance that an image is resized in a step; 0 is MIFGSM.
        smallest: least share of height and width after a resize.

    Raises:
        TypeError: an objective without a gradient.
        FloatingPointError: a gradient that is not finite.

    Source: C. Xie, Z. Zhang, Y. Zhou, S. Bai, J. Wang, Z. Ren, A. Yuille, "Improving
    Transferability of Adversarial Examples with Input Diversity", 2019, arXiv 1803.06978.
    Differs: the paper enlarges images of 299 pixels to up to 330 and pads to 330; here images
    shrink by as much and are padded to their own size, so that models and defences see images of
    the size that they are made for.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "C. Xie, Z. Zhang, Y. Zhou, S. Bai, J. Wang, Z. Ren, A. Yuille, Improving Transferability "
        "of Adversarial Examples with Input Diversity, 2019, arXiv 1803.06978"
    )
    budget: ClassVar[Budget] = "linf"
    threat: ClassVar[Threat] = "oblivious"
    strength: ClassVar[str] = "epsilon"

    epsilon: float = parameter(
        0.03, doc="radius of the linf ball", low=0, high=1, unit="[0, 1] intensity"
    )
    steps: int = parameter(10, doc="number of gradient steps", low=0)
    decay: float = parameter(1.0, doc="share of the momentum kept in a step", low=0)
    probability: float = parameter(0.5, doc="chance of a resize in a step", low=0, high=1)
    smallest: float = parameter(0.9, doc="least share of the size", low=0, high=1, open_low=True)

    def __post_init__(self) -> None:
        check_parameters(self)

    def __call__(self, images: Images, objective: Objective, *, seeds: Seeds) -> Images:
        """Attack images.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            objective: what to raise.
            seeds: int64 (n,); sizes and places are drawn from them.

        Returns:
            (n, c, h, w) in [0, 1], within ``epsilon`` of ``images``.
        """
        keys = derive_seeds(seeds, "input diversity")

        def steepest(attacked: Images, step: int) -> Tensor:
            seen = Diverse(objective, derive_seeds(keys, step), self.probability, self.smallest)
            return gradient(seen, attacked, check=False)

        radii = images.new_full((len(images),), self.epsilon)
        return momentum_ascent(images, objective, radii, self.steps, self.decay, steepest)
