"""Scanning a folder for suspects, and calibrating detectors on benign images: resumable runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from flows import gates
from flows.artifacts import (
    LISTED,
    ProgressArtifact,
    artifact_key,
    publish_page,
    publish_rejected,
    publish_table,
)
from flows.evaluate import Outcome, Prepared, compute, look_up, prepare_root
from flows.names import BEGUN, begun_now
from flows.parameters import in_flow_run, one_run
from flows.scan_page import render
from storage.files import Place, exclusive
from tasks import scan_gate
from tasks.budget import check_budget
from tasks.decision import Decision, Rule, calibrated_detectors, matched
from tasks.errors import SpecError
from tasks.families import dataset_word
from tasks.outputs import finished, rejected_rows
from tasks.scan import (
    CALIBRATION,
    made_from,
    summary_of,
    worst,
    write_calibration,
    write_scan,
)
from tasks.scan_specs import RATE, ScanRequest
from tasks.survey import Survey
from tasks.thresholds import FILE as THRESHOLDS
from tasks.thresholds import read_thresholds
from tasks.workbench import Workbench, workbench

Write = Callable[[Survey], dict[str, Any]]
Detectors = Sequence[Mapping[str, Any]]

_prepared: dict[tuple[str, str], tuple[Prepared, Write]] = {}


@dataclass(frozen=True)
class ScanOutcome:
    """What a scan came to.

    Args:
        folder: its outputs.
        summary: what ``scan.json`` holds.
        chunk_tasks: chunks that were computed now, those of the calibration included.
        chunks: chunks of all stages together.
        seconds: spent in chunks that were computed now, by kind of stage.
    """

    folder: Place
    summary: dict[str, Any]
    chunk_tasks: int
    chunks: int
    seconds: dict[str, float]
    missed: tuple[str, ...] = ()
    """Limits that are not kept."""


def run_scan(
    request: ScanRequest,
    store: str,
    *,
    wait: bool = True,
    on_wait: Callable[[], None] | None = None,
) -> ScanOutcome:
    """Score every image of a folder and decide which are suspect; what is done is not done again.

    With benign images, these are scored first, and thresholds are set on them. Limits that are not
    kept are in the outcome; within a flow run, they are published.

    Raises:
        SpecError, StorageError, BudgetError: saying what is wrong, in one sentence.
    """
    request.check_source()
    root = prepare_root(store)
    if request.thresholds is None:
        detectors = request.named_detectors()
    else:
        thresholds = read_thresholds(request.thresholds)
        detectors = calibrated_detectors(thresholds, request.detectors)
        matched(thresholds, detectors, request.pipeline.pipeline(), request.thresholds)
    bench = _bench(request, "scan", detectors, store)
    with exclusive(root, wait=wait, on_wait=on_wait):
        before: list[ScanOutcome] = []
        if request.thresholds is None:
            before.append(_calibrate(request.calibration(), detectors, store))
        source = request.thresholds or before[0].folder / THRESHOLDS
        decision = _decision(request, source, bench)
        outcome = _run(
            bench,
            store,
            scan_gate.SCAN,
            made_from(**decision.identity),
            lambda state: write_scan(state, decision, render),
        )
    parts = [*before, outcome]
    kinds = dict.fromkeys(kind for part in parts for kind in part.seconds)
    held = scan_gate.held(outcome.folder, outcome.summary, request)
    missed = scan_gate.missed(held)
    if in_flow_run():
        gates.publish(held)
    gates.tell(outcome.folder, held, missed)
    return ScanOutcome(
        folder=outcome.folder,
        summary=outcome.summary,
        missed=tuple(missed),
        chunk_tasks=sum(part.chunk_tasks for part in parts),
        chunks=sum(part.chunks for part in parts),
        seconds={kind: sum(part.seconds.get(kind, 0.0) for part in parts) for kind in kinds},
    )


def run_calibration(
    request: ScanRequest,
    store: str,
    *,
    wait: bool = True,
    on_wait: Callable[[], None] | None = None,
) -> ScanOutcome:
    """Set thresholds on all images of a folder; what is done is not done again.

    Raises:
        SpecError, StorageError, BudgetError: saying what is wrong, in one sentence.
    """
    root = prepare_root(store)
    detectors = request.named_detectors()
    with exclusive(root, wait=wait, on_wait=on_wait):
        return _calibrate(request, detectors, store)


def _bench(
    request: ScanRequest, prefix: str, detectors: Detectors, store: str, order: str = "name"
) -> Workbench:
    """The workbench of a scan or calibration, checked before anything is computed."""
    spec = request.spec(prefix, detectors, order)
    bench = workbench(spec.model_dump_json(), str(request.folder.parent), store)
    bench.check()
    Rule.of(request.rule, _labels(bench))
    return bench


def _labels(bench: Workbench) -> list[str]:
    return [spec.label or spec.name for spec in bench.spec.detectors]


def _decision(request: ScanRequest, source: Place, bench: Workbench) -> Decision:
    thresholds = read_thresholds(source)
    wanted = calibrated_detectors(thresholds, _labels(bench))
    found = matched(thresholds, wanted, request.pipeline.pipeline(), source)
    decision = Decision(Rule.of(request.rule, list(found)), found)
    decision.check(str(source))
    return decision


def _calibrate(request: ScanRequest, detectors: Detectors, store: str) -> ScanOutcome:
    fpr = RATE if request.fpr is None else request.fpr
    # a limit is to leave images of all sub-folders
    bench = _bench(request, "calibration", detectors, store, order="hash")
    return _run(
        bench,
        store,
        CALIBRATION,
        made_from(rule=request.rule, fpr=fpr),
        lambda state: write_calibration(state, request.rule, fpr),
        least=math.ceil(1 / fpr - 1 - 1e-9),
    )


def _run(
    bench: Workbench,
    store: str,
    summary: str,
    more: dict[str, Any],
    write: Write,
    least: int = 0,
) -> ScanOutcome:
    """Compute what is left of a run and write its outputs, unless they are there and whole."""
    ready = look_up(bench, store)
    if bench.dataset.count < least:
        raise SpecError(
            f"calibration: expected {least} benign images or more for this rate, got "
            f"{bench.dataset.count}; take more, or a larger --fpr"
        )
    state = ready.state
    folder = bench.store.run(bench.spec.name)
    if finished(state, more):
        if in_flow_run():
            ProgressArtifact(bench.spec.name, state)
            _publish(ready)
        return ScanOutcome(folder, summary_of(state, summary), 0, state.total, {})
    check_budget(bench, state)
    _prepared[(ready.spec, store)] = ready, write
    ready.start()
    outcome = scan(ready.spec, store)
    content = outcome.summary or {}
    return ScanOutcome(folder, content, outcome.chunk_tasks, outcome.chunks, outcome.seconds)


def _run_name() -> str:
    ready, _ = _prepared[_key(flow_run.get_parameters())]
    spec = ready.bench.spec
    return begun_now(spec.name, dataset_word({"dataset": spec.dataset.model_dump()}))


def _key(parameters: Mapping[str, Any]) -> tuple[str, str]:
    return str(parameters["spec"]), str(parameters["store"])


@one_run
@flow(name="scan", flow_run_name=_run_name, on_running=BEGUN, validate_parameters=True)
def scan(spec: str, store: str) -> Outcome:
    """Decode and score the images of a folder, then write what comes of it.

    Args:
        spec: the run's specification as JSON.
        store: folder or URL of the store.
    """
    ready, write = _prepared[(spec, store)]
    try:
        outcome = compute(ready, write)
    finally:
        del _prepared[(spec, store)]
    _publish(ready)
    return outcome


def _publish(ready: Prepared) -> None:
    """Publish what is left: rejected files, and of a scan its suspects and a link to its page."""
    name = ready.bench.spec.name
    folder = ready.bench.store.run(name)
    page = folder / "scan.html"
    publish_rejected(name, rejected_rows(ready.state).to_pylist())
    if page.is_file():
        publish_page(name, page)
        suspects = worst(folder, LISTED)
        if suspects:
            publish_table(f"{artifact_key(name)}-suspects", suspects, f"Worst suspects of {name}")
