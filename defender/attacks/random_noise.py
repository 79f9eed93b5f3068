"""Noise as large as an attack, which asks nobody: what the size of a change does by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from defender.attacks.norm_ball import NormBall
from defender.noise import derive_seeds, normal
from defender.norms import ascend_
from defender.types import Images, Objective, Seeds, Threat, parameter


@dataclass(frozen=True)
class RandomNoise(NormBall):
    """The control of attacks in a norm ball: a random change of the same norm.

    With z standard normal for every value:

    * ``linf``: ``x + epsilon sign(z)``.
    * ``l2``: ``x + epsilon z / ||z||_2``.

    The result is clipped to [0, 1]; the objective is not asked.

    Args:
        epsilon: norm of the change, in [0, 1] units; 0 returns the images.
        norm: ``"linf"`` or ``"l2"``.

    Raises:
        ValueError: a linf radius above 1.

    Source: A. Fawzi, S.-M. Moosavi-Dezfooli, P. Frossard, "Robustness of classifiers: from
    adversarial to random noise", 2016, arXiv 1608.08967.
    Differs: one draw of a stated size, where the paper looks for the size that changes the class.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "A. Fawzi, S.-M. Moosavi-Dezfooli, P. Frossard, Robustness of classifiers: from "
        "adversarial to random noise, 2016, arXiv 1608.08967"
    )
    threat: ClassVar[Threat] = "control"
    strength: ClassVar[str] = "epsilon"

    epsilon: float = parameter(doc="norm of the change", low=0, unit="[0, 1] intensity")
    norm: str = parameter("linf", doc="norm of the change", choices=("linf", "l2"))

    @torch.no_grad()
    def __call__(self, images: Images, objective: Objective, *, seeds: Seeds) -> Images:
        """Change images.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            objective: not asked.
            seeds: int64 (n,); the noise is drawn from them.

        Returns:
            (n, c, h, w) in [0, 1], within ``epsilon`` of ``images``.
        """
        noise = normal(derive_seeds(seeds, "noise"), tuple(images.shape[1:])).to(images)
        return ascend_(images.clone(), noise, self.epsilon, self.norm).clamp_(0.0, 1.0)
