"""The strengths that a run searched for its attacks, as its summary states them."""

from __future__ import annotations

from typing import Any

from storage.scores import read_rows
from tasks.survey import Survey


def strengths(state: Survey) -> list[dict[str, Any]]:
    """What was found for each attack that the specification gives a ``strength``.

    Args:
        state: a run in which the searches are done.

    Returns:
        By attack, in the order of the plan: its label ``attack``, the ``parameter`` that was
        searched with its ``unit`` and the ``value`` found, the mean largest change ``wanted`` and
        the one ``reached``, both in [0, 1], over so many ``images``, after so many ``tries``.

    Raises:
        DamagedChunk: where what was found cannot be read.
    """
    found = []
    for node in state.plan:
        if node.kind != "strength":
            continue
        (row,) = read_rows(state.bench.store.rows(state.done[(node.name, 0)].ref)).to_pylist()
        parameter = type(state.bench.attacks[node.position]).__dataclass_fields__[row["parameter"]]
        found.append(
            {
                "attack": node.attack,
                "parameter": row["parameter"],
                "unit": parameter.metadata.get("unit", ""),
                **{name: row[name] for name in ("value", "wanted", "reached", "images")},
                "tries": len(row["tries"]),
            }
        )
    return found
