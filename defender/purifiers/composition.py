"""Purifiers as people write them in one line: ``median(3) > unsharp(amount=0.5)``."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from defender.spelling import folded, parse_number

Fields = Mapping[str, dataclasses.Field[Any]]

_STEP = re.compile(r"\s*([A-Za-z][\w -]*?)\s*(?:\((.*)\))?\s*", re.DOTALL)
_NAMED = re.compile(r"\s*([A-Za-z_]\w*)\s*=(.*)", re.DOTALL)
_WHOLE = re.compile(r"[+-]?\d+")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_WORD = re.compile(r"[A-Za-z0-9][\w.:-]*|[A-Za-z./][\w./:-]*")
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "none": None}


def is_composition(text: str) -> bool:
    """Whether a text is more than the name of one purifier."""
    return any(sign in text for sign in "()>") or len(averaged(text)) > 1


def averaged(text: str) -> list[str]:
    """The parts of a line between each two ``+`` that are not within parentheses."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign == "(") - (sign == ")")
        if sign == "+" and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def declared(kind: type) -> dict[str, dataclasses.Field[Any]]:
    """The declared parameters of an algorithm, by name."""
    return {f.name: f for f in dataclasses.fields(kind) if "doc" in f.metadata}


def parse_composition(
    text: str, registry: Mapping[str, type], fields_of: Callable[[type], Fields] = declared
) -> list[tuple[str, dict[str, Any]]]:
    """Read purifiers and their parameters from one line.

    Steps are separated by ``>`` and done from left to right. A step is a name, however spelled
    (``NonLocalMeans``, ``non-local-means``), with parameters in parentheses where wanted. A
    parameter is a number (``3``, ``0.5``, ``8/255``), ``true``, ``false``, ``none``, or a word,
    which may be a path without spaces. Those without ``name=`` go to the parameters that take
    such a value, in the order of the declaration: numbers to numbers, words to words.

    Args:
        text: such as ``median(3) > jpeg(quality=50)``.
        registry: the purifiers by name, dataclasses with declared parameters.
        fields_of: the parameters that may be given for a purifier, by name.

    Returns:
        Registered name and parameters of each step.

    Raises:
        ValueError: naming the part of the text that cannot be read.
    """
    known = {folded(name): name for name in registry}
    steps = []
    for part in text.split(">"):
        match = _STEP.fullmatch(part)
        if match is None or "(" in (match[2] or "") or ")" in (match[2] or ""):
            raise ValueError(
                f"{text!r}: expected a purifier such as median(3) between each two '>', "
                f"got {part.strip()!r}"
            )
        name = known.get(folded(match[1]))
        if name is None:
            raise ValueError(
                f"{text!r}: expected one of {', '.join(sorted(registry))}, got {match[1]!r}"
            )
        try:
            steps.append((name, _parameters(match[2] or "", fields_of(registry[name]))))
        except ValueError as error:
            raise ValueError(f"{text!r}: {part.strip()!r}: {error}") from None
    return steps


def _parameters(text: str, fields: Fields) -> dict[str, Any]:
    """The parameters of one step by name, from what is between its parentheses."""
    values: dict[str, Any] = {}
    for part in text.split(",") if text.strip() else []:
        match = _NAMED.fullmatch(part)
        value = _value(part if match is None else match[2])
        if match is None:
            name = next((n for n, f in fields.items() if n not in values and _takes(f, value)), "")
        else:
            name = match[1]
        if name not in fields:
            expected = f"one of {', '.join(fields)}" if fields else "no parameters"
            raise ValueError(f"expected {expected}, got {part.strip()!r}")
        if name in values:
            raise ValueError(f"{name}: expected one value, got another: {part.strip()!r}")
        values[name] = value
    return values


def _takes(field: dataclasses.Field[Any], value: Any) -> bool:
    """Whether a parameter is of the kind of a value that was written without a name."""
    kind = str(field.type)
    if isinstance(value, bool):
        return kind.startswith("bool")
    if isinstance(value, int | float):
        return kind.startswith(("int", "float"))
    return kind.startswith("str") if value is not None else "None" in kind


def _value(text: str) -> Any:
    """A number, a truth value, None or a word."""
    word = text.strip()
    if _WHOLE.fullmatch(word):
        return int(word)
    if _NUMBER.fullmatch(word):
        return float(word)
    if not isinstance(number := parse_number(word), str):
        return number
    if word.lower() in _WORDS:
        return _WORDS[word.lower()]
    if _WORD.fullmatch(word):
        return word
    raise ValueError(f"expected a number, a fraction or a word, got {word!r}")
