"""The contracts that every algorithm of a kind fulfils, and the declaration of their parameters.

Images are float32 tensors (n, c, h, w) with values in [0, 1], RGB or grey. Scores are float
tensors (n,). Seeds are int64 tensors (n,), one an image, so that a result does not depend on how
images were batched.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from torch import Tensor

Images = Tensor
Scores = Tensor
Seeds = Tensor

Knowledge = Literal["blind", "pipeline", "model", "reference"]
Budget = Literal["linf", "l2", "patch", "scaling", "none"]
Threat = Literal[
    "none", "control", "oblivious", "grey", "bpda", "eot", "full-gradient", "query", "precomputed"
]


@runtime_checkable
class Objective(Protocol):
    """What the attacker wants: a score for each image, larger being better for the attacker."""

    def __call__(self, images: Images) -> Scores:
        """Score images (n, c, h, w); the result (n,) carries gradients where the model does."""
        ...


@runtime_checkable
class QualityMetric(Protocol):
    """Says how good an image looks, as one number."""

    @property
    def lower_is_better(self) -> bool:
        """Whether a smaller score means a better image."""
        ...

    @property
    def score_range(self) -> tuple[float, float]:
        """Scores of the worst and the best images in practice, the smaller number first."""
        ...

    @property
    def needs_reference(self) -> bool:
        """Whether it compares with the original image (full reference)."""
        ...

    def __call__(self, images: Images, reference: Images | None = None) -> Scores:
        """Score images (n, c, h, w) in [0, 1]; the result (n,) carries gradients."""
        ...


@runtime_checkable
class Attack(Protocol):
    """Changes images within a budget so that an objective rises."""

    version: ClassVar[int]
    paper: ClassVar[str]
    threat: ClassVar[Threat]

    @property
    def budget(self) -> Budget:
        """What bounds the change: a norm ball, a patch, a scaler, or nothing."""
        ...

    def __call__(self, images: Images, objective: Objective, *, seeds: Seeds) -> Images:
        """Return attacked images of the same shape, within [0, 1] and the budget."""
        ...


@runtime_checkable
class Detector(Protocol):
    """Says how suspicious an image is; thresholds are set elsewhere."""

    version: ClassVar[int]
    paper: ClassVar[str]

    @property
    def knowledge(self) -> Knowledge:
        """What the detector is told besides the image."""
        ...

    def __call__(self, images: Images, *, seeds: Seeds, reference: Images | None = None) -> Scores:
        """Return one score an image, larger meaning more suspicious."""
        ...

    def map(
        self, images: Images, *, seeds: Seeds, reference: Images | None = None
    ) -> Tensor | None:
        """Return where the image is suspicious, bool (n, c, h, w), or None if it cannot say."""
        ...


@runtime_checkable
class Purifier(Protocol):
    """Cleans images of what an attacker added."""

    paper: ClassVar[str]

    @property
    def version(self) -> int:
        """Whole number that is raised whenever results change; mostly a class variable."""
        ...

    @property
    def keeps_size(self) -> bool:
        """Whether results have the size of the images; mostly a class variable."""
        ...

    @property
    def knowledge(self) -> Knowledge:
        """What the purifier is told besides the image."""
        ...

    def __call__(self, images: Images, *, seeds: Seeds, reference: Images | None = None) -> Images:
        """Return purified images within [0, 1]."""
        ...

    def parts(
        self, images: Images, *, seeds: Seeds, reference: Images | None = None
    ) -> dict[str, Tensor]:
        """Return what a report shows, by name: masks (bool) and layers (floats in [0, 1]).

        The purified images are the entry ``"purified"``.
        """
        ...


def parameter(
    default: Any = dataclasses.MISSING,
    *,
    doc: str,
    low: float | None = None,
    high: float | None = None,
    open_low: bool = False,
    choices: tuple[str, ...] = (),
    unit: str = "",
) -> Any:
    """Declare a parameter of an algorithm: a dataclass field with its range and meaning.

    Args:
        default: value used when none is given; left out for a required parameter.
        doc: one line that says what the parameter does.
        low: inclusive lower bound of a number.
        high: inclusive upper bound of a number.
        open_low: ``low`` itself is excluded.
        choices: the allowed words of a text parameter.
        unit: unit of the number, for listings.
    """
    metadata = {
        "doc": doc,
        "low": low,
        "high": high,
        "open_low": open_low,
        "choices": choices,
        "unit": unit,
    }
    return dataclasses.field(default=default, metadata=metadata)


def range_text(field: dataclasses.Field[Any]) -> str:
    """The range of a declared parameter in words: ``[0, 1]``, ``> 0``, ``code | reference``."""
    meta = field.metadata
    if meta.get("choices"):
        return " | ".join(meta["choices"])
    low, high, open_low = meta.get("low"), meta.get("high"), meta.get("open_low")
    if low is not None and high is not None:
        return f"{'(' if open_low else '['}{low:g}, {high:g}]"
    if low is not None:
        return f"{'>' if open_low else '>='} {low:g}"
    return f"<= {high:g}" if high is not None else "any"


def check_parameters(instance: Any) -> None:
    """Check every declared parameter of a dataclass; call it from ``__post_init__``.

    Raises:
        TypeError: a number or text of the wrong type.
        ValueError: a value outside its declared range. Both name the parameter.
    """
    for field in dataclasses.fields(instance):
        if "doc" not in field.metadata:
            continue
        value: Any = getattr(instance, field.name)
        kind = str(field.type)
        if value is None and "None" in kind:
            continue
        expected = f"{field.name}: expected {range_text(field)}"
        if field.metadata["choices"]:
            if value not in field.metadata["choices"]:
                raise ValueError(f"{expected}, got {value!r}")
        elif kind.startswith("bool"):
            if not isinstance(value, bool):
                raise TypeError(f"{field.name}: expected true or false, got {value!r}")
        elif kind.startswith(("int", "float")):
            whole = kind.startswith("int")
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                word = "a whole number" if whole else "a number"
                raise TypeError(f"{field.name}: expected {word}, got {value!r}")
            low, high = field.metadata["low"], field.metadata["high"]
            if (
                not math.isfinite(value)
                or (low is not None and value < low)
                or (low is not None and field.metadata["open_low"] and value == low)
                or (high is not None and value > high)
            ):
                raise ValueError(f"{expected}, got {value!r}")
