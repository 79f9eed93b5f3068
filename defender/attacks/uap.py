"""One fitted perturbation added to every image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from defender.types import Budget, Images, Objective, Seeds, Threat, check_parameters, parameter
from defender.universal import Perturbation


@dataclass(frozen=True)
class UAP:
    """Adds ``amplitude`` times a universal perturbation, and clips to [0, 1].

    The perturbation is repeated over images that are larger, and cut for smaller ones; grey images
    take the mean over its channels. It was fitted to an objective before
    (:class:`defender.universal.UniversalTraining`); the objective of an image is not asked.

    Args:
        amplitude: factor of the perturbation, whose values are at most 0.1 when it is fitted.
        perturbation: what is added; None where it is yet to be fitted.

    Raises:
        ValueError: when called before a perturbation was fitted, or with images of another
            number of channels.

    Source: S.-M. Moosavi-Dezfooli, A. Fawzi, O. Fawzi, P. Frossard, "Universal Adversarial
    Perturbations", 2017, arXiv 1610.08401; E. Shumitskaya, A. Antsiferova, D. Vatolin, "Universal
    Perturbation Attack on Differentiable No-Reference Image- and Video-Quality Metrics", 2022,
    arXiv 2211.00366.
    Differs: see :class:`defender.universal.UniversalTraining`.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "E. Shumitskaya, A. Antsiferova, D. Vatolin, Universal Perturbation Attack on "
        "Differentiable No-Reference Image- and Video-Quality Metrics, 2022, arXiv 2211.00366"
    )
    budget: ClassVar[Budget] = "none"
    threat: ClassVar[Threat] = "oblivious"
    strength: ClassVar[str] = "amplitude"

    amplitude: float = parameter(0.3, doc="factor of the perturbation", low=0)
    perturbation: Perturbation | None = None

    def __post_init__(self) -> None:
        check_parameters(self)

    @property
    def must_fit(self) -> bool:
        """Whether it cannot attack before it is fitted."""
        return self.perturbation is None

    @torch.no_grad()
    def __call__(self, images: Images, objective: Objective, *, seeds: Seeds) -> Images:
        """Attack images.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            objective: not asked.
            seeds: unused, the attack is deterministic.

        Returns:
            (n, c, h, w) in [0, 1].
        """
        if self.perturbation is None:
            raise ValueError(f"perturbation: expected a fitted one, got {self!r}")
        change = self.perturbation.over(images)
        return images.clone().add_(change, alpha=self.amplitude).clamp_(0.0, 1.0)
