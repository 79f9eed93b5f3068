"""Projected gradient descent from random starts, in the linf or the l2 ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from defender.attacks.norm_ball import NormBall
from defender.gradients import check_finite, gradient
from defender.noise import derive_seeds
from defender.norms import ascend_, project_, random_start
from defender.types import Images, Objective, Seeds, Threat, parameter


@dataclass(frozen=True)
class PGD(NormBall):
    """Steepest ascent with projection, the best of several random starts kept for each image.

    ``x_i = P(x_{i-1} + step_size * s(g))`` with ``s(g) = sign(g)`` for linf, ``g / ||g||_2`` for
    l2, and P the projection to the ball and to [0, 1]. The last iterate of every start is scored
    and each image keeps the one with the largest score.

    Args:
        epsilon: radius of the ball in the norm, in [0, 1] units; an l2 radius is that of the
            whole image and may exceed 1.
        step_size: length of a step in the norm, in [0, 1] units.
        steps: number of steps of each start; 0 returns the images.
        norm: ``"linf"`` or ``"l2"``.
        restarts: number of starts.
        random_start: start at a random point of the ball; otherwise at the image itself.

    Raises:
        TypeError: an objective without a gradient.
        FloatingPointError: a gradient that is not finite.
        ValueError: several restarts without a random start, which would all be the same.

    Source: A. Madry, A. Makelov, L. Schmidt, D. Tsipras, A. Vladu, "Towards Deep Learning Models
    Resistant to Adversarial Attacks", 2018, arXiv 1706.06083.
    Differs: the l2 start is uniform in the ball, not on its surface.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "A. Madry, A. Makelov, L. Schmidt, D. Tsipras, A. Vladu, Towards Deep Learning Models "
        "Resistant to Adversarial Attacks, 2018, arXiv 1706.06083"
    )
    threat: ClassVar[Threat] = "oblivious"
    strength: ClassVar[str] = "epsilon"

    epsilon: float = parameter(doc="radius of the ball in the norm", low=0, unit="[0, 1] intensity")
    step_size: float = parameter(doc="length of a step in the norm", low=0, unit="[0, 1] intensity")
    steps: int = parameter(doc="number of gradient steps of each start", low=0)
    norm: str = parameter("linf", doc="norm of the ball", choices=("linf", "l2"))
    restarts: int = parameter(1, doc="number of starts", low=1)
    random_start: bool = parameter(True, doc="start at a random point of the ball")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.restarts > 1 and not self.random_start:
            raise ValueError(f"restarts: expected 1 without a random start, got {self.restarts}")

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
        if self.steps == 0:
            return images.clone()
        total = images.new_zeros(())
        best = self._climb(images, objective, derive_seeds(seeds, "restart 0"), total)
        if self.restarts > 1:
            best_scores = objective(best)
            for restart in range(1, self.restarts):
                keys = derive_seeds(seeds, f"restart {restart}")
                candidate = self._climb(images, objective, keys, total)
                scores = objective(candidate)
                better = scores > best_scores
                best = torch.where(better.view(-1, 1, 1, 1), candidate, best)
                best_scores = torch.where(better, scores, best_scores)
        check_finite(total, objective)
        return best

    def _climb(self, images: Images, objective: Objective, seeds: Seeds, total: Tensor) -> Images:
        """One start to its last iterate; sums of gradients are added to ``total``."""
        if self.random_start:
            attacked = random_start(images, self.epsilon, self.norm, seeds)
        else:
            attacked = images.clone()
        for _ in range(self.steps):
            steepest = gradient(objective, attacked, check=False)
            total += steepest.sum()
            ascend_(attacked, steepest, self.step_size, self.norm)
            project_(attacked, images, self.epsilon, self.norm)
        return attacked
