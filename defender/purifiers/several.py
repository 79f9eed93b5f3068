"""What purifiers that are made of others have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from defender.types import Knowledge, Purifier

_RANKS = get_args(Knowledge)


@dataclass(frozen=True)
class Several:
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
