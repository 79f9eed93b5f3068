"""Purifiers one after the other, as one purifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from defender.noise import derive_seeds
from defender.purifiers.several import Several
from defender.types import Images, Seeds


@dataclass(frozen=True)
class Sequence(Several):
    """Each purifier works on what the one before it made.

    A step draws from seeds of its own, so that two of the same kind draw independently. All
    steps are given the reference, which has the size of the images before the first step.

    Args:
        steps: the purifiers in their order, at least one.

    Raises:
        TypeError: a step that is no purifier.
        ValueError: no steps.

    Source: none.
    Differs: none.
    """

    paper: ClassVar[str] = "none: the papers of its steps"

    def parts(
        self, images: Images, *, seeds: Seeds, reference: Images | None = None
    ) -> dict[str, Tensor]:
        """What each step made, the last one's under ``"purified"``; arguments as for the call.

        Returns:
            The others under ``"after 1: Median"`` and so on, images in [0, 1].
        """
        made: dict[str, Tensor] = {}
        for i, step in enumerate(self.steps):
            images = step(images, seeds=derive_seeds(seeds, f"step {i}"), reference=reference)
            last = i == len(self.steps) - 1
            made["purified" if last else f"after {i + 1}: {type(step).__name__}"] = images
        return made
