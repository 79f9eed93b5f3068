"""Measuring the memory and the number of all processes of a sandbox."""

from __future__ import annotations

import os
from dataclasses import dataclass

from tasks.sandbox.processes import PROC, descendants, read, stat

_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """What a tree of processes uses.

    Args:
        memory: resident bytes.
        threads: processes and threads.
    """

    memory: int
    threads: int


def _quick_descendants(root: int) -> list[int]:
    """The same by the kernel's lists of children: quick, and good enough to measure by."""
    found, open_ = [], [root]
    while open_:
        tasks = PROC / str(open_.pop()) / "task"
        try:
            threads = os.listdir(tasks)
        except OSError:
            continue
        for thread in threads:
            below = [int(pid) for pid in read(tasks / thread / "children").split()]
            open_ += below
            found += below
    return found


_HAS_CHILDREN = (PROC / f"self/task/{os.getpid()}/children").exists()


def _proportional(pid: int, size: int) -> int:
    """Resident bytes of a process, its share of what it shares; ``size`` where that is unknown."""
    for line in read(PROC / str(pid) / "smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    return size


def peak_memory(pid: int) -> int:
    """Largest resident memory that a process ever had, in bytes; 0 where it is gone."""
    for line in read(PROC / str(pid) / "status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0


class Meter:
    """Measures the processes below one, again and again.

    The resident sizes of processes are quick to read, but count in full for each what forks share.
    What they share is slow to read. So that is done only where the sum is more than ``allowed``,
    and again only when the sizes have grown since by as much as was left.

    Args:
        root: the process above them.
        allowed: bytes below which nobody needs to know exactly.
    """

    def __init__(self, root: int, allowed: int) -> None:
        self.root = root
        self.allowed = allowed
        self._exact = 0
        self._then: dict[int, int] = {}

    def measure(self) -> Usage:
        """Memory, at most what the resident sizes add up to, and threads."""
        sizes: dict[int, int] = {}
        threads = 0
        for pid in _quick_descendants(self.root) if _HAS_CHILDREN else descendants(self.root):
            fields, pages = stat(pid), read(PROC / str(pid) / "statm").split()
            if fields and pages and fields[0] not in "ZX":
                sizes[pid] = int(pages[1]) * _PAGE
                threads += int(fields[17])
        memory = sum(sizes.values())
        if memory > self.allowed and len(sizes) > 1:
            grown = sum(max(0, size - self._then.get(pid, 0)) for pid, size in sizes.items())
            if not self._then or self._exact + grown > self.allowed:
                self._then = sizes
                self._exact = sum(_proportional(pid, size) for pid, size in sizes.items())
                grown = 0
            memory = min(memory, self._exact + grown)
        return Usage(memory, threads)
