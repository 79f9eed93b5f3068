"""Runs that were killed on the server of a run's own are marked by the next run, others are not."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from flows import embedded, lost_runs
from flows.processes import Process, note, process_of
from tests import toy

ROOT = Path(__file__).resolve().parents[2]
GONE = Process(1 << 30, 1, "before")


class Client:
    """What a server would be asked and told."""

    def __init__(self, unended: Iterable[UUID]) -> None:
        self.unended = {*unended}
        self.tasks = {one: uuid4() for one in self.unended}
        self.told: list[UUID] = []

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def read_flow_runs(self, flow_run_filter: Any, limit: int) -> list[Any]:
        types = flow_run_filter.state.type.any_
        assert {one.value for one in types} == {"PENDING", "RUNNING", "CANCELLING"}
        asked = [one for one in flow_run_filter.id.any_ if one in self.unended]
        return [SimpleNamespace(id=one, name=f"run {one}") for one in asked[:limit]]

    def read_task_runs(self, flow_run_filter: Any, **more: Any) -> list[Any]:
        return [SimpleNamespace(id=self.tasks[one]) for one in flow_run_filter.id.any_]

    def set_task_run_state(self, run: UUID, state: Any, force: bool) -> None:
        self.set_flow_run_state(run, state, force)

    def set_flow_run_state(self, run: UUID, state: Any, force: bool) -> None:
        assert state.is_crashed()
        assert force
        self.told.append(run)


def left(folder: Path, process: Process | None) -> UUID:
    """A note, and the flow run that it is about."""
    made = uuid4()
    assert process is not None
    note(folder / f"{made}.json", process)
    return made


def test_only_runs_whose_process_is_gone_are_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, ended, unknown = (left(tmp_path, GONE) for _ in range(3))
    sibling = left(tmp_path, process_of(os.getpid()))
    client = Client([killed, sibling])
    monkeypatch.setattr(lost_runs, "get_client", lambda sync_client: client)
    found = lost_runs.left_behind(tmp_path)
    assert set(found) == {killed, ended, unknown}
    assert lost_runs.mark(found) == [f"run {killed}"]
    assert client.told == [client.tasks[killed], killed]
    assert [path.stem for path in tmp_path.iterdir()] == [str(sibling)]


def test_many_are_asked_after_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost_runs, "AT_ONCE", 3)
    killed = {left(tmp_path, GONE) for _ in range(7)}
    client = Client(killed)
    monkeypatch.setattr(lost_runs, "get_client", lambda sync_client: client)
    assert len(lost_runs.mark(lost_runs.left_behind(tmp_path))) == 7
    assert killed <= {*client.told}


def test_a_server_that_is_gone_leaves_it_to_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left(tmp_path, GONE)

    def refused(sync_client: bool) -> Any:
        raise httpx.ConnectError("gone")

    monkeypatch.setattr(lost_runs, "get_client", refused)
    lost_runs._mark(lost_runs.left_behind(tmp_path))
    assert len(lost_runs.left_behind(tmp_path)) == 1


def test_a_run_that_a_server_watches_leaves_no_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "alone", lambda: False)
    monkeypatch.setattr(lost_runs, "notes_of_this_machine", lambda: pytest.fail("a note"))
    lost_runs.note_process(None, SimpleNamespace(id=uuid4()), None)


def states(home: Path, table: str = "flow_run") -> dict[str, str]:
    """The state of each run in Prefect's database, by its id."""
    with sqlite3.connect(f"file:{home / 'prefect.db'}?mode=ro", uri=True) as database:
        return dict(database.execute(f"select id, state_type from {table}").fetchall())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_next_run_marks_what_was_killed_and_no_sibling(tmp_path: Path) -> None:
    """A run is killed; of two that follow at once, on one database, the first marks it only."""
    home = tmp_path / "home"

    def written(store: str, count: int) -> Path:
        (tmp_path / store).mkdir()
        images = {"kind": "builtin:shapes", "count": count, "chunk_size": 4}
        return toy.write_spec(tmp_path / store, dataset=images, detectors=[], purifiers=[])

    # the sibling is long enough to be stopped on its way
    specs = {"a": written("a", 8), "b": written("b", 200), "c": written("c", 8)}
    variables = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    variables |= {"PREFECT_HOME": str(home)}

    def command(store: str, *before: str) -> list[str]:
        words = [sys.executable, "-m", *(before or ["flows.cli"])]
        return [*words, "run", str(specs[store]), "--store", str(tmp_path / store / "store")]

    killing = ["tests.flows.killed", "tasks.compute:compute_chunk", "4", "before", "--"]
    done = subprocess.run(command("a", *killing), cwd=ROOT, env=variables, timeout=200)
    assert done.returncode == -signal.SIGKILL
    [(killed, state)] = states(home).items()
    assert state == "RUNNING"
    sibling = subprocess.Popen(command("b"), cwd=ROOT, env=variables)
    try:
        until = time.monotonic() + 150
        while states(home)[killed] == "RUNNING":
            assert time.monotonic() < until
            time.sleep(0.05)
        sibling.send_signal(signal.SIGSTOP)
        assert sorted(states(home).values()) == ["CRASHED", "RUNNING"]
        subprocess.run(command("c"), cwd=ROOT, env=variables, timeout=200, check=True)
        assert sorted(states(home).values()) == ["COMPLETED", "CRASHED", "RUNNING"]
    finally:
        sibling.send_signal(signal.SIGCONT)
    assert sibling.wait(timeout=200) == 0
    assert sorted(states(home).values()) == ["COMPLETED", "COMPLETED", "CRASHED"]
    assert set(states(home, "task_run").values()) <= {"COMPLETED", "CRASHED"}
