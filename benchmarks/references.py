"""torchattacks' Auto-PGD and Square, with what they found kept, and as the papers have them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torchattacks
from torch import Tensor, nn

from defender import noise
from defender.attacks import Square as OurSquare


class APGD(torchattacks.APGD):
    """Theirs; ``found`` has the points of largest loss (n, c, h, w) and these losses (n,)."""

    def attack_single_run(self, x_in: Tensor, y_in: Tensor) -> Any:
        """One start."""
        result = super().attack_single_run(x_in, y_in)
        self.found = (result[0], result[2])
        return result


class PublishedAPGD(APGD):
    """Theirs with both conditions for halving as algorithm 1 of the paper has them.

    Their code takes a step as improving in the first period if its loss is above 0, where the
    paper compares the first with the start; it halves where exactly 75 % of the steps improved
    (``<=`` for ``<``); after going back to the best point it compares with the point left
    behind; and its second condition never holds at the first checkpoint.
    """

    labels: Tensor | None = None

    def attack_single_run(self, x_in: Tensor, y_in: Tensor) -> Any:
        """One start; the losses are noted call by call."""
        self.labels, self.losses, self.halved = y_in, list[Tensor](), torch.zeros(len(y_in)) > 0
        result = super().attack_single_run(x_in, y_in)
        self.labels = None
        return result

    def get_logits(self, inputs: Tensor, *arguments: Any, **options: Any) -> Tensor:
        """Ask the model."""
        logits = super().get_logits(inputs, *arguments, **options)
        if self.labels is not None:
            losses = nn.functional.cross_entropy(logits.detach(), self.labels, reduction="none")
            self.losses.append(losses)
        return logits

    def check_oscillation(self, x: Any, j: int, k: int, y5: Any, k3: float = 0.75) -> Any:
        """Whether each image halves its step after step ``j + 1``, ``k`` after the last check."""
        losses = torch.stack(self.losses)
        before, best = losses[: j + 2 - k].amax(0), losses.amax(0)
        seen = losses[j + 1 - k :].clone()
        seen[0] = torch.where(self.halved, before, seen[0])
        rises = (seen[1:] > seen[:-1]).sum(0)
        self.halved = (rises < k3 * k) | (~self.halved & (best == before))
        return self.halved.numpy()


class Square(torchattacks.Square):
    """Theirs; ``found`` has the last points (n, c, h, w)."""

    def attack_single_run(self, x: Tensor, y: Tensor) -> Any:
        """One start."""
        result = super().attack_single_run(x, y)
        self.found = result[1]
        return result


class SameSquares(Square):
    """Theirs with the stripes, sides, places and signs that ours draws from one seed.

    Args:
        attack: ours.
        key: the seed of every image.
        model: the classifier.
        options: theirs.
    """

    def __init__(self, attack: OurSquare, key: int, model: nn.Module, **options: Any) -> None:
        super().__init__(model, **options)
        self.ours, self.key = attack, torch.tensor([key])
        self.names: Iterator[str] = iter(())

    def attack_single_run(self, x: Tensor, y: Tensor) -> Any:
        """One start."""
        self.image = tuple(x.shape[1:])
        return super().attack_single_run(x, y)

    def p_selection(self, it: int) -> float:
        """The share that gives our side; begins the draws of a step."""
        _, height, width = self.image
        query = it + 2
        self.step = noise.derive_seeds(noise.derive_seeds(self.key, "square"), query)
        self.names = iter(("top", "left"))
        return self.ours.side(query - 2, height, width) ** 2 / (height * width)

    def random_int(self, low: int = 0, high: int = 1, shape: Any = (1,)) -> Tensor:
        """The next place, also the last one, which theirs never draws."""
        key = noise.derive_seeds(self.step, next(self.names))
        return low + noise.integers(key, high - low + 1)

    def random_choice(self, shape: list[int]) -> Tensor:
        """Signs (n, c, 1, w) of the stripes, or (c, 1, 1) of a square."""
        if len(shape) == 3:
            return noise.signs(self.step, shape[0]).view(shape)
        stripes = noise.signs(noise.derive_seeds(self.key, "stripes"), shape[1] * shape[3])
        return stripes.view(1, *shape[1:]).expand(shape)
