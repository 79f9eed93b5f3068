"""How many scores the query attacks of a specification may ask for, set for all of them at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from defender.purifiers.composition import is_composition, parse_composition
from tasks.building import parameter_fields
from tasks.errors import SpecError
from tasks.names import find
from tasks.precomputed import ATTACK_KINDS
from tasks.spec_files import override, read_content

BUDGETED = tuple(
    name
    for name, kind in ATTACK_KINDS.items()
    if kind.threat == "query" and "queries" in parameter_fields(kind)
)
"""The attacks that ask for scores only, and state how many."""


def query_changes(path: Path, assignments: Sequence[str], queries: int) -> list[str]:
    """What gives every query attack of a specification file a budget, as ``key=value``.

    Args:
        path: of the file.
        assignments: changes to it that come first.
        queries: scores asked for each image.

    Raises:
        SpecError: where it cannot be read, or has no such attack.
    """
    content = override(read_content(path), assignments)
    found = budget_changes(content, queries)
    if not found:
        raise SpecError(
            f"--query-budget: expected an attack that asks for scores only "
            f"({', '.join(sorted(BUDGETED))}) in {path}, found none"
        )
    return found


def budget_changes(content: Any, queries: int) -> list[str]:
    """The same for what a file holds; nothing where it has no such attack."""
    attacks = content.get("attacks") if isinstance(content, Mapping) else None
    found = []
    for position, entry in enumerate(attacks if isinstance(attacks, list) else ()):
        stated = {"name": entry} if isinstance(entry, str) else entry
        name = stated.get("name") if isinstance(stated, Mapping) else None
        if not isinstance(name, str):
            continue
        if not is_composition(name):
            if find(BUDGETED, name) is not None:
                found.append(f"attacks.{position}.queries={queries}")
        elif (inside := _one_line(name)) is not None:
            # the budget cannot stand beside parameters that are within the name
            spelled = {**stated, **inside, "queries": queries}
            found.append(f"attacks.{position}={json.dumps(spelled)}")
    return found


def _one_line(text: str) -> dict[str, Any] | None:
    """Name and parameters of a query attack such as ``square(8/255)``; None for anything else."""
    try:
        steps = parse_composition(text, ATTACK_KINDS, parameter_fields)
    except ValueError:
        return None
    name, parameters = steps[0]
    return {"name": name, **parameters} if len(steps) == 1 and name in BUDGETED else None
