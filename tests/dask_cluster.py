"""A Dask cluster of separate processes, whose workers can be killed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def scheduler() -> Iterator[str]:
    """A scheduler; gives its address."""
    options = ["--host", "127.0.0.1", "--no-dashboard", "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", "scheduler", *options],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield _address(process)
    finally:
        end([process])


def start_worker(
    address: str, options: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start a worker of one thread.

    Args:
        address: of the scheduler.
        options: for ``dask worker``.
        environment: all variables of the process; none: those of this one.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "dask", "worker", address, "--nthreads=1", "--no-nanny", *options],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def end(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Kill processes and wait for their end."""
    for process in processes:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def _address(process: subprocess.Popen[str]) -> str:
    if process.stderr is None:
        raise ValueError("scheduler: expected its standard error to be piped")
    for line in process.stderr:
        if found := re.search(r"Scheduler at:\s+(tcp://\S+)", line):
            return found.group(1)
    raise RuntimeError("scheduler: expected an address, got none")
