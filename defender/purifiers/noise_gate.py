"""Strong purification of those images alone in which a first purifier finds much to remove."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from defender.noise import derive_seeds
from defender.purifiers.several import Several
from defender.types import Images, Seeds, check_parameters, parameter


@dataclass(frozen=True)
class NoiseGate(Several):
    """Two purifiers, of which the second acts where the first has removed much.

    ``y = P(x)``, ``r = sqrt(mean((x - y)^2))`` over an image, ``w = clip((r - low) / (high - low),
    0, 1)``, and the result is ``(1 - w) y + w Q(y)``. A purifier that takes attacks off also takes
    details off images that nobody attacked; a first purifier that was trained to tell the two
    apart says by how much it changes an image which of them it is.

    Args:
        steps: P and Q; both keep the size.
        low: root mean square change by P up to which its result is taken as it is.
        high: change from which on all of Q's result is taken.

    Raises:
        TypeError: a step that is no purifier.
        ValueError: not two steps, one that changes the size, ``low`` not below ``high``.

    Source: none.
    Differs: none.
    """

    paper: ClassVar[str] = "none: the papers of its steps"

    steps: tuple[Any, ...] = parameter(doc="the purifier of all images and that of noisy ones")
    low: float = parameter(
        1.6 / 255, doc="change up to which the first suffices", low=0, high=1, unit="[0, 1], rms"
    )
    high: float = parameter(
        2.0 / 255, doc="change from which the second counts in full", low=0, high=1, unit="rms"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_parameters(self)
        if len(self.steps) != 2:
            raise ValueError(f"steps: expected two purifiers, got {len(self.steps)}")
        if not all(step.keeps_size for step in self.steps):
            raise ValueError(f"steps: expected purifiers that keep the size, got {self.steps!r}")
        if not self.low < self.high:
            raise ValueError(f"high: expected more than low, {self.low:g}, got {self.high:g}")

    def parts(
        self, images: Images, *, seeds: Seeds, reference: Images | None = None
    ) -> dict[str, Tensor]:
        """What each step made, and the mixture under ``"purified"``; arguments as for the call.

        Returns:
            The others under ``"first"`` and ``"second"``, images (n, c, h, w) in [0, 1].
        """
        mild, strong = self.steps
        first = mild(images, seeds=derive_seeds(seeds, "step 0"), reference=reference)
        second = strong(first, seeds=derive_seeds(seeds, "step 1"), reference=reference)
        # the smallest number keeps the gradient of the root finite where nothing was changed
        change = (images - first).square().mean(dim=(1, 2, 3)).clamp_min(1e-12).sqrt()
        weight = ((change - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
        mixed = torch.lerp(first, second, weight.view(-1, 1, 1, 1)).clamp(0.0, 1.0)
        return {"first": first, "second": second, "purified": mixed}
