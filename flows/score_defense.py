"""A user's file with the class ``Defense``, scored against every attack on a quality metric."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from flows.evaluate import prepare, read_spec, run
from storage.files import store_root
from storage.sources import Paired, Zip
from tasks.building import build
from tasks.defence_scores import CLEAN, consistency, failures, result, spent, started
from tasks.defences import PURIFIER_KINDS, DefenceFile
from tasks.errors import SpecError
from tasks.query_budget import budget_changes
from tasks.spec_files import override, read_content
from tasks.specs import PurifierSpec

LABEL = "defense"
BASELINE = "half-size"
BASELINES = {BASELINE: "resize(0.5)"}
"""Baselines by name; any other text is a purifier as a specification writes it."""
SHIPPED = Path(str(resources.files("flows").joinpath("specs", "score-defense.yaml")))
"""The data set, metric and attacks where nothing else is stated."""
QUERY_ATTACKS: dict[str, dict[str, Any]] = {
    "square": {"name": "Square", "epsilon": "10/255", "p_init": 0.05},
    "nes": {"name": "NES", "epsilon": "10/255"},
}
"""What ``query_budget`` adds where no attack asks for scores only, as on quality metrics in
A. Gushchin et al., "Guardians of Image Quality", 2025; the labels end in the budget."""


@dataclass(frozen=True)
class Wanted:
    """What a defence is scored on, and what it may use.

    Args:
        dataset: folder, zip or Parquet file of images, or a folder or zip with ``clean`` and
            attacked sub-folders; None for that of the specification.
        spec: specification with the data set, the metric and the attacks; None for the shipped one.
        metric: image-quality metric; None for that of the specification.
        baseline: what it is compared with.
        time_limit: seconds an image.
        memory_limit: megabytes of resident memory.
        parameter_limit: parameters of its networks; None for any number.
        query_budget: scores that each query attack asks for an image; where there is no such
            attack, Square and NES are added. None: as specified.
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
    query_budget: int | None = None
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
    path = wanted.spec or SHIPPED
    _check_baseline(wanted.baseline, path.parent)
    spec, assignments = str(path), changes(file, wanted)
    bench = read_spec(spec, store, assignments, limit)
    defence = replace(defence, unseen=lambda: bench.unseen)
    known = started(defence, store_root(store))
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
    made += wanted.changes
    if wanted.query_budget is None:
        return made
    return [*made, *_budget(wanted.spec or SHIPPED, made, wanted.query_budget)]


def _budget(spec: Path, made: list[str], queries: int) -> list[str]:
    """What gives the query attacks their budget, after all other changes."""
    content = override(read_content(spec), made)
    if found := budget_changes(content, queries):
        return found
    added = [
        {**attack, "label": f"{name}-{queries}", "queries": queries}
        for name, attack in QUERY_ATTACKS.items()
    ]
    return [f"attacks={json.dumps([*(content.get('attacks') or ()), *added])}"]


def _check_baseline(baseline: str, home: Path) -> None:
    """Refuse what is no purifier.

    Raises:
        SpecError: naming the option, and what was expected.
    """
    named = PurifierSpec(name=BASELINES.get(baseline, baseline))
    build(PURIFIER_KINDS, named, "--baseline", home=home)


def _name(file: Path) -> str:
    stem = "".join(c if c.isalnum() or c in "._-" else "-" for c in file.resolve().stem)
    return f"score-{stem.strip('.-_') or 'defense'}"[:100]


def _dataset(path: Path) -> dict[str, Any]:
    """The data set at a path, and its attacks where it holds images that were attacked already.

    Raises:
        SpecError: where nothing usable lies there.
    """
    kinds = {".zip": "zip", ".parquet": "parquet"}
    if path.is_dir():
        plain, prefix = "folder", "" if (path / CLEAN).is_dir() else None
    elif path.is_file() and path.suffix in kinds:
        plain = kinds[path.suffix]
        prefix = _prefix(path) if plain == "zip" else None
    else:
        raise SpecError(f"--dataset: expected a folder, zip or Parquet file of images, got {path}")
    if prefix is None:
        return {"dataset": {"kind": plain, "path": str(path)}}
    inside = {"prefix": prefix} if prefix else {}
    return {
        "dataset": {"kind": "paired", "path": str(path), **inside},
        "attacks": [
            {"name": "Precomputed", "folder": name, "label": name}
            for name in Paired(path, prefix=prefix).attacks()
        ],
    }


def _prefix(path: Path) -> str | None:
    """The folder of a zip in which a folder of clean images lies; None where there is none.

    It is the zip itself, or the only folder that it holds.
    """
    names = [PurePosixPath(name).parts for name in Zip(path).stamps()]
    if any(len(parts) > 1 and parts[0] == CLEAN for parts in names):
        return ""
    folders = {parts[0] for parts in names}
    deeper = any(len(parts) > 2 and parts[1] == CLEAN for parts in names)
    return folders.pop() if deeper and len(folders) == 1 else None
