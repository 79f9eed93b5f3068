"""Runs on threads, on processes and on Dask, in a folder and in a cloud: one result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.report import render
from flows.runners import chunk_task
from storage.files import Place, store_root
from tasks.errors import SpecError
from tasks.outputs import write_outputs
from tasks.spec_files import parse_spec
from tests import toy
from tests.cloud import TIMED, everything, fresh_url, s3_server
from tests.dask_cluster import ROOT, end, scheduler, start_worker
from tests.soak.faults import BEGUN, MADE, noted, settings

SPEC: dict[str, Any] = {
    "dataset": {"kind": "builtin:shapes", "count": 64, "chunk_size": 8},
    "purifiers": [{"name": "Median", "label": "median"}],
    "compute": {"batch": 8, "workers": 2, "device": "cpu"},
}
NOTING = ["--preload", "tests.soak.faults"]
"""Options of a worker that notes what it makes."""


def command(spec: Path, store: str, runner: str) -> list[str]:
    words = ["run", str(spec), "--store", store, "--runner", runner, "--json"]
    return [sys.executable, "-m", "flows.cli", *words]


def finish(spec: Path, store: str, runner: str) -> None:
    done = subprocess.run(
        command(spec, store, runner), cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr


def assert_same(found: dict[str, bytes], expected: dict[str, bytes]) -> None:
    assert found.keys() == expected.keys()
    differing = {name for name in found if found[name] != expected[name]}
    assert differing <= {f"toy/{name}" for name in TIMED}


@pytest.mark.parametrize("runner", ["thread", "dask:", "dask:localhost", "ray", "processes:2"])
def test_other_runners_are_refused(runner: str) -> None:
    with pytest.raises(SpecError, match=r"compute\.runner"):
        parse_spec(toy.content(compute={"runner": runner}))


def test_what_computes_is_no_part_of_what_is_computed(tmp_path: Path) -> None:
    threads = toy.bench(tmp_path)
    dask = toy.bench(tmp_path, compute={**toy.content()["compute"], "runner": "dask"})
    toy.run(threads)
    _, made = toy.run(dask)
    assert made == []
    assert chunk_task(threads).persist_result
    assert not chunk_task(dask).persist_result


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run without Prefect leaves, one chunk after the other."""
    state, _ = toy.run(toy.bench(tmp_path_factory.mktemp("alone"), **SPEC))
    write_outputs(state, render)
    return everything(state.bench.store.root)


@pytest.mark.slow
def test_processes_give_the_same_bytes(expected: dict[str, bytes], tmp_path: Path) -> None:
    finish(toy.write_spec(tmp_path, **SPEC), str(tmp_path / "store"), "processes")
    assert_same(everything(tmp_path / "store"), expected)


@pytest.mark.slow
def test_dask_and_s3_give_the_same_bytes(expected: dict[str, bytes], tmp_path: Path) -> None:
    pytest.importorskip("prefect_dask", reason="needs prefect-dask")
    spec = toy.write_spec(tmp_path, **SPEC)
    with s3_server():
        url = fresh_url("s3")
        finish(spec, url, "dask")
        assert_same(everything(store_root(url)), expected)


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a store that holds nothing yet."""
    if request.param == "folder":
        yield str(tmp_path / "store")
        return
    with s3_server():
        yield fresh_url("s3")


@pytest.fixture
def cluster(
    store: str, tmp_path: Path
) -> Iterator[tuple[str, list[subprocess.Popen[str]], dict[str, str]]]:
    """A Dask scheduler and two workers of one thread, which note what they make.

    Gives the scheduler's address, the workers, and the environment in which others do so too.
    """
    pytest.importorskip("prefect_dask", reason="needs prefect-dask")
    noting = {**os.environ, **settings(tmp_path, store)}
    with scheduler() as address:
        workers = [start_worker(address, NOTING, noting) for _ in range(2)]
        try:
            yield address, workers, noting
        finally:
            end(workers)


def marks(root: Place) -> dict[str, bytes]:
    """Every mark by the name of its chunk; a mark holds the time at which it was made."""
    return {
        f"{path.parent.parent.name}/{path.stem}": path.read_bytes()
        for path in root.rglob("[!.]*.json")
        if path.parent.name == "marks"
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_worker_that_is_killed_costs_its_chunk_in_flight(
    expected: dict[str, bytes],
    store: str,
    cluster: tuple[str, list[subprocess.Popen[str]], dict[str, str]],
    tmp_path: Path,
) -> None:
    address, workers, noting = cluster
    words = command(toy.write_spec(tmp_path, **SPEC), store, f"dask:{address}")
    running = subprocess.Popen(
        [sys.executable, "-m", "tests.soak.faults", *words[3:]],
        cwd=ROOT,
        env=noting,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while noted(tmp_path)[MADE].total() < 14:
            assert running.poll() is None
            time.sleep(0.05)
        workers[0].send_signal(signal.SIGKILL)
        done = marks(store_root(store))
        _, errors = running.communicate()
        assert running.returncode == 0, errors
    finally:
        end([running])
    assert_same(everything(store_root(store)), expected)
    total = marks(store_root(store))
    assert len(done) < len(total)
    # what was finished is as it was, and of the rest the worker's one chunk at most is begun again
    assert {name: total[name] for name in done} == done
    begun = noted(tmp_path)[BEGUN]
    assert begun.keys() == total.keys()
    assert begun.total() <= len(total) + 1
