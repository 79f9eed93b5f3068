"""Face verification on a list of pairs: a resumable run without attacks, then its figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from flows.artifacts import ProgressArtifact, publish_page, publish_rejected
from flows.evaluate import Outcome, Prepared, compute, look_up, prepare_root
from flows.names import BEGUN, begun_now
from flows.parameters import in_flow_run, one_run
from storage.files import Place, exclusive
from tasks.budget import check_budget
from tasks.families import dataset_word
from tasks.outputs import finished, rejected_rows
from tasks.verify import VERIFY, Verification
from tasks.verify_specs import VerifyRequest
from tasks.workbench import workbench

_prepared: dict[tuple[str, str], tuple[Prepared, Verification]] = {}


@dataclass(frozen=True)
class VerifyOutcome:
    """What a verification came to.

    Args:
        folder: its outputs.
        summary: what ``verify.json`` holds.
        chunk_tasks: chunks that were computed now.
        chunks: chunks of all stages together.
    """

    folder: Place
    summary: dict[str, Any]
    chunk_tasks: int
    chunks: int


def run_verification(
    request: VerifyRequest,
    store: str,
    *,
    wait: bool = True,
    on_wait: Callable[[], None] | None = None,
) -> VerifyOutcome:
    """Embed the images of a dataset once, and judge the pairs of a list; resumable.

    Raises:
        SpecError, ModelError, StorageError, BudgetError: saying what is wrong, in one sentence.
    """
    root = prepare_root(store)
    asked = Verification(request)
    bench = workbench(request.spec().model_dump_json(), str(Path.cwd()), store)
    bench.check()
    with exclusive(root, wait=wait, on_wait=on_wait):
        ready = look_up(bench, store)
        asked.check(bench)
        state, folder = ready.state, bench.store.run(bench.spec.name)
        if finished(state, asked.identity):
            if in_flow_run():
                ProgressArtifact(bench.spec.name, state)
                _publish(ready)
            content = json.loads((folder / VERIFY).read_bytes())
            return VerifyOutcome(folder, content, 0, state.total)
        check_budget(bench, state)
        _prepared[(ready.spec, store)] = ready, asked
        ready.start()
        outcome = verify_faces(ready.spec, store)
    return VerifyOutcome(outcome.folder, outcome.summary or {}, outcome.chunk_tasks, outcome.chunks)


def _run_name() -> str:
    ready, _ = _prepared[_key(flow_run.get_parameters())]
    spec = ready.bench.spec
    return begun_now(spec.name, dataset_word({"dataset": spec.dataset.model_dump()}))


def _key(parameters: Mapping[str, Any]) -> tuple[str, str]:
    return str(parameters["spec"]), str(parameters["store"])


@one_run
@flow(name="verify-faces", flow_run_name=_run_name, on_running=BEGUN, validate_parameters=True)
def verify_faces(spec: str, store: str) -> Outcome:
    """Embed the images of a dataset, then write what the pairs come to.

    Args:
        spec: the run's specification as JSON.
        store: folder or URL of the store.
    """
    ready, asked = _prepared[(spec, store)]
    try:
        outcome = compute(ready, asked.write)
    finally:
        del _prepared[(spec, store)]
    _publish(ready)
    return outcome


def _publish(ready: Prepared) -> None:
    """Publish a link to the curves of a finished verification, and its rejected files."""
    name = ready.bench.spec.name
    publish_page(name, ready.bench.store.run(name) / "roc.svg", "ROC curves")
    publish_rejected(name, rejected_rows(ready.state).to_pylist())
