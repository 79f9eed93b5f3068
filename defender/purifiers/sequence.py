"""Purifiers one after the other, as one purifier."""

from __future__ import annotations

from collections.abc import Iterator
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

    def __call__(self, images: Images, *, seeds: Seeds, reference: Images | None = None) -> Images:
        """Purify images.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            seeds: int64 (n,), from which those of the steps are derived.
            reference: the clean images, for steps that are told them.

        Returns:
            (n, c, height, width) in [0, 1]; h and w where :attr:`keeps_size`.
        """
        *_, (_, purified) = self._run(images, seeds, reference)
        return purified

    def parts(
        self, images: Images, *, seeds: Seeds, reference: Images | None = None
    ) -> dict[str, Tensor]:
        """What each step made, the last one's under ``"purified"``; arguments as for the call.

        Returns:
            The others under ``"after 1: Median"`` and so on, images in [0, 1].
        """
        made = dict(self._run(images, seeds, reference))
        *_, last = made
        return {"purified" if name == last else name: value for name, value in made.items()}

    def _run(
        self, images: Images, seeds: Seeds, reference: Images | None
    ) -> Iterator[tuple[str, Images]]:
        for i, step in enumerate(self.steps):
            images = step(images, seeds=derive_seeds(seeds, f"step {i}"), reference=reference)
            yield f"after {i + 1}: {type(step).__name__}", images
