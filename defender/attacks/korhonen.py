"""The attack of Korhonen and You: change images where they are busy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from defender.activity import spatial_activity
from defender.attacks.quality_ascent import adam_ascent, range_gradient
from defender.types import Budget, Images, Objective, Seeds, Threat, check_parameters, parameter

_MAP_SCALE = 1 / 255


@dataclass(frozen=True)
class Korhonen:
    """Adam on the score, its gradient multiplied by a map of the clean image's activity.

    ``g = map(x) / 255 * d/dx' (q(x') / R)`` with the metric's range R (1 for objectives that have
    none) and :func:`defender.activity.spatial_activity`. Values are clipped to [0, 1] after every
    step; nothing else bounds the change, but no value moves much farther than
    ``steps * step_size``.

    Adam divides a gradient by its own size, and so divides the map away: where
    ``|g|`` is much larger than Adam's 1e-8, the map and its 255 have no effect but where the map
    is exactly 0 and nothing moves. Below, steps are about ``step_size * |g| / 1e-8`` and the map
    does what it is for. The gradient of the mean over many pixels is that small: with a score of
    slope 1 spread over 299 x 299 x 3 values, g is 1.5e-8 where the map is 1.

    Args:
        step_size: step length of Adam, in [0, 1] units.
        steps: number of steps; 0 returns the images.

    Raises:
        TypeError: an objective without a gradient.
        ValueError: images of neither 1 nor 3 channels.

    Source: J. Korhonen, J. You, "Adversarial Attacks Against Blind Image Quality Assessment
    Models", 2022, DOI 10.1145/3552469.3555715; the 255 and the default step of the benchmark of
    A. Gushchin et al., "Guardians of Image Quality", 2025.
    Differs: see :func:`defender.activity.spatial_activity`. Gradient values that are not finite
    count as 0.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "J. Korhonen, J. You, Adversarial Attacks Against Blind Image Quality Assessment Models, "
        "2022, DOI 10.1145/3552469.3555715"
    )
    budget: ClassVar[Budget] = "none"
    threat: ClassVar[Threat] = "oblivious"
    strength: ClassVar[str] = "step_size"

    step_size: float = parameter(
        0.005, doc="step length of Adam", low=0, high=1, unit="[0, 1] intensity"
    )
    steps: int = parameter(10, doc="number of steps of Adam", low=0)

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
        weights = spatial_activity(images) * _MAP_SCALE

        def ascent(attacked: Images) -> Tensor:
            return range_gradient(objective, attacked).mul_(weights)

        return adam_ascent(images, ascent, self.step_size, self.steps)
