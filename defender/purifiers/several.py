"""What purifiers that are made of others have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, get_args

from torch import Tensor

from defender.types import Images, Knowledge, Purifier, Seeds

_RANKS = get_args(Knowledge)


@dataclass(frozen=True)
class Several(ABC):
    """Several purifiers.

    Args:
        steps: the purifiers in their order, at least one.

    Raises:
        TypeError: a step that is no purifier.
        ValueError: no steps.
    """

    steps: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.steps:
            raise ValueError("steps: expected at least one purifier, got none")
        for step in self.steps:
            if isinstance(step, type) or not isinstance(step, Purifier):
                raise TypeError(f"steps: expected purifiers, got {step!r}")

    def __call__(self, images: Images, *, seeds: Seeds, reference: Images | None = None) -> Images:
        """Purify images.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            seeds: int64 (n,), from which those of the steps are derived.
            reference: the clean images, for steps that are told them.

        Returns:
            (n, c, height, width) in [0, 1]; h and w where :attr:`keeps_size`.
        """
        return self.parts(images, seeds=seeds, reference=reference)["purified"]

    @abstractmethod
    def parts(
        self, images: Images, *, seeds: Seeds, reference: Images | None = None
    ) -> dict[str, Tensor]:
        """What the purifiers made; what comes of them all is under ``"purified"``."""

    @property
    def version(self) -> int:
        """Grows whenever a step's version does: ``repr`` holds the steps but not their versions."""
        return 1 + sum(int(step.version) - 1 for step in self.steps)

    @property
    def keeps_size(self) -> bool:
        """Whether every step keeps the size."""
        return all(step.keeps_size for step in self.steps)

    @property
    def knowledge(self) -> Knowledge:
        """That of the step that is told most."""
        known: Knowledge = max((step.knowledge for step in self.steps), key=_RANKS.index)
        return known
