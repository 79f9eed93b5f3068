"""Similarity-guided sign steps until the similarity converges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from defender.gradients import check_finite, value_and_gradient
from defender.noise import derive_seeds
from defender.norms import ascend_, project_, random_start
from defender.types import Budget, Images, Objective, Seeds, Threat, check_parameters, parameter

_WINDOW = 10
"""Changes of the score that are looked at."""


@dataclass(frozen=True)
class SGADV:
    """Many small gradient sign steps, each image stopping where its score has converged.

    ``x <- clip(x + step_size sign(g))`` to the linf ball and to [0, 1], from a random start. An
    image stops as soon as each of its last 10 changes of the score is below ``convergence``, or at
    least 5 of them are no rises. Meant for the similarity to an enrolled face; other objectives
    have their scores taken relative to their ``span``.

    Args:
        epsilon: radius of the linf ball, in [0, 1] units.
        step_size: change of every value in a step, in [0, 1] units.
        steps: number of steps, at most; 0 returns the images.
        convergence: change of the score below which a step counts as none.
        random_start: start at a random point of the ball; otherwise at the image itself.

    Raises:
        TypeError: an objective without a gradient.
        FloatingPointError: a gradient that is not finite.

    Source: H. Wang, S. Wang, Z. Jin, Y. Wang, C. Chen, M. Tistarelli, "Similarity-based Gray-box
    Adversarial Attack Against Deep Face Recognition", 2021, arXiv 2201.04011; stopping rules and
    defaults of azrealwang, SGADV (repository).
    Differs: the code stops a whole batch by the sum of its scores, here each image stops by its
    own; the code asks for exactly 5 changes that are no rises.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "H. Wang, S. Wang, Z. Jin, Y. Wang, C. Chen, M. Tistarelli, Similarity-based Gray-box "
        "Adversarial Attack Against Deep Face Recognition, 2021, arXiv 2201.04011"
    )
    budget: ClassVar[Budget] = "linf"
    threat: ClassVar[Threat] = "oblivious"
    strength: ClassVar[str] = "epsilon"

    epsilon: float = parameter(
        0.03, doc="radius of the linf ball", low=0, high=1, unit="[0, 1] intensity"
    )
    step_size: float = parameter(
        0.001, doc="change of every value in a step", low=0, high=1, unit="[0, 1] intensity"
    )
    steps: int = parameter(1000, doc="number of gradient steps, at most", low=0)
    convergence: float = parameter(0.0001, doc="change of the score that counts as none", low=0)
    random_start: bool = parameter(True, doc="start at a random point of the ball")

    def __post_init__(self) -> None:
        check_parameters(self)

    @torch.no_grad()
    def __call__(self, images: Images, objective: Objective, *, seeds: Seeds) -> Images:
        """Attack images.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            objective: what to raise.
            seeds: int64 (n,); the random starts are drawn from them.

        Returns:
            (n, c, h, w) in [0, 1], within ``epsilon`` of ``images``.
        """
        attacked = images.clone()
        if self.steps == 0 or not len(images):
            return attacked
        if self.random_start:
            keys = derive_seeds(seeds, "start")
            attacked = random_start(images, self.epsilon, "linf", keys)
        least = self.convergence * float(getattr(objective, "span", 1.0))
        total, previous = images.new_zeros(()), None
        changes = images.new_full((_WINDOW, len(images)), torch.inf)
        climbing = torch.ones(len(images), dtype=torch.bool, device=images.device)
        for step in range(self.steps):
            scores, slopes = value_and_gradient(objective, attacked, check=False)
            total += slopes.sum()
            if previous is not None:
                changes[step % _WINDOW] = scores - previous
            if step >= _WINDOW:
                still, falls = changes.abs() < least, changes <= 0
                climbing &= ~still.all(dim=0) & (2 * falls.sum(dim=0) < _WINDOW)
                if not climbing.any():
                    break
            previous = scores
            # an image that has stopped keeps its score, and so never climbs again
            moved = ascend_(attacked.clone(), slopes, self.step_size, "linf")
            project_(moved, images, self.epsilon, "linf")
            attacked = torch.where(climbing.view(-1, 1, 1, 1), moved, attacked)
        check_finite(total, objective)
        return attacked
