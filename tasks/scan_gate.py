"""Limits that the suspects of a scan have to keep, and the last scan that they are compared with.

A scan has no specification to state requirements in. Its figures are rows like those of any run,
so that history, judgement and words are the same.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tasks.history import before, results_digest
from tasks.requirement_results import compared_with
from tasks.requirement_specs import NONE, SELECTORS, RequirementSpec
from tasks.requirements import judged, since

if TYPE_CHECKING:
    from storage.files import Place
    from tasks.scan_specs import ScanRequest

SCAN = "scan.json"
COUNT, SHARE = "suspects", "suspect_share"
LIMITS = {
    "max_suspects": (COUNT, "max"),
    "max_share": (SHARE, "max"),
    "max_drift": (SHARE, "drift"),
}
"""What each field of a request limits: a figure, and from which side."""


def as_run(content: dict[str, Any]) -> dict[str, Any]:
    """A scan as the summary of a run, whose rows are how many images are suspect and which share.

    Args:
        content: what ``scan.json`` holds.
    """
    images, suspects = content["images"], content["suspects"]
    values = {COUNT: float(suspects), SHARE: suspects / images}
    where = {**dict.fromkeys(SELECTORS, NONE), "knowledge": "", "ci_low": None, "ci_high": None}
    return {
        **{name: content[name] for name in ("name", "version", "device", "spec")},
        "dataset": {name: content[name] for name in ("path", "digest", "images", "rejected")},
        "model": None,
        "rows": [
            {**where, "metric": name, "value": value, "n": images} for name, value in values.items()
        ],
    }


def lying(folder: Place) -> dict[str, Any] | None:
    """The scan that lies in a folder as the summary of a run, None where none does."""
    try:
        return as_run(json.loads((folder / SCAN).read_bytes()))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def held(folder: Place, content: dict[str, Any], request: ScanRequest) -> dict[str, Any]:
    """Hold a finished scan against the limits of a request.

    Args:
        folder: of the scan.
        content: what ``scan.json`` holds.
        request: its limits.

    Returns:
        The summary of :func:`as_run` with ``requirements``, each with the ``field`` that states it,
        and ``last``, the last scan of that name that came to something else.
    """
    run = as_run(content)
    limits = {field: getattr(request, field) for field in LIMITS}
    stated = {field: limit for field, limit in limits.items() if limit is not None}
    specs = [
        RequirementSpec.model_validate({"metric": LIMITS[field][0], LIMITS[field][1]: limit})
        for field, limit in stated.items()
    ]
    last = next(before(folder, results_digest(run)), None)
    results = judged(specs, run["rows"], None if last is None else last[1]["rows"])
    named = [{**one, "field": field} for field, one in zip(stated, results, strict=True)]
    return {**run, "requirements": named, "last": compared_with(last)}


def missed(summary: dict[str, Any]) -> list[str]:
    """Every limit that a scan does not keep: field, value, limit, and the last scan."""
    return [
        f"{one['field']}: {row['metric']} of {row['n']} images: {'; '.join(row['misses'])}"
        f"{since(row)}"
        for one in summary["requirements"]
        for row in one["rows"]
        if not row["passed"]
    ]
