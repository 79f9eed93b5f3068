"""Presets of purifiers in a specification: the strengths of a benchmark, by one name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from defender.purifiers.presets import PRESETS
from tasks.names import suggestion

FIELDS = ("preset", "strengths")
OF_PRIOR = ("prior", "weights", "prior_side", "size")
"""Fields beside a preset that asks a diffusion model: which one, and the size at which it sees."""


def expanded(entries: Any) -> Any:
    """Put in place of each preset of a list of purifiers what it stands for.

    ``{preset: jpeg}`` is the purifier at its usual strength, ``{preset: all}`` every one of
    them; with ``strengths: all`` they stand there at each strength. What needs a diffusion model
    takes it from the field ``prior`` beside it, and without one is no part of ``all``.

    Raises:
        ValueError: for a preset that does not exist, fields that it does not have or needs.
    """
    if not isinstance(entries, list | tuple):
        return entries
    made: list[Any] = []
    for entry in entries:
        if isinstance(entry, Mapping) and "preset" in entry:
            made += _preset(entry)
        else:
            made.append(entry)
    return made


def _preset(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    name, strengths = entry["preset"], entry.get("strengths", "default")
    if name not in ("all", *PRESETS):
        known = ", ".join(["all", *PRESETS])
        raise ValueError(
            f"preset: expected one of {known}, got {name!r}{suggestion(str(name), PRESETS)}"
        )
    if strengths not in ("default", "all"):
        raise ValueError(f"strengths: expected default or all, got {strengths!r}")
    stated = {key: value for key, value in entry.items() if key not in FIELDS}
    taken = OF_PRIOR if name == "all" or PRESETS[name]["needs"] else ()
    if unknown := set(stated) - set(taken):
        expected = ", ".join((*FIELDS, *taken))
        raise ValueError(f"{min(unknown)}: a preset has no such field; expected {expected}")
    needs = PRESETS[name]["needs"] if name != "all" else OF_PRIOR[:1] if stated else ()
    for needed in needs:
        if needed not in stated:
            raise ValueError(f"{needed}: expected a value beside preset {name}, got nothing")
    every = strengths == "all"
    return [
        one
        for chosen in (PRESETS if name == "all" else (name,))
        if set(PRESETS[chosen]["needs"]) <= set(stated)
        for one in _strengths(chosen, every, stated if PRESETS[chosen]["needs"] else {})
    ]


def _strengths(name: str, every: bool, stated: Mapping[str, Any]) -> list[dict[str, Any]]:
    preset = PRESETS[name]
    chosen = preset["values"] if every else (preset["values"][preset["default"]],)
    return [
        {
            "name": preset["purifier"],
            "label": " ".join([name, *(f"{key}={value:g}" for key, value in _numbers(values))]),
            **values,
            **stated,
        }
        for values in chosen
    ]


def _numbers(values: Mapping[str, Any]) -> list[tuple[str, float]]:
    """What tells the strengths of a preset apart: the last of its numbers."""
    numbers = [(key, value) for key, value in values.items() if isinstance(value, int | float)]
    return numbers[-1:]
