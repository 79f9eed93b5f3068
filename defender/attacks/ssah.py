"""The frequency-driven attack: a change that keeps away from low frequencies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from defender.attacks.quality_ascent import adam_ascent, range_gradient
from defender.types import Budget, Images, Objective, Seeds, Threat, check_parameters, parameter
from defender.wavelets import dwt


@dataclass(frozen=True)
class SSAH:
    """Adam steps that raise the score and keep the low-frequency part of the image.

    Minimises ``-objective(x') / span + weight * sum huber(low(x') - low(x))`` with ``low`` the
    image that the Haar transform's low sub-band alone gives back, in which every block of 2 x 2
    pixels has its mean, and ``huber(d) = d^2 / 2`` for the differences of at most 1 that images
    have (the smooth L1 norm). The values are clipped to [0, 1] after every step.

    Args:
        step_size: largest change of a value in a step, about, in [0, 1] units.
        steps: number of steps; 0 returns the images.
        weight: of the low-frequency part; 0 lets the change have any frequency.

    Raises:
        TypeError: an objective without a gradient.

    Source: C. Luo, Q. Lin, W. Xie, B. Wu, J. Xie, L. Shen, "Frequency-driven Imperceptible
    Adversarial Attack on Semantic Similarity", 2022, arXiv 2203.05151; with the score of a metric
    in the place of semantic similarity, and defaults, as in A. Gushchin et al., "Guardians of
    Image Quality", 2025 (repository msu-video-group/adversarial-defenses-for-iqa).
    Differs: images of odd sides are asked about as they are, without a margin of zeros; a block
    at an odd border has the pixels that it has.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "C. Luo, Q. Lin, W. Xie, B. Wu, J. Xie, L. Shen, Frequency-driven Imperceptible "
        "Adversarial Attack on Semantic Similarity, 2022, arXiv 2203.05151"
    )
    budget: ClassVar[Budget] = "none"
    threat: ClassVar[Threat] = "oblivious"
    strength: ClassVar[str] = "step_size"

    step_size: float = parameter(
        0.001, doc="largest change of a value in a step", low=0, high=1, unit="[0, 1] intensity"
    )
    steps: int = parameter(10, doc="number of gradient steps", low=0)
    weight: float = parameter(0.1, doc="weight of the low-frequency part of the change", low=0)

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

        def ascent(attacked: Images) -> Tensor:
            # block means are a projection, so this is also the gradient of half their squares
            return range_gradient(objective, attacked).sub_(
                block_means(attacked - images), alpha=self.weight
            )

        return adam_ascent(images, ascent, self.step_size, self.steps)


def block_means(images: Images) -> Images:
    """Images in which every block of 2 x 2 pixels has its mean: the low Haar sub-band put back."""
    height, width = images.shape[2:]
    means = dwt(images)[0] / 2
    wide = means.repeat_interleave(2, dim=3)[..., :width]
    return wide.repeat_interleave(2, dim=2)[:, :, :height]
