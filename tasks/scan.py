"""What a scan and a calibration leave in the store: every image's scores, suspects, thresholds."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import stats

from storage.files import Place, write_atomic
from storage.ledger import digest_of
from storage.scores import read_rows, write_rows
from tasks.columns import Columns
from tasks.decision import Decision, Rule, calibrate
from tasks.errors import SpecError
from tasks.history import record
from tasks.outputs import begin_outputs, end_outputs, references, rejected_rows, write_json
from tasks.scan_gate import SCAN, as_run, lying
from tasks.specs import label_of
from tasks.survey import Survey
from tasks.thresholds import FILE as THRESHOLDS
from tasks.thresholds import write_thresholds

RULES = 1
"""Version of what the outputs hold; raising it rewrites them."""
CALIBRATION = "calibration.json"
COMMON = ("rejected.parquet", THRESHOLDS, "stages.json")
ABOUT = ("id", "name", "height", "width")

Page = Callable[[Survey, dict[str, Any], pa.Table, Decision], str]


def made_from(**given: Any) -> dict[str, Any]:
    """What the outputs of a scan or calibration are made from besides chunks and specification."""
    return {"scan": RULES, **given}


def write_scan(state: Survey, decision: Decision, page: Page) -> dict[str, Any]:
    """Write the outputs of a finished scan; the index comes last.

    Args:
        state: a run with nothing left to compute.
        decision: what makes an image a suspect.
        page: makes the page from the run, its summary, its rows and the decision.

    Returns:
        The summary, as ``scan.json`` holds it.

    Raises:
        StoreError: where the store cannot be written.
        SpecError: where no image could be used.
    """
    folder = state.bench.store.run(state.bench.spec.name)
    names = [*COMMON, SCAN, "scan.parquet", "suspects.csv", "scan.html"]
    earlier = lying(folder)
    begin_outputs(folder, names)
    rejected = rejected_rows(state)
    table = scan_table(usable_columns(state, rejected), decision)
    suspects = suspects_of(table)
    content = {
        **_about(state, rejected),
        "rule": decision.rule.name,
        "deciding": list(decision.rule.deciding),
        "least": decision.rule.least,
        "suspects": suspects.num_rows,
        "of_other_sizes": table.num_rows - int(np.sum(table["calibrated"].to_numpy())),
        "expected_rate": decision.expected,
        "expected_by_chance": decision.expected * table.num_rows,
        "detectors": _detectors(state, table, decision),
        "spec": state.bench.spec.model_dump(mode="json"),
    }
    record(folder, earlier, as_run(content))
    write_rows(folder / "scan.parquet", table)
    write_rows(folder / "rejected.parquet", rejected)
    write_atomic(folder / "suspects.csv", _csv(suspects))
    write_thresholds(folder / THRESHOLDS, list(decision.thresholds.values()))
    write_json(folder / "stages.json", references(state))
    write_json(folder / SCAN, content)
    write_atomic(folder / "scan.html", page(state, content, table, decision).encode())
    end_outputs(state, names, made_from(**decision.identity))
    return content


def write_calibration(state: Survey, rule: str, fpr: float) -> dict[str, Any]:
    """Write the outputs of a finished calibration; the index comes last.

    Args:
        state: a run over benign images with nothing left to compute.
        rule: ``any``, ``majority`` or the label of a detector.
        fpr: rate at which a benign image comes out suspect by this rule, at most.

    Returns:
        The summary, as ``calibration.json`` holds it.

    Raises:
        StoreError: where the store cannot be written.
        SpecError: where the images are too few.
    """
    bench = state.bench
    folder = bench.store.run(bench.spec.name)
    names = [*COMMON, CALIBRATION, "scores.parquet"]
    begin_outputs(folder, names)
    rejected = rejected_rows(state)
    columns = usable_columns(state, rejected)
    scores = scores_of(columns)
    chosen = Rule.of(rule, list(scores))
    detectors = list(zip(bench.spec.detectors, bench.detectors, strict=True))
    about = _about(state, rejected)
    sides = sides_of(columns.table("ingest"))
    sizes = [sides.min(axis=0).tolist(), sides.max(axis=0).tolist()]
    made = calibrate(scores, detectors, chosen, fpr, about["digest"], sizes)
    content = {
        **about,
        "rule": chosen.name,
        "least": chosen.least,
        "fpr": fpr,
        "expected_rate": Decision(chosen, {one.label: one for one in made}).expected,
        "thresholds": {one.label: one.value for one in made},
        "spec": bench.spec.model_dump(mode="json"),
    }
    table = columns.table("ingest").select(ABOUT)
    for label, values in scores.items():
        table = table.append_column(f"score_{label}", pa.array(values))
    write_rows(folder / "scores.parquet", table.combine_chunks())
    write_rows(folder / "rejected.parquet", rejected)
    write_thresholds(folder / THRESHOLDS, made)
    write_json(folder / "stages.json", references(state))
    write_json(folder / CALIBRATION, content)
    end_outputs(state, names, made_from(rule=rule, fpr=fpr))
    return content


def usable_columns(state: Survey, rejected: pa.Table) -> Columns:
    """The columns of a run.

    Raises:
        SpecError: where no image could be used, with the first reason.
    """
    if not sum(state.done[("ingest", index)].images for index in range(state.chunks)):
        first = rejected.slice(0, 1).to_pylist()[0]
        raise SpecError(
            f"{state.bench.spec.dataset.options['path']}: expected images, none of "
            f"{rejected.num_rows} files can be used; {first['name']}: {first['reason']}"
        )
    return Columns(state)


def scores_of(columns: Columns) -> dict[str, NDArray[np.float64]]:
    """Scores (n,) of all images by label of the detector, in the order of the specification."""
    labels = [label_of(spec) for spec in columns.state.bench.spec.detectors]
    return {
        label: columns.column(f"detect/none/{label}", "score").astype(np.float64)
        for label in labels
    }


def scan_table(columns: Columns, decision: Decision) -> pa.Table:
    """A row an image, in the order of the dataset.

    ``score_<label>`` and ``flag_<label>`` of each detector, ``count`` of those that flag it,
    ``suspect``, ``calibrated`` where the size is among those of the benign images, and ``rank``
    among all images from 1, the most suspicious: by how many of the deciding detectors flag it,
    then by the mean of its ranks with them.
    """
    scores = scores_of(columns)
    flags = {
        label: np.zeros(len(values), dtype=bool) if limit is None else values > limit
        for label, values in scores.items()
        for limit in [decision.thresholds[label].value]
    }
    deciding = decision.rule.deciding
    votes = np.sum([flags[label] for label in deciding], axis=0)
    places = np.mean(
        [stats.rankdata(scores[label], nan_policy="omit") for label in deciding], axis=0
    )
    order = np.lexsort((-places, -votes))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(1, len(order) + 1)
    table = columns.table("ingest").select(ABOUT)
    added: dict[str, NDArray[Any]] = {
        **{f"score_{label}": values for label, values in scores.items()},
        **{f"flag_{label}": values for label, values in flags.items()},
        "count": np.asarray(np.sum(list(flags.values()), axis=0, dtype=np.int64)),
        "suspect": votes >= decision.rule.least,
        "calibrated": decision.of_calibrated_size(sides_of(table)),
        "rank": rank,
    }
    for name, column in added.items():
        table = table.append_column(name, pa.array(column))
    return table.combine_chunks()


def sides_of(table: pa.Table) -> NDArray[np.int64]:
    """Heights and widths (n, 2) of the images of a table."""
    return np.stack([table[name].to_numpy() for name in ("height", "width")], axis=1)


def suspects_of(table: pa.Table) -> pa.Table:
    """The suspects of a scan, worst first."""
    return table.filter(table["suspect"]).sort_by("rank")


def _csv(suspects: pa.Table) -> bytes:
    first = ["rank", "name", "height", "width", "count"]
    rest = [name for name in suspects.schema.names if name.startswith(("score_", "flag_"))]
    names = [*first, *rest, "calibrated", "id"]
    columns = [suspects[name].to_pylist() for name in names]
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(zip(*columns, strict=True))
    return sink.getvalue().encode()


def _about(state: Survey, rejected: pa.Table) -> dict[str, Any]:
    bench = state.bench
    return {
        "name": bench.spec.name,
        "version": version("image-defender"),
        "path": bench.spec.dataset.options["path"],
        "digest": digest_of([state.done[("ingest", i)].content for i in range(state.chunks)]),
        "images": sum(state.done[("ingest", i)].images for i in range(state.chunks)),
        "rejected": rejected.num_rows,
        "pipeline": repr(bench.pipeline),
        "device": bench.device.type,
    }


def _detectors(state: Survey, table: pa.Table, decision: Decision) -> list[dict[str, Any]]:
    listed = []
    for spec, detector in zip(state.bench.spec.detectors, state.bench.detectors, strict=True):
        label = label_of(spec)
        threshold = decision.thresholds[label]
        listed.append(
            {
                "label": label,
                "detector": repr(detector),
                "knowledge": detector.knowledge,
                "decides": label in decision.rule.deciding,
                "threshold": threshold.value,
                "fpr": threshold.fpr,
                "benign": threshold.images,
                "flagged": int(np.sum(table[f"flag_{label}"].to_numpy())),
            }
        )
    return listed


def worst(folder: Place, count: int) -> list[dict[str, Any]]:
    """Rank, name and count of detectors of the worst suspects of a finished scan.

    Args:
        folder: its outputs.
        count: suspects, at most.
    """
    table = read_rows(folder / "scan.parquet").select(["rank", "name", "count", "suspect"])
    rows: list[dict[str, Any]] = suspects_of(table).slice(0, count).to_pylist()
    return rows


def summary_of(state: Survey, name: str) -> dict[str, Any]:
    """The summary of finished outputs, as it was written."""
    folder = state.bench.store.run(state.bench.spec.name)
    content: dict[str, Any] = json.loads((folder / name).read_bytes())
    return content
