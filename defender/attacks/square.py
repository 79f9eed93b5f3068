"""The Square attack: random square patches, accepted where the score rises; no gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from defender import noise
from defender.norms import box
from defender.types import Budget, Images, Objective, Seeds, Threat, check_parameters, parameter

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclass(frozen=True)
class Square:
    """Random search with square patches of +-epsilon in the linf ball, from scores alone.

    The start adds vertical stripes of +-epsilon. A step proposes, for each image, one square of
    side ``round(sqrt(p h w))`` at a random place with one random sign a channel, and keeps it
    where the score rises. The area share ``p`` is ``p_init``, halved after 10, 50, 200, 500,
    1000, 2000, 4000, 6000 and 8000 ten-thousandths of the budget.

    Args:
        epsilon: radius of the linf ball, in [0, 1] units; 0 returns the images.
        queries: scores asked for each image, the clean image's and the start's included; below 2
            the images are returned.
        p_init: share of the image that the first squares cover, (0, 1].

    Raises:
        ValueError: scores that are not one an image.

    Source: M. Andriushchenko, F. Croce, N. Flammarion, M. Hein, "Square Attack: a query-efficient
    black-box adversarial attack via random search", 2020, arXiv 1912.00049, algorithms 1 and 2.
    Differs: the objective is the score, where the paper uses the margin loss; no image stops
    early, so the result does not depend on batch mates; a proposal that changes nothing is not
    drawn again; the clean image is kept if nothing scored higher.
    """

    version: ClassVar[int] = 2
    paper: ClassVar[str] = (
        "M. Andriushchenko, F. Croce, N. Flammarion, M. Hein, Square Attack: a query-efficient "
        "black-box adversarial attack via random search, 2020, arXiv 1912.00049"
    )
    budget: ClassVar[Budget] = "linf"
    threat: ClassVar[Threat] = "query"
    strength: ClassVar[str] = "epsilon"

    epsilon: float = parameter(
        doc="radius of the linf ball", low=0, high=1, unit="[0, 1] intensity"
    )
    queries: int = parameter(5000, doc="scores asked for each image", low=0)
    p_init: float = parameter(
        0.8, doc="share of the image that the first squares cover", low=0, high=1, open_low=True
    )

    def __post_init__(self) -> None:
        check_parameters(self)

    @torch.no_grad()
    def __call__(self, images: Images, objective: Objective, *, seeds: Seeds) -> Images:
        """Attack images.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            objective: what to raise; it needs no gradient.
            seeds: int64 (n,); stripes and squares are drawn from them.

        Returns:
            (n, c, h, w) in [0, 1], within ``epsilon`` of ``images``.
        """
        if self.queries < 2 or self.epsilon == 0 or not len(images):
            return images.clone()
        clean_scores = scores_of(objective, images)
        n, channels, height, width = images.shape
        low, high = box(images, self.epsilon)
        places = noise.derive_seeds(seeds, "square")
        stripes = noise.signs(noise.derive_seeds(seeds, "stripes"), channels * width)
        best = images.clone()
        best.add_(stripes.view(n, channels, 1, width).to(images), alpha=self.epsilon)
        torch.clamp(best, low, high, out=best)
        best_scores = scores_of(objective, best)
        rows = torch.arange(height, device=images.device)
        columns = torch.arange(width, device=images.device)
        for query in range(2, self.queries):
            keys = noise.derive_seeds(places, query)
            side = self.side(query - 2, height, width)
            top = noise.integers(noise.derive_seeds(keys, "top"), height - side + 1)
            left = noise.integers(noise.derive_seeds(keys, "left"), width - side + 1)
            sign = noise.signs(keys, channels).to(images).view(n, channels, 1, 1)
            inside = _span(rows, top, side).unsqueeze(2) & _span(columns, left, side).unsqueeze(1)
            proposal = torch.where(sign > 0, high, low)
            proposal = torch.where(inside.unsqueeze(1), proposal, best)
            scores = scores_of(objective, proposal)
            better = scores > best_scores
            torch.where(better.view(-1, 1, 1, 1), proposal, best, out=best)
            torch.where(better, scores, best_scores, out=best_scores)
        worse = best_scores < clean_scores
        return torch.where(worse.view(-1, 1, 1, 1), images, best)

    def side(self, number: int, height: int, width: int) -> int:
        """Side in pixels of the squares of a proposal, 1 to the shorter side of the image.

        Args:
            number: of the proposal, from 0; the clean image and the stripes, which cost a query
                each, are none.
            height: of the image.
            width: of the image.
        """
        progress = int(number / max(1, self.queries - 2) * 10_000)
        share = self.p_init / 2 ** sum(progress > limit for limit in _HALVINGS)
        side = round(math.sqrt(share * height * width))
        return min(max(side, 1), height, width)


def _span(positions: Tensor, start: Tensor, length: int) -> Tensor:
    """Which positions (m,) lie in [start, start + length), for each image: bool (n, m)."""
    offset = positions.unsqueeze(0) - start.unsqueeze(1)
    return (offset >= 0) & (offset < length)


def scores_of(objective: Objective, images: Images) -> Tensor:
    """Ask for the scores (n,) of images (n, c, h, w).

    Raises:
        ValueError: where the answer is not one score an image, naming the objective.
    """
    scores = objective(images)
    if scores.shape != (len(images),):
        raise ValueError(
            f"expected one score an image ({len(images)},), got {tuple(scores.shape)} "
            f"from {objective!r}"
        )
    return scores
