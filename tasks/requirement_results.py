"""What a run's summary says of its requirements, the last run beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tasks.history import record
from tasks.requirement_specs import RequirementSpec
from tasks.requirements import judged

if TYPE_CHECKING:
    from storage.files import Place


def requirement_results(
    folder: Place,
    previous: dict[str, Any] | None,
    content: dict[str, Any],
    require: Sequence[RequirementSpec],
) -> dict[str, Any]:
    """Keep the last run's figures, and hold the new ones against what is required.

    Args:
        folder: of the run.
        previous: summary that lies there, as :func:`tasks.history.finished_summary` found it.
        content: the new summary.
        require: of its specification.

    Returns:
        ``requirements``, and ``last``: name, replacement date, and digests of data set and model of
        the run that they are compared with, None where there is none. Nothing where nothing is
        required.

    Raises:
        StoreError: where the store cannot be written.
    """
    found = record(folder, previous, content)
    if not require:
        return {}
    rows = None if found is None else found[1]["rows"]
    judgement = judged(require, content["rows"], rows)
    return {"requirements": judgement, "last": compared_with(found)}


def compared_with(found: tuple[str, dict[str, Any]] | None) -> dict[str, Any] | None:
    """What is said of the run that another one is compared with.

    Args:
        found: name and content of its entry in the history, None where there is none.
    """
    if found is None:
        return None
    name, entry = found
    return {
        "name": name,
        "replaced": entry["replaced"],
        "dataset": entry["dataset"]["digest"],
        "model": entry["model"],
    }
