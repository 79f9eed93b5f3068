"""The mean of what several purifiers make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from defender.noise import derive_seeds
from defender.purifiers.several import Several
from defender.types import Images, Seeds


@dataclass(frozen=True)
class Average(Several):
    """The mean of what purifiers make of an image, each for itself.

    Purifiers err in different places: their mean is nearer to the clean image than most of them.
    Each draws from seeds of its own. What another size came out of is first resized to that of
    the image (bilinear, antialiased).

    Args:
        steps: the purifiers, at least one.

    Raises:
        TypeError: a step that is no purifier.
        ValueError: no steps.

    Source: none.
    Differs: none.
    """

    paper: ClassVar[str] = "none: the papers of its steps"

    @property
    def keeps_size(self) -> bool:
        """True: what has another size is resized."""
        return True

    def parts(
        self, images: Images, *, seeds: Seeds, reference: Images | None = None
    ) -> dict[str, Tensor]:
        """What each step made, and the mean under ``"purified"``; arguments as for the call.

        Returns:
            The others under ``"1: Median"`` and so on, images (n, c, h, w) in [0, 1].
        """
        size, made = (int(images.shape[2]), int(images.shape[3])), {}
        for i, step in enumerate(self.steps):
            part = step(images, seeds=derive_seeds(seeds, f"step {i}"), reference=reference)
            if part.shape[2:] != images.shape[2:]:
                part = functional.interpolate(part, size, mode="bilinear", antialias=True)
            made[f"{i + 1}: {type(step).__name__}"] = part
        mean = torch.stack(list(made.values())).mean(dim=0).clamp(0.0, 1.0)
        return {**made, "purified": mean}
