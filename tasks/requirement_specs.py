"""What a specification may require of the figures of its run."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, field_validator

from defender.spelling import parse_number
from tasks.subject_specs import Strict

ANY, NONE = "any", "none"
Chosen = tuple[str, ...] | None
SELECTORS = ("attack", "purifier", "detector", "policy")


class RequirementSpec(Strict):
    """Limits that every row of the summary keeps which the fields in front of them choose.

    A field takes a label, a list of labels, ``none``, or ``any`` (also ``*``): every label, though
    not ``none``. What an omitted field means is said in :func:`tasks.requirements.chosen`.
    """

    metric: str = Field(description="metric of the rows")
    attack: Chosen = Field(default=None, description="labels of attacks")
    purifier: Chosen = Field(default=None, description="labels of purifiers")
    detector: Chosen = Field(default=None, description="labels of detectors")
    policy: Chosen = Field(default=None, description="what is done with what a detector flags")
    min: float | None = Field(default=None, description="least value")
    max: float | None = Field(default=None, description="largest value")
    drift: float | None = Field(
        default=None, ge=0, description="largest difference to the last run, up or down"
    )
    bound: Literal["value", "ci"] = Field(
        default="value",
        description="what min and max are compared with: the value, or the end of its 95 % "
        "interval that is nearer to breaking them",
    )

    @field_validator("attack", "purifier", "detector", "policy", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = (value,)
        if isinstance(value, list | tuple):
            if not value:
                raise ValueError("expected a label or a list of labels, got an empty list")
            return tuple(ANY if one == "*" else one for one in value)
        return value

    @field_validator("min", "max", "drift", mode="before")
    @classmethod
    def _fraction(cls, value: Any) -> Any:
        return parse_number(value)

    @field_validator("min", "max", "drift")
    @classmethod
    def _finite(cls, value: float | None) -> float | None:
        if value is not None and not math.isfinite(value):
            raise ValueError(f"expected a finite number, got {value}")
        return value
