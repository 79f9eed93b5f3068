"""The adversarial colour filter: a tone curve for each channel of each image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from defender.adam import Adam
from defender.gradients import value_and_gradient
from defender.types import Budget, Images, Objective, Seeds, Threat, check_parameters, parameter

_FLATTEST = 1e-6
"""Least part of a curve, as a share of what a piece of the identity has: curves keep rising."""


@dataclass(frozen=True)
class AdvCF:
    """Adam steps on the pieces of a rising, piecewise linear curve for each channel.

    Each channel of an image goes through ``F(v) = sum_k clip(K v - k, 0, 1) w_k`` with
    ``w = theta / sum theta``, ``theta >= 0``: a curve of K pieces from (0, 0) to (1, 1) that rises
    by ``w_k`` in piece k. At first all pieces are equal and F is the identity. Minimised is
    ``-objective(F(x)) / span + weight * sum (w_k - 1 / K)^2``, the sum over pieces and channels. Of
    all curves on the way, each image keeps the one with the largest score.

    Args:
        step_size: of Adam, for the parameters theta, whose first value is 1 / ``pieces``: the
            change grows with it up to about that value. 0 returns the images.
        steps: number of steps; 0 returns the images.
        pieces: pieces K of a curve.
        weight: of the curve's distance from the identity.

    Raises:
        TypeError: an objective without a gradient.

    Source: Z. Zhao, Z. Liu, M. Larson, "Adversarial Color Enhancement: Generating Unrestricted
    Adversarial Images by Optimizing a Color Filter", 2020, arXiv 2002.01008; with the score of a
    metric in the place of a classifier's loss, and defaults, as in A. Gushchin et al.,
    "Adversarial purification for no-reference image-quality metrics: applicability study and new
    methods", 2024, arXiv 2404.06957.
    Differs: no search for the weight; the curve after the last step is a candidate too; each
    image keeps its own best.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "Z. Zhao, Z. Liu, M. Larson, Adversarial Color Enhancement: Generating Unrestricted "
        "Adversarial Images by Optimizing a Color Filter, 2020, arXiv 2002.01008"
    )
    budget: ClassVar[Budget] = "none"
    threat: ClassVar[Threat] = "oblivious"
    strength: ClassVar[str] = "step_size"

    step_size: float = parameter(0.1, doc="Adam's step for the parts of a curve", low=0)
    steps: int = parameter(10, doc="number of gradient steps", low=0)
    pieces: int = parameter(64, doc="linear pieces of a curve", low=1)
    weight: float = parameter(0.5, doc="weight of the curve's distance from the identity", low=0)

    def __post_init__(self) -> None:
        check_parameters(self)

    @torch.no_grad()
    def __call__(self, images: Images, objective: Objective, *, seeds: Seeds) -> Images:
        """Attack images.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            objective: what to raise.
            seeds: unused, the attack is deterministic.

        Returns:
            (n, c, h, w) in [0, 1]; equal values of a channel stay equal.
        """
        if self.steps == 0 or self.step_size == 0 or not len(images):
            return images.clone()
        span = float(getattr(objective, "span", 1.0))
        pieces = Pieces(images, self.pieces)
        theta = images.new_full((*images.shape[:2], self.pieces), 1 / self.pieces)
        adam = Adam(theta, self.step_size)
        best, attacked = images, images
        best_scores = images.new_full((len(images),), -torch.inf)
        for _ in range(self.steps):
            scores, steepest = value_and_gradient(objective, attacked, check=False)
            best, best_scores = _better(best, best_scores, attacked, scores)
            upward = pieces.pull_back(steepest).div_(-span)
            theta.sub_(adam.step(_descent(theta, upward, self.weight)))
            theta.clamp_(min=_FLATTEST / self.pieces)
            attacked = pieces.apply(theta / theta.sum(dim=2, keepdim=True))
        return _better(best, best_scores, attacked, objective(attacked))[0]


class Pieces:
    """Which piece of a curve each value of an image lies in, and where in it.

    Args:
        images: (n, c, h, w) in [0, 1].
        count: number of pieces.
    """

    def __init__(self, images: Images, count: int) -> None:
        self.like = images
        self.count = count
        scaled = images.flatten(2) * count
        self.index = scaled.long().clamp_(max=count - 1)
        self.place = scaled - self.index

    def apply(self, parts: Tensor) -> Images:
        """Send images through curves.

        Args:
            parts: (n, c, count), by how much each curve rises in each piece.

        Returns:
            (n, c, h, w) of the images' memory format, clipped to [0, 1].
        """
        curved = (parts.cumsum(dim=2) - parts).gather(2, self.index)
        curved.addcmul_(parts.gather(2, self.index), self.place).clamp_(0.0, 1.0)
        return torch.empty_like(self.like).copy_(curved.view(self.like.shape))

    def pull_back(self, gradient: Tensor) -> Tensor:
        """Gradient with respect to the parts of the curves.

        Args:
            gradient: (n, c, h, w), with respect to the images behind the curves; values that are
                not finite count as 0.

        Returns:
            (n, c, count): the sum over the values in a piece, by their place in it, and over all
            values in higher pieces.
        """
        # summed on the CPU, where the order is always the same
        values = gradient.nan_to_num(0.0, 0.0, 0.0).flatten(2).cpu().double()
        index = self.index.cpu()
        zeros = values.new_zeros((*values.shape[:2], self.count))
        whole = zeros.scatter_add(2, index, values)
        inside = zeros.scatter_add_(2, index, values.mul_(self.place.cpu()))
        above = whole.flip(2).cumsum(2).flip(2) - whole
        return (inside + above).to(gradient)


def _better(
    best: Images, best_scores: Tensor, images: Images, scores: Tensor
) -> tuple[Images, Tensor]:
    """The best images with their scores, those with larger scores put in their place."""
    better = scores > best_scores
    chosen = torch.where(better.view(-1, 1, 1, 1), images, best)
    return chosen, torch.where(better, scores, best_scores)


def _descent(theta: Tensor, gradient: Tensor, weight: float) -> Tensor:
    """Gradient with respect to theta (n, c, k) of what has a gradient for its normalised parts.

    Args:
        theta: parameters >= 0.
        gradient: (n, c, k) with respect to ``theta / sum theta``.
        weight: of the summed squared distances of the parts from ``1 / k``, which are added.
    """
    total = theta.sum(dim=2, keepdim=True)
    parts = theta / total
    whole = gradient + 2 * weight * (parts - 1 / theta.shape[2])
    return (whole - (whole * parts).sum(dim=2, keepdim=True)) / total
