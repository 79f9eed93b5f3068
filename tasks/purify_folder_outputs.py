"""The log of a purified folder: a row an image and purifier, and figures by purifier."""

from __future__ import annotations

import json
import math
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa

from storage.ledger import sha256_file
from storage.scores import concatenate, read_rows, write_rows
from tasks.errors import SpecError
from tasks.nodes import Node
from tasks.outputs import (
    begin_outputs,
    end_outputs,
    finished,
    references,
    rejected_rows,
    write_json,
)
from tasks.purify_folder import LOG, FolderState
from tasks.survey import Survey

RULES = 1
"""Version of what the log and summary hold; raising it rewrites them."""
SUMMARY = "purify.json"
NAMES = ("rejected.parquet", "stages.json", SUMMARY)

LOG_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("name", pa.string(), nullable=False),
        pa.field("source_sha256", pa.string()),
        pa.field("file", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("psnr", pa.float64()),
        pa.field("linf", pa.float64()),
        pa.field("seconds", pa.float64()),
        pa.field("label", pa.string()),
        pa.field("purifier", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
    ]
)
"""``status`` is ``purified``, ``failed`` (by this purifier) or ``rejected`` (by all: no image)."""


def done(found: FolderState) -> dict[str, Any] | None:
    """The summary of a folder in which nothing is left to do, or None where something is."""
    if found.changed or not finished(found.state, _made_from(found)):
        return None
    folder = found.bench.store.run(found.bench.spec.name)
    summary: dict[str, Any] = json.loads((folder / SUMMARY).read_bytes())
    log = found.folder / LOG
    return summary if log.is_file() and sha256_file(log) == summary["log_sha256"] else None


def write_log(found: FolderState) -> dict[str, Any]:
    """Write the log and the summary of a run with nothing left to compute; the index comes last.

    Returns:
        The summary, as ``purify.json`` in the store holds it.

    Raises:
        StoreError: where a folder cannot be written.
        SpecError: where none of the images could be used; the log says why.
    """
    state, bench = found.state, found.bench
    folder = bench.store.run(bench.spec.name)
    begin_outputs(folder, NAMES)
    rejected = rejected_rows(state)
    parts = [_rows(state, node) for node in found.exports()]
    table = concatenate([*parts, _rejected(rejected)], LOG_SCHEMA)
    write_rows(found.folder / LOG, table)
    images = sum(state.done[("ingest", index)].images for index in range(state.chunks))
    if not images:
        first = rejected.slice(0, 1).to_pylist()[0]
        raise SpecError(
            f"purify: expected images, none of {rejected.num_rows} files can be used; "
            f"{first['name']}: {first['reason']}"
        )
    content = {
        "name": bench.spec.name,
        "version": version("image-defender"),
        "source": str(found.request.source),
        "out": str(found.folder),
        "seed": bench.spec.seed,
        "device": bench.device.type,
        "images": images,
        "rejected": rejected.num_rows,
        "purifiers": [
            _figures(found, node, part) for node, part in zip(found.exports(), parts, strict=True)
        ],
        "log": str(found.folder / LOG),
        "log_sha256": sha256_file(found.folder / LOG),
        "spec": bench.spec.model_dump(mode="json"),
    }
    write_rows(folder / "rejected.parquet", rejected)
    write_json(folder / "stages.json", references(state))
    write_json(folder / SUMMARY, content)
    end_outputs(state, NAMES, _made_from(found))
    return content


def refused(found: FolderState, count: int) -> list[dict[str, Any]]:
    """Names and reasons of the first files of a finished run that could not be used."""
    rows: list[dict[str, Any]] = rejected_rows(found.state).slice(0, count).to_pylist()
    return rows


