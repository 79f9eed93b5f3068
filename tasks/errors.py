"""Errors that tell the user what to change, each one sentence."""

from __future__ import annotations

from typing import Any


class SpecError(ValueError):
    """A specification that cannot be run; the text names the field and what was expected."""


class ModelError(ValueError):
    """A model that cannot be built or whose weights do not fit."""


class BudgetError(RuntimeError):
    """A run that would need more memory or disk than there is."""


class RequirementError(RuntimeError):
    """A run whose figures break what its specification requires; everything else went well.

    Args:
        message: names every requirement, value and limit.
        outcome: what the run came to.
    """

    def __init__(self, message: str, outcome: Any = None) -> None:
        super().__init__(message)
        self.outcome = outcome


class DefenseError(ValueError):
    """A file that holds no usable defence; the text names the file and what was expected."""


class SandboxError(RuntimeError):
    """A system on which code that nobody vouches for cannot be locked up."""
