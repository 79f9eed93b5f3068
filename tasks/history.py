"""What a run came to before: a small file for each result that another took the place of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from storage.files import remove, write_atomic
from storage.ledger import digest_of

if TYPE_CHECKING:
    from storage.files import Place

FOLDER = "history"
MOST = 200
"""Entries that are kept; older ones are removed."""
KEPT = ("name", "version", "model", "seed", "device", "thresholds", "spec", "rows", "requirements")


def results_digest(summary: dict[str, Any]) -> str:
    """Digest of what a run came to: its images, its model and its rows.

    A change of the specification that changes none of them makes no other result.
    """
    return digest_of([summary["dataset"]["digest"], summary["model"], summary["rows"]])


def finished_summary(folder: Place, files: dict[str, str] | None) -> dict[str, Any] | None:
    """The summary that lies in a run's folder, None where there is none or it is damaged.

    Args:
        folder: of the run.
        files: SHA-256 of its outputs by name where an index vouches for them.
    """
    try:
        content = (folder / "summary.json").read_bytes()
        summary = json.loads(content)
        results_digest(summary)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    stated = (files or {}).get("summary.json")
    if stated is not None and stated != hashlib.sha256(content).hexdigest():
        return None
    return dict(summary)


def entries(folder: Place) -> list[Place]:
    """The history of a run, the oldest first."""
    try:
        found: list[Place] = [*(folder / FOLDER).iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted((p for p in found if p.name.endswith(".json") and p.name[0] != "."), key=_name)


def _name(path: Place) -> str:
    return path.name


def read_entry(path: Place) -> dict[str, Any] | None:
    """An entry, None where it is damaged."""
    try:
        entry = json.loads(path.read_bytes())
        if entry.pop("check") != digest_of(entry):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return dict(entry)


def keep(folder: Place, summary: dict[str, Any]) -> None:
    """Put a summary whose place is about to be taken into the history, once.

    Raises:
        StoreError: where the store cannot be written.
    """
    listed, digest = entries(folder), results_digest(summary)
    newest = read_entry(listed[-1]) if listed else None
    if newest is not None and newest["digest"] == digest:
        return
    now = datetime.now(UTC)
    dataset = {name: one for name, one in summary["dataset"].items() if name != "classes"}
    entry = {
        "digest": digest,
        "replaced": now.isoformat(timespec="seconds"),
        "dataset": dataset,
        **{name: summary[name] for name in KEPT if name in summary},
    }
    stamp = f"{now:%Y-%m-%dT%H%M%S.%f}Z"
    content = json.dumps({**entry, "check": digest_of(entry)}, indent=1, allow_nan=False)
    write_atomic(folder / FOLDER / f"{stamp}-{digest[:8]}.json", content.encode())
    for old in listed[: max(0, len(listed) + 1 - MOST)]:
        remove(old)


def before(folder: Place, digest: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Earlier results of a run, the last first, each with its name.

    Args:
        folder: of the run.
        digest: of the present results, which do not count as earlier.
    """
    for path in reversed(entries(folder)):
        entry = read_entry(path)
        if entry is not None and entry["digest"] != digest:
            yield path.name, entry


def record(
    folder: Place, previous: dict[str, Any] | None, content: dict[str, Any]
) -> tuple[str, dict[str, Any]] | None:
    """Keep the previous summary if the new one is another result.

    Args:
        folder: of the run.
        previous: what :func:`finished_summary` found before the outputs were begun.
        content: the new summary.

    Returns:
        Name and content of the last run that came to another result, None where there is none.
    """
    digest = results_digest(content)
    if previous is not None and results_digest(previous) != digest:
        keep(folder, previous)
    return next(before(folder, digest), None)
