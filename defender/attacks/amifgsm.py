"""MI-FGSM with a budget that depends on how good the image is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from defender.attacks.momentum import momentum_ascent
from defender.natural_scene_statistics import unnaturalness
from defender.types import Budget, Images, Objective, Seeds, Threat, check_parameters, parameter


@dataclass(frozen=True)
class AMIFGSM:
    """MI-FGSM in which images of low quality, where a change is seen less, are changed more.

    ``epsilon_i = epsilon * min(1, quality_factor * U(x_i))`` with the unnaturalness U >= 1 of
    :func:`defender.natural_scene_statistics.unnaturalness`, and then
    :class:`defender.attacks.MIFGSM` within ``epsilon_i`` of each image. With the default factor
    an image with the statistics of a sharp photograph is given half of epsilon, one that is
    an octave away all of it.

    Args:
        epsilon: largest radius of the linf ball of an image, in [0, 1] units.
        quality_factor: share of epsilon for an image whose unnaturalness is 1; from 1 on every
            image is given all of it, which is MI-FGSM.
        steps: number of steps; 0 returns the images.
        decay: share of the momentum that is kept in a step.

    Raises:
        TypeError: an objective without a gradient.
        FloatingPointError: a gradient that is not finite.
        ValueError: images of neither 1 nor 3 channels.

    Source: Q. Sang, H. Zhang, L. Liu, X. Wu, A. Bovik, "On the Generation of Adversarial Samples
    for Image Quality Assessment", 2022, SSRN 4112969, as described by the robustness benchmark
    of A. Antsiferova et al., 2024, arXiv 2310.06958.
    Differs: the budget is ours. The benchmark states a radius of 1 / NIQE(x), which is about 0.1
    to 0.5, a bound that ten steps of 1/255 never meet, and is larger for the *better* image;
    its code has no ball. Here the radius is bounded by epsilon, worse images are given more, and
    a distance from natural statistics that needs no fitted model takes the place of NIQE.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "Q. Sang, H. Zhang, L. Liu, X. Wu, A. Bovik, On the Generation of Adversarial Samples "
        "for Image Quality Assessment, 2022, SSRN 4112969"
    )
    budget: ClassVar[Budget] = "linf"
    threat: ClassVar[Threat] = "oblivious"
    strength: ClassVar[str] = "epsilon"

    epsilon: float = parameter(
        10 / 255, doc="largest radius of the linf ball", low=0, high=1, unit="[0, 1] intensity"
    )
    quality_factor: float = parameter(
        0.5, doc="share of epsilon for an image with natural statistics", low=0
    )
    steps: int = parameter(10, doc="number of gradient steps", low=0)
    decay: float = parameter(1.0, doc="share of the momentum kept in a step", low=0, high=1)

    def __post_init__(self) -> None:
        check_parameters(self)

    def radii(self, images: Images) -> Tensor:
        """Radius (n,) of the linf ball of each image (n, c, h, w), in [0, epsilon]."""
        return unnaturalness(images).mul_(self.quality_factor).clamp_max_(1.0).mul_(self.epsilon)

    def __call__(self, images: Images, objective: Objective, *, seeds: Seeds) -> Images:
        """Attack images.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            objective: what to raise.
            seeds: unused, the attack is deterministic.

        Returns:
            (n, c, h, w) in [0, 1], each image within its radius of ``images``.
        """
        return momentum_ascent(images, objective, self.radii(images), self.steps, self.decay)
