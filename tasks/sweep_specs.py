"""Specifications of sweeps: a run, and the purifiers among which the best are to be found."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from defender.metrics import METRICS
from defender.spelling import parse_number
from tasks.names import suggestion
from tasks.spec_files import override, parse, read_content
from tasks.specs import PurifierSpec, Spec
from tasks.subject_specs import Strict

Value = bool | int | float | str
PLACE = re.compile(r"\{([A-Za-z_]\w*)\}")
"""A parameter within a template: ``{window}``."""
CLEAN = "clean_"
"""Prefix of what is measured on images that nobody attacked."""
OF_METRIC = ("gain", "quality", "srcc")
OF_MODEL = ("accuracy", "label_recovery")
"""What a sweep measures, as a mean over the attacks, and with the prefix on clean images."""
NAMES = tuple(f"{prefix}{name}" for prefix in ("", CLEAN) for name in (*OF_METRIC, *OF_MODEL))
CANDIDATE = "candidate"
"""Label of the purifier that a trial tries."""


def lower_is_better(name: str) -> bool:
    """Which direction of an objective is better for the defender."""
    return METRICS[name.removeprefix(CLEAN)].better == "lower"


def text_of(value: Value) -> str:
    """A parameter's value as a composition writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.10g}" if isinstance(value, float) else str(value)


class RangeSpec(Strict):
    """The values of a parameter: numbers between two bounds, or a list of choices."""

    low: int | float | None = None
    high: int | float | None = None
    step: int | float | None = Field(default=None, gt=0, description="none: any number between")
    log: bool = Field(default=False, description="draw the logarithm evenly")
    choices: tuple[Value, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"choices": value} if isinstance(value, list | tuple) else value

    @field_validator("low", "high", "step", mode="before")
    @classmethod
    def _fraction(cls, value: Any) -> Any:
        return parse_number(value)

    @field_validator("choices")
    @classmethod
    def _different(cls, value: tuple[Value, ...]) -> tuple[Value, ...]:
        texts = [text_of(one) for one in value]
        if len(set(texts)) < len(texts):
            raise ValueError(f"expected different choices, got {list(value)}")
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> RangeSpec:
        if self.choices:
            if self.model_fields_set != {"choices"}:
                raise ValueError("expected either choices or low and high, got both")
            return self
        if self.low is None or self.high is None:
            raise ValueError("expected low and high, or a list of choices")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"expected low < high, got low {self.low} and high {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log: expected low > 0 and no step")
        if self.step is not None and self._steps().denominator != 1:
            raise ValueError(
                f"expected high to be low and a whole number of steps of {self.step}, got "
                f"low {self.low} and high {self.high}"
            )
        return self

    def _steps(self) -> Fraction:
        """How often the step fits between the bounds, as they are written in decimals."""
        low, high, step = (Fraction(str(one)) for one in (self.low, self.high, self.step))
        return (high - low) / step

    @property
    def whole(self) -> bool:
        """Whether the values are whole numbers."""
        return all(isinstance(one, int) for one in (self.low, self.high, self.step or 1))

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest number; (NaN, NaN) of choices."""
        if self.low is None or self.high is None:
            return math.nan, math.nan
        return self.low, self.high

    @property
    def count(self) -> float:
        """How many different values there are."""
        low, high = self.bounds
        if self.choices:
            return len(self.choices)
        if self.step is not None:
            return int(self._steps()) + 1
        return high - low + 1 if self.whole else math.inf

    def values(self, most: int) -> Iterator[Value]:
        """All values in order; of a continuous range, or where there are too many, the bounds.

        Args:
            most: values, at most.
        """
        low, high = self.bounds
        if self.choices:
            yield from self.choices
        elif self.count > most:
            yield from (self.number(low), self.number(high))
        else:
            step = self.step or 1
            yield from (self.number(low + i * step) for i in range(int(self.count)))

    def number(self, value: float) -> int | float:
        """A number of the range that can be written down: on a step, or with four digits."""
        if self.whole:
            return round(value)
        low, high = self.bounds
        if self.step is not None:
            start, step = Fraction(str(low)), Fraction(str(self.step))
            return float(start + round((Fraction(value) - start) / step) * step)
        return min(max(float(f"{value:.4g}"), float(low)), float(high))


@dataclass(frozen=True)
class Candidate:
    """A purifier of the space.

    Args:
        template: what it was made from.
        parameters: the values that were put in.
    """

    template: str
    parameters: Mapping[str, Value]

    @property
    def text(self) -> str:
        """The purifier as a specification writes it."""
        return PLACE.sub(lambda place: text_of(self.parameters[place[1]]), self.template)


class SearchSpec(Strict):
    """Among which purifiers the best are searched, how, and what is best."""

    trials: int = Field(ge=1, le=100_000, description="different purifiers that are tried")
    seed: int = Field(default=0, ge=0, lt=1 << 31, description="seed of the search")
    sampler: Literal["tpe", "nsga2", "random"] = "tpe"
    space: tuple[str, ...] = Field(min_length=1, description="templates of purifiers")
    ranges: dict[str, RangeSpec] = Field(default={}, validate_default=True)
    objectives: tuple[str, ...] = Field(default=(), max_length=3)
    constraints: dict[str, float] = Field(default={}, description="bounds that must be kept")
    keep_images: bool = Field(default=True, description="keep the purified images of trials")

    @field_validator("space")
    @classmethod
    def _templates(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for template in value:
            if value.count(template) > 1:
                raise ValueError(f"expected every template once, got {template!r} twice")
            if any(sign in PLACE.sub("", template) for sign in "{}"):
                raise ValueError(f"expected parameters such as {{window}}, got {template!r}")
        return value

    @field_validator("ranges")
    @classmethod
    def _for_the_space(
        cls, value: dict[str, RangeSpec], info: ValidationInfo
    ) -> dict[str, RangeSpec]:
        space = info.data.get("space")
        if space is None:
            return value
        used = dict.fromkeys(name for template in space for name in PLACE.findall(template))
        for name in used:
            if name not in value:
                raise ValueError(f"expected a range for {{{name}}}{suggestion(name, value)}")
        for name in value:
            if name not in used:
                raise ValueError(f"expected ranges of parameters of the space, got {name!r}")
        return value

    @field_validator("objectives", "constraints")
    @classmethod
    def _known(cls, value: Any) -> Any:
        for name in value:
            if name not in NAMES:
                raise ValueError(
                    f"expected names among {', '.join(NAMES)}, got {name!r}"
                    f"{suggestion(name, NAMES)}"
                )
            if list(value).count(name) > 1:
                raise ValueError(f"expected every name once, got {name!r} twice")
        return value

    @field_validator("constraints")
    @classmethod
    def _finite(cls, value: dict[str, float]) -> dict[str, float]:
        for name, bound in value.items():
            if not math.isfinite(bound):
                raise ValueError(f"expected a finite bound of {name}, got {bound}")
        return value

    def ranges_of(self, template: str) -> dict[str, RangeSpec]:
        """The ranges of a template's parameters, in the order in which it names them."""
        return {name: self.ranges[name] for name in dict.fromkeys(PLACE.findall(template))}

    @property
    def size(self) -> float:
        """How many different purifiers the space holds."""
        return sum(
            math.prod(one.count for one in self.ranges_of(template).values())
            for template in self.space
        )

    def probes(self, template: str, most: int = 256) -> Iterator[Candidate]:
        """Purifiers that show whether a template can be built all over its space.

        All of them where they are few; else each value of each parameter, the others at their
        first; of a continuous parameter the bounds.

        Args:
            template: one of the space.
            most: how many count as few.
        """
        ranges = self.ranges_of(template)
        lists = {name: list(one.values(most)) for name, one in ranges.items()}
        if math.prod(len(values) for values in lists.values()) <= most:
            for drawn in product(*lists.values()):
                yield Candidate(template, dict(zip(lists, drawn, strict=True)))
            return
        first = {name: values[0] for name, values in lists.items()}
        for name, values in lists.items():
            yield from (Candidate(template, {**first, name: value}) for value in values)


