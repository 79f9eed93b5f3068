"""The sweep flow: attack once, then try purifier after purifier and keep the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows import embedded
from flows.artifacts import ProgressArtifact, artifact_key, publish_page
from flows.evaluate import Prepared, make_chunks, prepare_root
from flows.names import BEGUN, run_name
from flows.parameters import Count
from flows.progress import Progress
from flows.runners import Runner, task_runner, worker_count
from flows.sweep_page import render
from flows.sweep_progress import SweepProgress
from storage.files import exclusive
from tasks.survey import Survey
from tasks.sweep_figures import measure
from tasks.sweep_outputs import PAGE, write_sweep, written
from tasks.sweep_specs import CANDIDATE
from tasks.sweep_study import Asked, Study, Tried
from tasks.sweeping import STUDY, Sweep, open_sweep


@dataclass(frozen=True)
class SweepOutcome:
    """What a sweep came to.

    Args:
        folder: its study and outputs.
        summary: what ``sweep.json`` holds.
        trials: trials that were finished now; the others had been finished before.
        chunk_tasks: chunks that were computed now, those of the attacks included.
    """

    folder: Path
    summary: dict[str, Any]
    trials: int
    chunk_tasks: int


@dataclass
class Opened:
    """A sweep that has been read and checked, and its run as the store holds it."""

    sweep: Sweep
    store: str
    spec: str
    base: Survey

    def prepared(self, spec: str, state: Survey) -> Prepared:
        """One of its runs, ready to be computed."""
        return Prepared(spec, str(state.bench.folder), self.store, state.bench, state)


Key = tuple[str, str, tuple[str, ...], int | None]
_opened: dict[Key, Opened] = {}


def run_sweep(
    spec: str,
    store: str,
    assignments: Sequence[str] = (),
    limit: int | None = None,
    *,
    wait: bool = True,
    on_wait: Callable[[], None] | None = None,
) -> SweepOutcome:
    """Search for the best purifiers; killed anywhere, it goes on after the last finished trial.

    A sweep with nothing left to do does not start Prefect.

    Args:
        spec: path of the specification file.
        store: folder or URL of the store.
        assignments: changes to the specification, each ``key=value``.
        limit: use the first images of the dataset only.
        wait: wait while another run writes to the store.
        on_wait: called before another run is waited for.

    Raises:
        SpecError, ModelError, StorageError, BudgetError: saying what is wrong, in one sentence.
    """
    open_sweep(spec, store, assignments, limit).check()
    with exclusive(prepare_root(store), wait=wait, on_wait=on_wait):
        opened = _open(spec, store, assignments, limit)
        done = _finished(opened)
        if done is not None:
            return done
        _opened[(spec, store, tuple(assignments), limit)] = opened
        embedded.start()
        return sweep(spec, store, list(assignments), limit)


def _open(spec: str, store: str, assignments: Sequence[str], limit: int | None) -> Opened:
    """Read and check a sweep, see what the store holds of it, and whether the rest would fit."""
    found = open_sweep(spec, store, assignments, limit)
    found.check()
    content, base = found.look_up()
    left = found.spec.sweep.trials
    if not base.left and (found.folder / STUDY).exists():
        with found.study(base) as study:
            left = study.left(left)
    if left > 0 or base.left:
        found.check_budget(base, left)
    return Opened(found, store, content, base)


def _finished(opened: Opened) -> SweepOutcome | None:
    """The outcome, where no trial is left and the outputs are those of all of them."""
    found, base = opened.sweep, opened.base
    if base.left or not (found.folder / STUDY).exists():
        return None
    with found.study(base) as study:
        if study.left(found.spec.sweep.trials):
            return None
        summary = written(found, base, study.tried)
    return None if summary is None else SweepOutcome(found.folder, summary, 0, 0)


@flow(name="sweep", flow_run_name=run_name, on_running=BEGUN, validate_parameters=True)
def sweep(
    spec: str,
    store: str = "image-defender-store",
    assignments: list[str] | None = None,
    limit: Count | None = None,
) -> SweepOutcome:
    """Attack the images once, then try one purifier after the other; resumable at any moment.

    Args:
        spec: path of the specification file.
        store: folder or URL of the store.
        assignments: changes to the specification, each ``key=value``.
        limit: use the first images of the dataset only.
    """
    opened = _opened.pop((spec, store, tuple(assignments or ()), limit), None)
    if opened is not None:
        return _sweep(opened)
    with exclusive(prepare_root(store)):
        return _sweep(_open(spec, store, assignments or (), limit))


def _sweep(opened: Opened) -> SweepOutcome:
    found, base = opened.sweep, opened.base
    spec, chunk_tasks, trials = found.spec, 0, 0
    dashboard = ProgressArtifact(spec.name)
    with task_runner(found.bench) as runner:
        if base.left:
            with Progress(base, worker_count(found.bench)) as bars:
                chunk_tasks += make_chunks(
                    opened.prepared(opened.spec, base), runner, bars.finished
                )
        baselines = found.baselines(base)
        with found.study(base) as study, SweepProgress(spec, len(study.tried)) as progress:
            while study.left(spec.sweep.trials) and (asked := study.ask()) is not None:
                tried, computed = _trial(opened, study, asked, runner, progress)
                progress.finished(tried)
                chunk_tasks, trials = chunk_tasks + computed, trials + 1
                dashboard.update(len(study.tried), spec.sweep.trials)
            summary = write_sweep(found, base, baselines, study.tried, render)
    _publish(summary, found.folder / PAGE)
    return SweepOutcome(found.folder, summary, trials, chunk_tasks)


def _trial(
    opened: Opened,
    study: Study,
    asked: Asked,
    runner: Runner,
    progress: SweepProgress,
) -> tuple[Tried, int]:
    """Do one trial.

    Returns:
        What came of it, and how many chunk tasks ran.
    """
    found = opened.sweep
    spec, state = found.trial(opened.base, asked.candidate.text)
    found.begin(asked, state)
    progress.begin(state.left)
    computed = make_chunks(opened.prepared(spec, state), runner, progress.chunk)
    standing = measure(state, CANDIDATE)
    found.clear(asked, state)
    return study.tell(asked, standing), computed


def _publish(summary: dict[str, Any], page: Path) -> None:
    """Publish the front and a link to the page as artifacts of the current run."""
    best = [summary["trials"][number - 1] for number in summary["front"]]
    create_table_artifact(
        table=[
            {"trial": one["trial"], "purifier": one["purifier"], **one["objectives"]}
            for one in best
        ],
        key=f"{artifact_key(summary['name'])}-front",
        description=f"Front of {summary['name']} after {len(summary['trials'])} trials",
    )
    publish_page(summary["name"], page)
