"""The evaluate flow: attack, detect, purify and score every image of a dataset, then report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from prefect import flow

from flows import embedded, gates
from flows.ahead import Early, decoding
from flows.artifacts import ProgressArtifact, publish
from flows.names import BEGUN, run_name
from flows.parameters import Count
from flows.progress import Progress
from flows.report import render
from flows.runners import Runner, chunk_task, task_runner, worker_count
from flows.schedule import chunk_order, drive
from storage.files import Place, check_writable, exclusive, store_root
from tasks import begun
from tasks.budget import check_budget
from tasks.errors import RequirementError
from tasks.listening import listening
from tasks.outputs import finished, write_outputs
from tasks.prefect_task import call_of, receipt_of
from tasks.spec_files import load_spec
from tasks.survey import Survey, Work, survey
from tasks.workbench import Workbench, workbench


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    folder: Place
    chunk_tasks: int
    chunks: int
    seconds: dict[str, float]
    summary: dict[str, Any] | None
    missed: tuple[str, ...] = ()
    """Requirements that are not met."""
    stages: dict[str, Any] = field(default_factory=dict)
    """What was made now, stage by stage: see :meth:`flows.telemetry.RunFigures.plain`."""


@dataclass
class Prepared:
    """A run that has been read, checked and looked up in the store."""

    spec: str
    folder: str
    store: str
    bench: Workbench
    state: Survey
    early: Early = field(default_factory=list)
    """Chunks that were made while the embedded server came up."""

    @property
    def order(self) -> list[int]:
        """Numbers of the chunks in the order in which they are begun."""
        return chunk_order(self.state.chunks, self.bench.spec.compute.order, self.bench.spec.seed)

    def start(self) -> None:
        """Have the embedded server up, where it is needed; images are decoded meanwhile."""

        @contextmanager
        def meanwhile() -> Iterator[None]:
            with decoding(self.state, self.order) as self.early:
                yield

        embedded.start(meanwhile)


_prepared: dict[tuple[str, str, tuple[str, ...], int | None], Prepared] = {}


def prepare(
    spec: str, store: str, assignments: Sequence[str] = (), limit: int | None = None
) -> Prepared:
    """Read a specification, check everything it names, and see what the store holds of it.

    Raises:
        SpecError, ModelError, StorageError, BudgetError: saying what is wrong, in one sentence.
    """
    bench = read_spec(spec, store, assignments, limit)
    bench.check()
    return look_up(bench, store)


def look_up(bench: Workbench, store: str) -> Prepared:
    """List the dataset of a run that has been checked, and see what the store holds of it."""
    bench.catalogue(keep=True)
    return Prepared(bench.spec.model_dump_json(), str(bench.folder), store, bench, survey(bench))


def read_spec(
    spec: str, store: str, assignments: Sequence[str] = (), limit: int | None = None
) -> Workbench:
    """The workbench of a specification file; nothing is written.

    Raises:
        SpecError: naming the file, the field and what was expected.
    """
    path = Path(spec)
    content = load_spec(path, assignments, limit)
    return workbench(content.model_dump_json(), str(path.parent.resolve()), store)


def run(
    spec: str,
    store: str,
    assignments: Sequence[str] = (),
    limit: int | None = None,
    *,
    wait: bool = True,
    on_wait: Callable[[], None] | None = None,
) -> Outcome:
    """Run a specification; what is already done is not done again.

    A run with nothing left to do does not start Prefect.
    """
    read_spec(spec, store, assignments, limit).check()
    with exclusive(prepare_root(store), wait=wait, on_wait=on_wait):
        ready = prepare(spec, store, assignments, limit)
        folder = ready.bench.store.run(ready.bench.spec.name)
        if finished(ready.state):
            missed = gates.unmet(folder, gates.stored_summary(folder))
            return Outcome(folder, 0, ready.state.total, {}, None, missed)
        check_budget(ready.bench, ready.state)
        key = (spec, store, tuple(assignments), limit)
        _prepared[key] = ready
        ready.start()
        try:
            return evaluate(spec, store, list(assignments), limit)
        except RequirementError as error:
            return cast(Outcome, error.outcome)


def prepare_root(store: str) -> Place:
    """The root of a store, proven writable.

    Raises:
        StoreError: where it is not.
    """
    root = store_root(store)
    check_writable(root)
    return root


@flow(name="evaluate", flow_run_name=run_name, on_running=BEGUN, validate_parameters=True)
def evaluate(
    spec: str,
    store: str = "image-defender-store",
    assignments: list[str] | None = None,
    limit: Count | None = None,
) -> Outcome:
    """Attack, detect, purify and score every image of a dataset; resumable at any moment.

    Args:
        spec: path of the specification file.
        store: folder or URL of the store.
        assignments: changes to the specification, each ``key=value``.
        limit: use the first images of the dataset only.
    """
    key = (spec, store, tuple(assignments or ()), limit)
    ready = _prepared.pop(key, None)
    if ready is not None:
        return _evaluate(ready)
    with exclusive(prepare_root(store)):
        ready = prepare(spec, store, assignments or (), limit)
        check_budget(ready.bench, ready.state)
        return _evaluate(ready)


def _evaluate(ready: Prepared) -> Outcome:
    outcome = compute(ready, lambda state: write_outputs(state, render))
    summary = outcome.summary or {}
    publish(summary, outcome.folder, ready.state)
    gates.publish(summary)
    missed = gates.unmet(outcome.folder, summary)
    if missed:
        raise RequirementError("; ".join(missed), replace(outcome, missed=missed))
    return outcome


def compute(ready: Prepared, write: Callable[[Survey], dict[str, Any]]) -> Outcome:
    """Make every chunk that is left, then the outputs; to be called within a flow.

    Args:
        ready: the run.
        write: writes the outputs of the finished run and returns its summary.
    """
    bench, state = ready.bench, ready.state
    begun.note(state)
    workers = worker_count(bench)
    dashboard = ProgressArtifact(bench.spec.name, state)
    with (
        Progress(state, workers) as progress,
        listening(progress.within),
        task_runner(bench) as runner,
    ):

        def finished_one(work: Work, receipt: dict[str, Any]) -> None:
            progress.finished(work, receipt)
            dashboard.update(len(state.done), state.total)

        for work, mark in ready.early:
            state.record(work, mark)
            finished_one(work, receipt_of(mark))
        tasks = len(ready.early) + make_chunks(ready, runner, finished_one)
        progress.say("writing summary and report")
        summary = write(state)
        begun.finish(state)
    folder = bench.store.run(bench.spec.name)
    stages = progress.figures.plain()
    return Outcome(folder, tasks, state.total, progress.figures.seconds(), summary, stages=stages)


def make_chunks(
    ready: Prepared,
    runner: Runner,
    finished_one: Callable[[Work, dict[str, Any]], None],
) -> int:
    """Make every chunk that is left of a run.

    Args:
        ready: the run.
        runner: of :func:`flows.runners.task_runner`, entered.
        finished_one: called with each finished chunk and its receipt.

    Returns:
        How many chunk tasks ran.
    """
    bench, state = ready.bench, ready.state
    task = chunk_task(bench)

    def submit(work: Work) -> Any:
        call = call_of(work, ready.spec, ready.folder, ready.store)
        return runner.submit(task, {"call": call})

    return drive(state, ready.order, submit, window=2 * worker_count(bench), finished=finished_one)