class SweepSpec(Spec):
    """A whole sweep: the run that every trial is, and the search."""

    sweep: SearchSpec

    @field_validator("detectors", "metrics", "examples", "calibration", "baseline", "require")
    @classmethod
    def _of_runs_only(cls, value: Any) -> Any:
        raise ValueError(f"a sweep has no such field; expected none, got {value!r}")

    @property
    def measured(self) -> tuple[str, ...]:
        """What is measured of every purifier."""
        return OF_METRIC if self.metric is not None else OF_MODEL

    @property
    def objectives(self) -> tuple[str, ...]:
        """What is searched for: as stated, or what fits a metric or a model."""
        if self.sweep.objectives:
            return self.sweep.objectives
        return ("gain", "quality") if self.metric is not None else ("accuracy", "clean_accuracy")

    def run(self, purifier: str | None = None) -> Spec:
        """The run without the search.

        Args:
            purifier: what a trial tries beside the purifiers of the specification.
        """
        fields: dict[str, Any] = {name: getattr(self, name) for name in Spec.model_fields}
        if purifier is not None:
            tried = PurifierSpec(name=purifier, label=CANDIDATE)
            fields["purifiers"] = (*self.purifiers, tried)
        return Spec(**{**fields, "metrics": self.measured})


def load_sweep_spec(
    path: Path, assignments: Sequence[str] = (), limit: int | None = None
) -> SweepSpec:
    """Read, override and validate the specification file of a sweep.

    Raises:
        SpecError: naming the file, the field and what was expected.
    """
    content = override(read_content(path), assignments)
    if limit is not None:
        content = override(content, [f"dataset.limit={limit}"])
    return parse(SweepSpec, content, str(path))
