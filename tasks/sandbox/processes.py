"""The processes of a sandbox: finding them and ending them all."""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

PROC = Path("/proc")


def read(path: Path) -> str:
    """A file of ``/proc``, empty where the process is gone or not ours."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def stat(pid: int) -> list[str]:
    """Fields of ``/proc/<pid>/stat`` from the state on, which is field 3 of the manual page."""
    return read(PROC / str(pid) / "stat").rpartition(")")[2].split()


def runs(pid: int) -> bool:
    """Whether a process is there and not dead yet."""
    fields = stat(pid)
    return bool(fields) and fields[0] not in "ZX"


def running() -> list[int]:
    """Ids of the processes that are not dead yet."""
    return [int(name) for name in os.listdir(PROC) if name.isdecimal() and runs(int(name))]


def children(parent: int) -> list[int]:
    """Running processes that a process has started, or that came to it as orphans."""
    return [pid for pid in running() if (fields := stat(pid)) and int(fields[1]) == parent]


def descendants(root: int) -> list[int]:
    """Running processes below ``root``, found by a scan of all processes."""
    children: dict[int, list[int]] = defaultdict(list)
    for name in os.listdir(PROC):
        if name.isdecimal() and (fields := stat(int(name))):
            children[int(fields[1])].append(int(name))
    found, open_ = [], [root]
    while open_:
        below = children.pop(open_.pop(), [])
        open_ += below
        found += below
    return [pid for pid in found if runs(pid)]


def kill(pid: int) -> None:
    """End one process, if it still is there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def kill_descendants(root: int, seconds: float = 5.0) -> bool:
    """End all processes below ``root``, those that are started meanwhile included.

    Returns:
        Whether none was left in the end.
    """
    return _kill_until_none(lambda: descendants(root), seconds)


def named(name: str) -> list[int]:
    """Running processes of a name, which forks inherit."""
    return [pid for pid in running() if read(PROC / str(pid) / "comm").rstrip("\n") == name]


def kill_named(name: str, seconds: float = 5.0) -> bool:
    """End all processes of a name; see `kill_descendants`."""
    return _kill_until_none(lambda: named(name), seconds)


def _kill_until_none(find: Callable[[], list[int]], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while left := find():
        for pid in left:
            kill(pid)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True
