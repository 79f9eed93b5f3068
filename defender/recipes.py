"""Parameters that recipes of trainings got later, so that older trainings keep their names."""

from __future__ import annotations

from dataclasses import field, fields
from typing import Any


def later(default: Any) -> Any:
    """A parameter that older trainings did not have: their name does not tell its default."""
    return field(default=default, metadata={"later": True})


class Recipe:
    """The base of a frozen dataclass whose text names a training; give it ``repr=False``."""

    def __repr__(self) -> str:
        """The parameters as a call, without later ones that are at their default."""
        values = {f.name: (f, getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]
        told = (
            f"{name}={value!r}"
            for name, (f, value) in values.items()
            if value != f.default or not f.metadata.get("later")
        )
        return f"{type(self).__name__}({', '.join(told)})"
