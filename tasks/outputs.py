"""What a finished run leaves under ``<store>/<name>/``, and whether it is still what it was."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from storage.files import Place, remove, remove_folder, sweep, write_atomic
from storage.ledger import Finding, digest_of, sha256_file
from storage.scores import concatenate, read_rows, write_rows
from tasks.columns import Columns
from tasks.defence_verdicts import defences_of
from tasks.fitting import artefact
from tasks.further_figures import further_sections
from tasks.history import finished_summary
from tasks.leaderboard import standings
from tasks.perturbation_files import save_perturbation
from tasks.requirement_results import requirement_results
from tasks.strengths import strengths
from tasks.summary import Row, Summary
from tasks.survey import Survey
from tasks.thresholds import FILE as THRESHOLDS
from tasks.thresholds import write_thresholds
from tasks.workbench import Workbench

REJECTED = pa.schema([("name", pa.string()), ("reason", pa.string())])
INDEX = "run.json"
PLAIN = ("rejected.parquet", "summary.json", "stages.json", "report.html")
RULES = 6
"""Version of what a summary and report hold; raising it rewrites them."""


def state_digest(state: Survey, more: dict[str, Any] | None = None) -> str:
    """Digest of everything that the outputs of a run are made from.

    Args:
        state: the run.
        more: what else they are made from.
    """
    chunks = {
        node.name: [state.done[(node.name, i)].content for i in state.indices(node)]
        for node in state.plan
    }
    wanted = state.bench.spec.model_dump(mode="json", exclude={"compute"})
    return digest_of({"chunks": chunks, "spec": wanted, "rules": RULES, **(more or {})})


def finished(state: Survey, more: dict[str, Any] | None = None) -> bool:
    """Whether the outputs of a run are there, whole, and made from its present chunks.

    Args:
        state: the run.
        more: what else the outputs are to be made from.
    """
    folder = state.bench.store.run(state.bench.spec.name)
    index = read_index(folder)
    if index is None or state.left or index.get("state") != state_digest(state, more):
        return False
    return not any(True for _ in output_findings(folder))


def read_index(folder: Place) -> dict[str, Any] | None:
    """The index of a run's outputs, or None where the run has not finished."""
    try:
        index = json.loads((folder / INDEX).read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(index, dict) or index.pop("digest", None) != digest_of(index):
        return None
    return index


def output_findings(folder: Place) -> Iterator[Finding]:
    """Every output of a run that is not as its index says."""
    if not (folder / INDEX).exists():
        return
    index = read_index(folder)
    if index is None:
        yield Finding("outputs", folder.name, INDEX, "the index itself is damaged")
        return
    for name, stated in index["files"].items():
        path = folder / name
        if not path.is_file():
            yield Finding("outputs", folder.name, name, "missing")
        elif sha256_file(path) != stated:
            yield Finding("outputs", folder.name, name, "digest differs")


def missing_marks(
    bench: Workbench, folder: Place, known: set[tuple[str, str]]
) -> Iterator[Finding]:
    """Every chunk that a finished run was made from and whose mark is gone.

    Args:
        bench: the run.
        folder: its outputs.
        known: (stage, key) of chunks that have been found damaged already.
    """
    try:
        stages = json.loads((folder / "stages.json").read_bytes())
    except (OSError, ValueError):
        return
    for name, stage in stages.items():
        ledger = bench.store.ledger(stage["fingerprint"])
        for key in stage["chunks"]:
            if (name, key) not in known and not ledger.path(key).is_file():
                yield Finding(name, key, f"marks/{key}.json", "missing")


def write_outputs(
    state: Survey, report: Callable[[Survey, dict[str, Any], Columns], str]
) -> dict[str, Any]:
    """Write scores, rejected list, summary and report of a finished run; the index comes last.

    Args:
        state: a run with nothing left to compute.
        report: makes the page from the run, its summary and its columns.

    Returns:
        The summary.

    Raises:
        StoreError: where the store cannot be written.
        ValueError: where the dataset holds no usable image.
    """
    bench = state.bench
    folder = bench.store.run(bench.spec.name)
    previous = finished_summary(folder, (read_index(folder) or {}).get("files"))
    begin_outputs(folder, (*PLAIN, THRESHOLDS))
    summary = Summary(state)
    rows = summary.rows()
    written = _write_scores(summary, folder)
    rejected = rejected_rows(state)
    write_rows(folder / "rejected.parquet", rejected)
    content = _describe(state, rows, rejected.num_rows, summary.thresholds)
    if bench.has_metric:
        content["leaderboard"] = [one.as_dict() for one in standings(state, summary.columns)]
    if bench.has_encoder:
        content["verification"] = summary.faces.systems()
    defences = defences_of(bench, rows, content.get("verification", []))
    if defences:
        content["defences"] = [one.as_dict() for one in defences]
    found = strengths(state)
    if found:
        content["strengths"] = found
    content |= further_sections(summary)
    written += write_fitted(state, folder)
    content |= requirement_results(folder, previous, content, bench.spec.require)
    write_json(folder / "summary.json", content)
    write_json(folder / "stages.json", references(state))
    if bench.spec.detectors:
        write_thresholds(folder / THRESHOLDS, summary.calibrated(content["dataset"]["digest"]))
        written.append(THRESHOLDS)
    page = report(state, content, summary.columns)
    write_atomic(folder / "report.html", page.encode())
    end_outputs(state, [*written, *PLAIN])
    return content


def begin_outputs(folder: Place, names: Iterable[str]) -> None:
    """Withdraw the index of a run's outputs, and remove what an interrupted writer left of them."""
    remove(folder / INDEX)
    for name in (*names, INDEX):
        sweep(folder, name)


def end_outputs(state: Survey, written: Iterable[str], more: dict[str, Any] | None = None) -> None:
    """Write the index, which vouches for a run's outputs: the last step of making them.

    Args:
        state: the run.
        written: names of the outputs.
        more: what else they were made from.
    """
    folder = state.bench.store.run(state.bench.spec.name)
    index = {
        "state": state_digest(state, more),
        "files": {name: sha256_file(folder / name) for name in sorted(written)},
    }
    write_json(folder / INDEX, {**index, "digest": digest_of(index)})


def rejected_rows(state: Survey) -> pa.Table:
    """Names and reasons of all source items that could not be used."""
    parts = []
    for index in range(state.chunks):
        path = state.bench.store.rows(state.done[("ingest", index)].ref)
        listed = path.with_suffix(".rejected.parquet")
        if listed.is_file():
            parts.append(read_rows(listed))
    return concatenate(parts, REJECTED)


def write_json(path: Place, content: Any) -> None:
    """Write an output as JSON, atomically."""
    write_atomic(path, json.dumps(content, indent=1, allow_nan=False).encode())


def file_name(node: str) -> str:
    """A node's name as a file name of its own: readable, and never that of another node."""
    return f"{_readable(node)}-{digest_of(node)[:8]}.parquet"


def safe_name(label: str) -> str:
    """A label as a file name: itself where it is plain, else never that of another label."""
    readable = _readable(label)
    return readable if readable == label else f"{readable}-{digest_of(label)[:8]}"


def _readable(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.=-]+", "-", name.replace("/", "--")).strip("-")[:120]


def _write_scores(summary: Summary, folder: Place) -> list[str]:
    source = summary.columns.table("ingest").select(["id", "name", "label"])
    if summary.bench.has_encoder:
        source = source.append_column("person", pa.array(summary.faces.people, pa.int64()))
    remove_folder(folder / "scores")
    written = []
    for node in summary.state.plan:
        if node.kind not in ("score", "detect", "answer", "certify", "explain"):
            continue
        table = source
        values = summary.columns.table(node.name)
        for field in values.schema:
            if field.name != "id":
                table = table.append_column(field, values.column(field.name))
        for name in ("attack", "detector", "purifier", "subject"):
            column = pa.array([getattr(node, name)] * len(table), pa.string())
            table = table.append_column(name, column.dictionary_encode())
        name = f"scores/{file_name(node.name)}"
        write_rows(folder / name, table.combine_chunks())
        written.append(name)
    return written


def write_fitted(state: Survey, folder: Place) -> list[str]:
    """Leave what was fitted as ``fitted/<attack>.safetensors``; returns the names."""
    remove_folder(folder / "fitted")
    written = []
    for node in state.plan:
        if node.kind == "fit":
            rows = read_rows(state.bench.store.rows(state.done[(node.name, 0)].ref))
            name = f"fitted/{safe_name(node.attack)}.safetensors"
            save_perturbation(folder / name, artefact(rows))
            written.append(name)
    return written


def _describe(
    state: Survey, rows: list[Row], rejected: int, thresholds: dict[str, float]
) -> dict[str, Any]:
    bench = state.bench
    images = sum(state.done[("ingest", i)].images for i in range(state.chunks))
    digest = digest_of([state.done[("ingest", i)].content for i in range(state.chunks)])
    return {
        "name": bench.spec.name,
        "version": version("image-defender"),
        "dataset": {
            "kind": bench.spec.dataset.kind,
            "digest": digest,
            "images": images,
            "rejected": rejected,
            "classes": list(bench.dataset.source.classes or []) or None,
        },
        "model": _model(bench),
        "seed": bench.spec.seed,
        "device": bench.device.type,
        "thresholds": {k: v if abs(v) < float("inf") else None for k, v in thresholds.items()},
        "spec": bench.spec.model_dump(mode="json"),
        "rows": rows,
    }


def _model(bench: Workbench) -> dict[str, str] | None:
    spec, subject = bench.spec.model or bench.spec.metric or bench.spec.encoder, bench.subject
    if spec is None:
        return None
    return {"name": spec.name, "digest": getattr(subject, "digest", "")}


def references(state: Survey) -> dict[str, Any]:
    """Where the chunks of a run lie, by stage."""
    return {
        node.name: {
            "fingerprint": node.fingerprint,
            "config": node.config,
            "chunks": [state.done[(node.name, i)].ref.key for i in state.indices(node)],
        }
        for node in state.plan
    }
