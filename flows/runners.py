"""What runs the chunk tasks of a run: threads, processes of this machine, or a Dask cluster."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from tasks.devices import default_workers
from tasks.errors import SpecError
from tasks.prefect_task import make_chunk
from tasks.workbench import Workbench

Runner = TaskRunner[Any]


def worker_count(bench: Workbench) -> int:
    """How many chunks a run computes at a time."""
    return bench.spec.compute.workers or default_workers(bench.device)


def chunk_task(bench: Workbench) -> Task[..., Any]:
    """The task that makes a chunk, as it is given to the run's task runner."""
    compute = bench.spec.compute
    if not compute.runner.startswith("dask"):
        return make_chunk.with_options(retries=compute.retries)
    # a worker elsewhere has no part in this machine's result files; the ledger is in the store
    return make_chunk.with_options(
        retries=compute.retries,
        cache_policy=NO_CACHE,
        persist_result=False,
        cache_result_in_memory=True,
    )


@contextmanager
def task_runner(bench: Workbench) -> Iterator[Runner]:
    """What runs the chunk tasks of a run, ready to be given some.

    Raises:
        SpecError: where it needs a package that is not installed, or its cluster is not there.
    """
    kind, _, address = bench.spec.compute.runner.partition(":")
    workers = worker_count(bench)
    if kind == "threads":
        threads: Runner = ThreadPoolTaskRunner(max_workers=workers)
        with threads:
            yield threads
        return
    if kind == "processes":
        with ProcessPoolTaskRunner(
            max_workers=workers, initializer=tie, initargs=(os.getpid(),)
        ) as processes:
            yield processes
        return
    with _dask(address, workers) as cluster:
        yield cluster


def tie(parent: int) -> None:
    """Have the kernel end this process with the run that started it.

    Workers of a process pool would go on for ever after a run that was killed.

    Args:
        parent: process id of the run.
    """
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def _dask(address: str, workers: int) -> Runner:
    try:
        from prefect_dask.task_runners import DaskTaskRunner
    except ModuleNotFoundError:
        raise SpecError(
            "compute.runner: dask needs the package prefect-dask: "
            "pip install 'image-defender[dask]'"
        ) from None
    if address:
        made: Runner = DaskTaskRunner(address=address)
    else:
        made = DaskTaskRunner(
            cluster_kwargs={
                "n_workers": workers,
                "threads_per_worker": 1,
                "dashboard_address": None,
            }
        )
    return made
