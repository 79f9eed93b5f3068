"""Gradient estimation by natural evolution strategies: sign steps from scores alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from defender import noise
from defender.attacks.square import scores_of
from defender.norms import box
from defender.tiling import tiled
from defender.types import Budget, Images, Objective, Seeds, Threat, check_parameters, parameter


@dataclass(frozen=True)
class NES:
    """Sign steps along gradients that are estimated from pairs of scores.

    A step draws ``samples`` patterns u of ``tile`` x ``tile`` standard normal numbers a channel.
    With T(u) the pattern repeated over the image, the estimate is ``g = sum_u u (f(clip(x + sigma
    T(u))) - f(clip(x - sigma T(u))))`` and the step ``x <- clip(x + step_size * T(sign(g)))``, to
    the linf ball and to [0, 1]. There are as many steps as the queries allow. An image whose score
    is not larger at the end stays as it was.

    Args:
        epsilon: radius of the linf ball, in [0, 1] units; 0 returns the images.
        queries: scores asked for each image, at most: one before, one after, and twice
            ``samples`` in each step; where they do not do for a step, the images are returned.
        samples: pairs of opposite patterns in a step.
        sigma: standard deviation of the changes that are tried, in [0, 1] units.
        step_size: change of every value in a step, in [0, 1] units.
        tile: side of the patterns in pixels; a smaller image has patterns of its own size.

    Raises:
        ValueError: scores that are not one an image.

    Source: A. Ilyas, L. Engstrom, A. Athalye, J. Lin, "Black-box Adversarial Attacks with Limited
    Queries and Information", 2018, arXiv 1804.08598, algorithm 1; tiles (of A. Ilyas,
    L. Engstrom, A. Madry, "Prior Convictions", 2019, arXiv 1807.07978) and defaults as in
    A. Gushchin et al., "Guardians of Image Quality", 2025 (there ``grad-est``).
    Differs: no momentum; the benchmark steps by the estimate of length 0.1, which is 0.0018 a
    value, in the place of its signs, and does not compare with the image it began with.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "A. Ilyas, L. Engstrom, A. Athalye, J. Lin, Black-box Adversarial Attacks with Limited "
        "Queries and Information, 2018, arXiv 1804.08598"
    )
    budget: ClassVar[Budget] = "linf"
    threat: ClassVar[Threat] = "query"
    strength: ClassVar[str] = "epsilon"

    epsilon: float = parameter(
        doc="radius of the linf ball", low=0, high=1, unit="[0, 1] intensity"
    )
    queries: int = parameter(10_000, doc="scores asked for each image, at most", low=0)
    samples: int = parameter(20, doc="pairs of opposite patterns in a step", low=1)
    sigma: float = parameter(
        0.001, doc="deviation of tried changes", low=0, open_low=True, unit="[0, 1] intensity"
    )
    step_size: float = parameter(
        0.002, doc="change of every value in a step", low=0, high=1, unit="[0, 1] intensity"
    )
    tile: int = parameter(32, doc="side of the patterns", low=1, unit="pixels")

    def __post_init__(self) -> None:
        check_parameters(self)

    @property
    def steps(self) -> int:
        """Number of steps that the queries allow."""
        return max(0, self.queries - 2) // (2 * self.samples)

    @torch.no_grad()
    def __call__(self, images: Images, objective: Objective, *, seeds: Seeds) -> Images:
        """Attack images.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            objective: what to raise; it needs no gradient.
            seeds: int64 (n,); the patterns are drawn from them.

        Returns:
            (n, c, h, w) in [0, 1], within ``epsilon`` of ``images``.
        """
        if self.steps == 0 or self.epsilon == 0 or not len(images):
            return images.clone()
        clean_scores = scores_of(objective, images)
        size = (images.shape[2], images.shape[3])
        low, high = box(images, self.epsilon)
        attacked = images.clone()
        keys = noise.derive_seeds(seeds, "patterns")
        for step in range(self.steps):
            estimate = self._estimate(attacked, objective, noise.derive_seeds(keys, step))
            attacked.add_(tiled(estimate.sign_(), size), alpha=self.step_size)
            torch.clamp(attacked, low, high, out=attacked)
        better = scores_of(objective, attacked) > clean_scores
        return torch.where(better.view(-1, 1, 1, 1), attacked, images)

    def _estimate(self, images: Images, objective: Objective, keys: Seeds) -> Tensor:
        """What the gradient is a multiple of, about: (n, c, height, width) of a pattern."""
        channels, height, width = images.shape[1:]
        shape = (self.samples, channels, min(self.tile, height), min(self.tile, width))
        patterns = noise.normal(keys, shape).to(images)
        estimate = torch.zeros_like(patterns[:, 0])
        for sample in range(self.samples):
            change = tiled(patterns[:, sample], (height, width)) * self.sigma
            up = scores_of(objective, (images + change).clamp_(0.0, 1.0))
            down = scores_of(objective, (images - change).clamp_(0.0, 1.0))
            difference = (up - down).nan_to_num(0.0, 0.0, 0.0).to(patterns)
            estimate.addcmul_(patterns[:, sample], difference.view(-1, 1, 1, 1))
        return estimate
