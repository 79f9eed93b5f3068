"""The perceptual attack: raise the score while the image stays similar to itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from defender.attacks.quality_ascent import adam_ascent, range_gradient
from defender.gradients import gradient, ordinary
from defender.perceptual import perceptual_distance
from defender.structural_gradient import StructuralGradient
from defender.types import (
    Budget,
    Images,
    Objective,
    Scores,
    Seeds,
    Threat,
    check_parameters,
    parameter,
)


@dataclass(frozen=True)
class Zhang:
    """Adam on the distance from the clean image minus the score: ``F(x', x) - q(x') / R``.

    R is the width of the metric's range, 1 for objectives that have none. The distance is
    ``1 - SSIM``, LPIPS or DISTS. Values are clipped to [0, 1] after every step; nothing else
    bounds the change, but no value moves much farther than ``steps * step_size``.

    Args:
        step_size: step length of Adam, in [0, 1] units.
        steps: number of steps; 0 returns the images.
        distance: ``"ssim"``, ``"lpips"`` or ``"dists"``. The last two need the piq package and
            its weights in torch's hub cache. With ``"ssim"``, images with a side below 11
            pixels, where it is not defined, are attacked without a distance.

    Raises:
        TypeError: an objective without a gradient.
        ValueError: when called, weights that are missing, or images too small for the network.
        ModuleNotFoundError: when called, where piq is needed and not installed.

    Source: W. Zhang, D. Li, X. Min, G. Zhai, G. Guo, X. Yang, K. Ma, "Perceptual Attacks of
    No-Reference Image Quality Models with Human-in-the-Loop", 2022, arXiv 2210.00933; steps,
    weights and default step of the benchmark of A. Gushchin et al., "Guardians of Image
    Quality", 2025.
    Differs: the score is raised with a fixed weight, where the paper varies the weight and lets
    people choose the image that just does not look different. Gradient values that are not
    finite count as 0.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "W. Zhang, D. Li, X. Min, G. Zhai, G. Guo, X. Yang, K. Ma, Perceptual Attacks of "
        "No-Reference Image Quality Models with Human-in-the-Loop, 2022, arXiv 2210.00933"
    )
    budget: ClassVar[Budget] = "none"
    threat: ClassVar[Threat] = "oblivious"
    strength: ClassVar[str] = "step_size"

    step_size: float = parameter(
        0.005, doc="step length of Adam", low=0, high=1, unit="[0, 1] intensity"
    )
    steps: int = parameter(10, doc="number of steps of Adam", low=0)
    distance: str = parameter(
        "ssim",
        doc="distance from the clean image to keep small",
        choices=("ssim", "lpips", "dists"),
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
            (n, c, h, w) in [0, 1].
        """
        similarity = self._similarity_gradient(images)

        def ascent(attacked: Images) -> Tensor:
            return range_gradient(objective, attacked).add_(similarity(attacked))

        return adam_ascent(images, ascent, self.step_size, self.steps)

    def _similarity_gradient(self, reference: Images) -> Callable[[Images], Tensor]:
        """Gradient of minus the distance from the references."""
        if self.distance == "ssim":
            return StructuralGradient(reference)

        def minus_distance(images: Images) -> Scores:
            return -perceptual_distance(self.distance, images, ordinary(reference))

        return lambda images: gradient(minus_distance, images, check=False)
