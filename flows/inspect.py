"""Looking at a run without computing: its status, its integrity, its report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flows.evaluate import read_spec
from flows.report import render
from flows.watch import Watch
from storage.files import Place, exclusive
from storage.ledger import Finding
from tasks.errors import SpecError
from tasks.outputs import missing_marks, output_findings, write_outputs
from tasks.survey import survey
from tasks.workbench import Workbench


def open_run(spec: str, store: str, assignments: Sequence[str], limit: int | None) -> Workbench:
    """The workbench of a specification file.

    Raises:
        SpecError, ModelError, StorageError: saying what is wrong.
    """
    bench = read_spec(spec, store, assignments, limit)
    bench.check()
    bench.catalogue(keep=False)
    return bench


def run_status(
    spec: str, store: str, assignments: Sequence[str] = (), limit: int | None = None
) -> dict[str, Any]:
    """Chunks done and in all, stage by stage, and what they cost, as the marks say."""
    return Watch(open_run(spec, store, assignments, limit)).look()


def verify_run(
    spec: str, store: str, assignments: Sequence[str] = (), limit: int | None = None
) -> dict[str, Any]:
    """Re-hash every chunk and output of a run; name what is not as the ledger says."""
    bench = open_run(spec, store, assignments, limit)
    findings: list[Finding] = []
    state = survey(bench, found=findings.append)
    folder = bench.store.run(bench.spec.name)
    findings += missing_marks(bench, folder, {(f.stage, f.key) for f in findings})
    findings += output_findings(folder)
    root = bench.store.root
    places = {node.name: bench.store.stage(node.fingerprint) for node in state.plan}
    return {
        "name": bench.spec.name,
        "chunks": len(state.done),
        "total": state.total,
        "damage": [
            {
                "stage": finding.stage,
                "key": finding.key,
                "path": _below(root, places.get(finding.stage, folder), finding.path),
                "problem": finding.problem,
            }
            for finding in dict.fromkeys(findings)
        ],
    }


def _below(root: Place, place: Place, name: str) -> str:
    return f"{place}/{name}".removeprefix(f"{root}/")


def rewrite_report(
    spec: str, store: str, assignments: Sequence[str] = (), limit: int | None = None
) -> Place:
    """Write summary and report again from the stored columns.

    Raises:
        SpecError: where the run is not finished.
    """
    bench = open_run(spec, store, assignments, limit)
    with exclusive(bench.store.root):
        state = survey(bench, hashed=False)
        if state.left:
            raise SpecError(f"{spec}: expected a finished run, {state.left} chunks are left")
        write_outputs(state, render)
    return bench.store.run(bench.spec.name) / "report.html"
