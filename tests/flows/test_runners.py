"""Runs on threads, on processes and on Dask, in a folder and in a cloud: one result."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.runners import chunk_task
from storage.files import store_root
from tasks.errors import SpecError
from tasks.spec_files import parse_spec
from tests import toy
from tests.cloud import TIMED, everything, fresh_url, s3_server
from tests.dask_cluster import ROOT, end, scheduler, start_worker

SPEC: dict[str, Any] = {
    "dataset": {"kind": "builtin:shapes", "count": 144, "chunk_size": 12},
    "compute": {"batch": 8, "workers": 2, "device": "cpu"},
}


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
    folder = tmp_path_factory.mktemp("threads")
    finish(toy.write_spec(folder, **SPEC), str(folder / "store"), "threads")
    return everything(folder / "store")


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


@pytest.fixture
def cluster() -> Iterator[tuple[str, list[subprocess.Popen[str]]]]:
    """A Dask scheduler and two workers of one thread: its address, and the workers."""
    pytest.importorskip("prefect_dask", reason="needs prefect-dask")
    with scheduler() as address:
        workers = [start_worker(address) for _ in range(2)]
        try:
            yield address, workers
        finally:
            end(workers)


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_its_chunk_in_flight(
    expected: dict[str, bytes],
    cluster: tuple[str, list[subprocess.Popen[str]]],
    tmp_path: Path,
) -> None:
    address, workers = cluster
    store = tmp_path / "store"
    spec = toy.write_spec(tmp_path, **SPEC)
    running = subprocess.Popen(
        command(spec, str(store), f"dask:{address}"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 200
    while len(list(store.glob("data/*/marks/*.json"))) < 20:
        assert time.monotonic() < deadline
        assert running.poll() is None
        time.sleep(0.05)
    workers[0].send_signal(signal.SIGKILL)
    done = {path: path.stat().st_mtime_ns for path in store.glob("data/*/marks/*.json")}
    _, errors = running.communicate(timeout=280)
    assert running.returncode == 0, errors
    assert_same(everything(store), expected)
    assert len(list(store.glob("data/*/marks/*.json"))) > len(done)
    # what was finished is as it was
    assert {path: path.stat().st_mtime_ns for path in done} == done
