"""Images made smaller at random and put on a black ground of their old size."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from defender.gradients import Averaged
from defender.noise import derive_seeds, uniform
from defender.types import Images, Objective, Scores, Seeds


def resized_and_padded(
    images: Images, seeds: Seeds, probability: float = 0.5, smallest: float = 0.9
) -> Images:
    """Each image resized (bilinear) to a random share of its size, at a random place on black.

    Args:
        images: (n, c, h, w).
        seeds: int64 (n,); chance, size and place of an image are drawn from its own.
        probability: chance that an image changes at all, [0, 1].
        smallest: least share of height and width, (0, 1]; sizes are uniform from it to 1, the
            same share in both directions, and at least 1 pixel.

    Returns:
        (n, c, h, w); gradients pass, by products of matrices, which are the same in every run.
    """
    height, width = images.shape[2:]
    chance, share, top, left = uniform(derive_seeds(seeds, "diversity"), (4,)).unbind(dim=1)
    share = torch.where(chance < probability, smallest + (1 - smallest) * share, 1.0)
    vertical = _lines(height, share, top).to(images)
    horizontal = _lines(width, share, left).to(images)
    return vertical.unsqueeze(1) @ images @ horizontal.mT.unsqueeze(1)


def _lines(size: int, share: Tensor, place: Tensor) -> Tensor:
    """The matrices (n, size, size) that resize a line to a share of it and place it on zeros.

    Args:
        size: pixels of a line.
        share: (n,), share of the size, rounded to pixels.
        place: (n,) in [0, 1), where in the room that is left.
    """
    length = (share * size).round().clamp_(1, size).view(-1, 1)
    start = (place.view(-1, 1) * (size - length + 1)).floor()
    pixels = torch.arange(size, device=share.device, dtype=share.dtype)
    inside = (pixels >= start) & (pixels < start + length)
    source = ((pixels - start + 0.5) * (size / length) - 0.5).clamp(0, size - 1)
    weights = (1 - (source.unsqueeze(2) - pixels).abs()).clamp_min_(0)
    return weights * inside.unsqueeze(2)


@dataclass(frozen=True, eq=False)
class Diverse:
    """An objective that sees images only after :func:`resized_and_padded`.

    Args:
        objective: what scores them.
        seeds: int64 (n,), one an image.
        probability: chance that an image changes.
        smallest: least share of its size.
    """

    objective: Objective
    seeds: Seeds = field(repr=False)
    probability: float
    smallest: float

    @property
    def draws(self) -> int:
        """Number of draws of the objective, 1 where it has none."""
        return self.objective.draws if isinstance(self.objective, Averaged) else 1

    def __call__(self, images: Images) -> Scores:
        """Score (n,) of the changed images."""
        return self.objective(self._changed(images))

    def score_of_draw(self, draw: int, images: Images) -> Scores:
        """Score (n,) of one draw of the objective."""
        if not isinstance(self.objective, Averaged):
            return self(images)
        return self.objective.score_of_draw(draw, self._changed(images))

    def _changed(self, images: Images) -> Images:
        return resized_and_padded(images, self.seeds, self.probability, self.smallest)
