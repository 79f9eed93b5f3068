"""How strong an attack must be set so that what it does has a wanted size.

Attacks are comparable when they change images by as much. Each one names the parameter that
decides how much, its ``strength``; :func:`calibrate` finds the value of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

AnyAttack = TypeVar("AnyAttack")

_NARROW = 1e-6
"""Relative width below which an interval of strengths holds no other strength to try."""


@dataclass(frozen=True)
class Calibration:
    """A strength and what it reaches.

    Args:
        value: the strength.
        reached: what was measured there.
        tries: every strength that was tried with what was measured there, in order.
    """

    value: float
    reached: float
    tries: tuple[tuple[float, float], ...]


class OutOfReach(ValueError):
    """No strength of the interval reaches the wanted value.

    Args:
        message: what was wanted and what was found.
        closest: the strength that came closest.
    """

    def __init__(self, message: str, closest: Calibration) -> None:
        super().__init__(message)
        self.closest = closest


def strength_name(attack: object) -> str:
    """Name of the parameter that decides how much an attack changes images.

    Raises:
        TypeError: for an attack that has none.
    """
    name = getattr(attack, "strength", None)
    if not isinstance(name, str):
        raise TypeError(f"expected an attack with a strength, got {attack!r}")
    return name


def with_strength(attack: AnyAttack, value: float) -> AnyAttack:
    """The same attack with another strength.

    Args:
        attack: a dataclass whose class variable ``strength`` names one of its parameters.
        value: of that parameter.

    Raises:
        TypeError: for an attack that has none.
        ValueError: a value outside the parameter's range.
    """
    changes: dict[str, Any] = {strength_name(attack): value}
    replaced: AnyAttack = dataclasses.replace(attack, **changes)  # type: ignore[type-var]
    return replaced


def calibrate(
    measure: Callable[[float], float],
    wanted: float,
    low: float,
    high: float,
    *,
    tolerance: float = 0.02,
    steps: int = 20,
) -> Calibration:
    """The strength at which a growing measure has a wanted value.

    Bisection of the logarithm of the strength, in turn with the strength that would do if the
    measure were proportional to it. The ends of the interval are measured only where that one
    lies beyond them.

    Args:
        measure: maps a strength to what it does, such as the mean linf distance of the stored
            images; growing, up to noise.
        wanted: the value that it should have, > 0.
        low: least strength, > 0.
        high: largest strength, > ``low``.
        tolerance: largest relative difference from ``wanted`` that counts as reached.
        steps: number of strengths to try, >= 1.

    Returns:
        The first strength that reaches ``wanted``.

    Raises:
        OutOfReach: where none was found: ``wanted`` lies outside of what the interval gives, or
            between two neighbouring values. The text and ``closest`` say what came closest.
        ValueError: arguments out of range, or a measure that is not a finite number.
    """
    if not 0 < low < high < math.inf:
        raise ValueError(f"low, high: expected 0 < low < high, got {low!r} and {high!r}")
    if not 0 < wanted < math.inf:
        raise ValueError(f"wanted: expected > 0, got {wanted!r}")
    if tolerance < 0 or steps < 1:
        raise ValueError(
            f"tolerance, steps: expected >= 0 and >= 1, got {tolerance!r} and {steps!r}"
        )
    ends, tries = (low, high), list[tuple[float, float]]()
    strength = math.sqrt(low * high)
    while True:
        reached = float(measure(strength))
        if not math.isfinite(reached):
            raise ValueError(f"measure: expected a finite number, got {reached} at {strength:g}")
        tries.append((strength, reached))
        if abs(reached - wanted) <= tolerance * wanted:
            return Calibration(strength, reached, tuple(tries))
        if reached < wanted:
            low = strength
        else:
            high = strength
        if len(tries) == steps or high <= low * (1 + _NARROW):
            raise _out_of_reach(wanted, ends, tolerance, tries)
        middle = math.sqrt(low * high)
        if len(tries) % 2 == 0 or reached <= 0:
            strength = middle
            continue
        strength *= wanted / reached
        if not low < strength < high:
            end = low if strength <= low else high
            strength = middle if end in (tried for tried, _ in tries) else end


def _out_of_reach(
    wanted: float,
    ends: tuple[float, float],
    tolerance: float,
    tries: list[tuple[float, float]],
) -> OutOfReach:
    strength, reached = min(tries, key=lambda one: abs(one[1] - wanted))
    message = (
        f"wanted: expected a value that a strength in [{ends[0]:g}, {ends[1]:g}] reaches within "
        f"{tolerance:.0%}, got {wanted:g}; the closest of {len(tries)} is {reached:g} at "
        f"{strength:g}"
    )
    return OutOfReach(message, Calibration(strength, reached, tuple(tries)))