def outlook(found: FolderState) -> dict[str, Any]:
    """What a run would do, from what the store already holds; nothing is written.

    ``seconds`` is an estimate from the chunks that were purified before, None where none were.
    """
    state, bench = found.state, found.bench
    count = bench.dataset.count
    stages = []
    for node, finished_chunks in state.counts():
        indices = state.indices(node)
        left = [i for i in indices if (node.name, i) not in state.done]
        images = sum(len(bench.dataset.items(i)) for i in left)
        stages.append(
            {
                "stage": node.name,
                "kind": node.kind,
                "done": finished_chunks,
                "total": len(indices),
                "images_left": images,
                "seconds": None if images else 0.0,
            }
        )
        spent = [_seconds(state, node, i) for i in indices if (node.name, i) in state.done]
        seen = [value for value in spent if not math.isnan(value)]
        if images and seen:
            stages[-1]["seconds"] = round(images * float(np.mean(seen)), 1)
    return {
        "name": bench.spec.name,
        "images": count,
        "out": str(found.folder),
        "changed": len(found.changed),
        "purifiers": [_about(found, node) for node in found.exports()],
        "stages": stages,
    }


def _made_from(found: FolderState) -> dict[str, Any]:
    return {"purify": RULES, "folder": str(found.folder)}


def _about(found: FolderState, node: Node) -> dict[str, Any]:
    purifier = found.bench.purifiers[node.position]
    return {
        "label": node.purifier,
        "purifier": repr(purifier),
        "knowledge": purifier.knowledge,
        "folder": str(found.folder / node.config["inside"]),
    }


def _seconds(state: Survey, node: Node, index: int) -> float:
    """Seconds an image of a finished chunk, NaN where it is not known or has no images."""
    given = state.done[(node.name, index)]
    mark = state.bench.store.ledger(node.fingerprint).read(given.ref.key)
    told = None if mark is None else mark.receipt.get("seconds")
    return float(told) / given.images if told is not None and given.images else math.nan


def _rows(state: Survey, node: Node) -> pa.Table:
    """Rows of the log for one purifier, in the order of the dataset."""
    bench = state.bench
    purify = state.plan.nodes[node.inputs["images"]]
    purifier = repr(bench.purifiers[node.position])
    parts = []
    for index in state.indices(node):
        given = state.done[(node.name, index)]
        if not given.images:
            continue
        source = read_rows(bench.store.rows(state.done[("ingest", index)].ref))
        made = read_rows(bench.store.rows(given.ref))
        failures = made["failure"].to_pylist()
        count = made.num_rows
        columns = {
            "id": source["id"],
            "name": source["name"],
            "source_sha256": source["sha256"],
            **{name: made[name] for name in ("file", "sha256", "psnr", "linf")},
            "seconds": pa.array([_seconds(state, purify, index)] * count, pa.float64()),
            "label": pa.array([node.purifier] * count, pa.string()),
            "purifier": pa.array([purifier] * count, pa.string()),
            "status": pa.array(["failed" if one else "purified" for one in failures], pa.string()),
            "reason": made["failure"],
        }
        parts.append(pa.table(columns))
    return concatenate(parts, LOG_SCHEMA)


def _rejected(rejected: pa.Table) -> pa.Table:
    """Rows of the log for files that could not be used."""
    count = rejected.num_rows
    columns: dict[str, pa.Array] = {field.name: pa.nulls(count, field.type) for field in LOG_SCHEMA}
    columns["name"], columns["reason"] = rejected["name"], rejected["reason"]
    columns["status"] = pa.array(["rejected"] * count, pa.string())
    return pa.table(columns)


def _figures(found: FolderState, node: Node, rows: pa.Table) -> dict[str, Any]:
    """What one purifier came to."""
    status = rows["status"].to_pylist()
    psnr = _numbers(rows, "psnr")
    finite = psnr[np.isfinite(psnr)]
    linf, seconds = _numbers(rows, "linf"), _numbers(rows, "seconds")
    return {
        **_about(found, node),
        "images": status.count("purified"),
        "failed": status.count("failed"),
        "unchanged": int(np.isposinf(psnr).sum()),
        "psnr": float(finite.mean()) if len(finite) else None,
        "linf": float(linf.max()) if len(linf) else None,
        "seconds_per_image": round(float(seconds.mean()), 5) if len(seconds) else None,
    }


def _numbers(rows: pa.Table, name: str) -> Any:
    """The numbers of a column, without those that are missing."""
    values = rows[name].drop_null().to_numpy()
    return values[~np.isnan(values)]
