"""A user's file with the class ``Defense``, scored against every attack on a quality metric."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from flows.evaluate import prepare, run
from storage.files import store_root
from tasks.defence_scores import consistency, failures, result, spent, started
from tasks.defences import DefenceFile
from tasks.errors import SpecError

LABEL = "defense"
BASELINE = "half-size"
BASELINES = {BASELINE: "resize(0.5)"}
"""Baselines by name; any other text is a purifier as a specification writes it."""


@dataclass(frozen=True)
class Wanted:
    """What a defence is scored on, and what it may use.

    Args:
        dataset: folder, zip or Parquet file of images, or a folder with ``clean`` and attacked
            sub-folders; None for that of the specification.
        spec: specification with the data set, the metric and the attacks; None for the shipped one.
        metric: image-quality metric; None for that of the specification.
        baseline: what it is compared with.
        time_limit: seconds an image.
        memory_limit: megabytes of resident memory.
        parameter_limit: parameters of its networks; None for any number.
        resize: height and width that images are resized to; None keeps their size.
        changes: further changes to the specification, each ``key=value``.
    """

    dataset: Path | None = None
    spec: Path | None = None
    metric: str | None = None
    baseline: str = BASELINE
    time_limit: float = 10.0
    memory_limit: int = 4096
    parameter_limit: int | None = None
    resize: tuple[int, int] | None = None
    changes: list[str] = field(default_factory=list)


def score_defense(
    file: Path,
    store: str,
    wanted: Wanted,
    limit: int | None = None,
    *,
    wait: bool = True,
    on_wait: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Run a defence over every attack, killable and resumable like any run.

    Returns:
        Plain numbers: ``attacks`` by name with gain, quality, SRCC and status, ``mean``,
        ``baseline``, ``difference``, and what is known of the defence.

    Raises:
        DefenseError: where the file cannot be loaded.
        SpecError, ModelError, StorageError, BudgetError, SandboxError: saying what is wrong.
    """
    defence = DefenceFile(
        str(file.resolve()), wanted.time_limit, wanted.memory_limit, wanted.parameter_limit
    )
    known = started(defence, store_root(store))
    spec = str(wanted.spec) if wanted.spec is not None else str(_shipped())
    assignments = changes(file, wanted)
    outcome = run(spec, store, assignments, limit, wait=wait, on_wait=on_wait)
    ready = prepare(spec, store, assignments, limit)
    summary = outcome.summary
    if summary is None:
        summary = json.loads((outcome.folder / "summary.json").read_bytes())
    failed = failures(ready.state, LABEL)
    scored: dict[str, Any] = result(summary, LABEL, wanted.baseline, failed)
    told = spent(ready.state, LABEL)
    notes = dict.fromkeys([*told.pop("notes"), *consistency(ready.state, defence)])
    return {
        **scored,
        "defense": {**known, **told, "notes": list(notes)},
        "metric": summary["model"],
        "dataset": {k: summary["dataset"][k] for k in ("kind", "images", "rejected", "digest")},
        "report": str(outcome.folder / "report.html"),
        **({"missed": list(outcome.missed)} if outcome.missed else {}),
    }


def changes(file: Path, wanted: Wanted) -> list[str]:
    """What a defence changes in the specification: its purifiers, and what was asked for."""
    base = BASELINES.get(wanted.baseline, wanted.baseline)
    purifiers = [
        {"name": base, "label": wanted.baseline},
        {
            "name": "Defense",
            "label": LABEL,
            "path": str(file.resolve()),
            "time_limit": wanted.time_limit,
            "memory_limit": wanted.memory_limit,
            "parameter_limit": wanted.parameter_limit,
        },
    ]
    stated: dict[str, Any] = {
        "name": _name(file),
        "purifiers": purifiers,
        "detectors": [],
        "baseline": wanted.baseline,
    }
    if wanted.dataset is not None:
        stated |= _dataset(wanted.dataset.resolve())
    made = [f"{key}={json.dumps(value)}" for key, value in stated.items()]
    if wanted.metric is not None:
        made.append(f"metric={json.dumps({'name': wanted.metric})}")
    if wanted.resize is not None:
        made.append(f"dataset.resize={json.dumps(list(wanted.resize))}")
    return [*made, *wanted.changes]


def _shipped() -> Path:
    return Path(str(resources.files("flows").joinpath("specs", "score-defense.yaml")))


def _name(file: Path) -> str:
    stem = "".join(c if c.isalnum() or c in "._-" else "-" for c in file.resolve().stem)
    return f"score-{stem.strip('.-_') or 'defense'}"[:100]


def _dataset(path: Path) -> dict[str, Any]:
    """The data set at a path, and its attacks where it holds images that were attacked already.

    Raises:
        SpecError: where nothing usable lies there.
    """
    if path.is_dir() and (path / "clean").is_dir():
        folders = sorted(p.name for p in path.iterdir() if p.is_dir() and p.name != "clean")
        attacks = [{"name": "Precomputed", "folder": name, "label": name} for name in folders]
        return {"dataset": {"kind": "paired", "path": str(path)}, "attacks": attacks}
    if path.is_dir():
        return {"dataset": {"kind": "folder", "path": str(path)}}
    kinds = {".zip": "zip", ".parquet": "parquet"}
    if path.is_file() and path.suffix in kinds:
        return {"dataset": {"kind": kinds[path.suffix], "path": str(path)}}
    raise SpecError(f"--dataset: expected a folder, zip or Parquet file of images, got {path}")
