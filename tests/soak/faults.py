"""Faults within a process: a store that fails now and then, and notes of what happened.

As a module that Dask's workers load (``--preload``), or in front of the command line:
``python -m tests.soak.faults COMMAND...``.
"""

from __future__ import annotations

import errno
import os
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from storage.ledger import Ledger, Mark

RATE, STORE, FULL, NOTES = "SOAK_RATE", "SOAK_STORE", "SOAK_FULL", "SOAK_NOTES"
"""Share of failing operations; the store; a file that stands for a full disk; the notes."""
BEGUN, MADE, REFUSED, FAILED = "begun", "made", "refused", "failed"
"""Kinds of notes: a chunk that was begun and one that was made, a write to a full disk, and an
operation that failed in passing."""


def settings(folder: Path, store: object, rate: float = 0.0) -> dict[str, str]:
    """Variables of the environment for :func:`arm`.

    Args:
        folder: where the notes go, and the file that stands for a full disk.
        store: the store that fails.
        rate: share of its operations that fail.
    """
    return {
        RATE: str(rate),
        STORE: str(store),
        FULL: str(folder / "full"),
        NOTES: str(folder / "notes"),
    }


def noted(folder: Path) -> dict[str, Counter[str]]:
    """What was noted: how often by kind and name; names are stage and key of chunks."""
    found: dict[str, Counter[str]] = {kind: Counter() for kind in (BEGUN, MADE, REFUSED, FAILED)}
    notes = folder / "notes"
    for line in notes.read_text().splitlines() if notes.is_file() else ():
        kind, name = line.split()
        found[kind][name] += 1
    return found


def arm() -> None:
    """Make the store of this process fail as the environment says, and note what it makes."""
    rate, store = float(os.environ[RATE]), os.environ[STORE]
    full = Path(os.environ[FULL])
    chance = random.Random(os.getpid())
    fsync, read = os.fsync, Path.read_bytes
    write, withdraw = Ledger.write, Ledger.withdraw

    def note(kind: str, name: str) -> None:
        with open(os.environ[NOTES], "a") as notes:
            notes.write(f"{kind} {name}\n")

    def fail_in_passing(operation: str) -> None:
        if chance.random() < rate:
            note(FAILED, operation)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def failing_fsync(file: int) -> None:
        if full.exists():
            note(REFUSED, "write")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fail_in_passing("write")
        fsync(file)

    def failing_read(path: Path) -> bytes:
        if str(path).startswith(store):
            fail_in_passing("read")
        return read(path)

    def noted_withdraw(ledger: Ledger, key: str) -> None:
        # the first step of making a chunk
        note(BEGUN, f"{ledger.folder.name}/{key}")
        withdraw(ledger, key)

    def noted_write(ledger: Ledger, mark: Mark) -> None:
        write(ledger, mark)
        note(MADE, f"{ledger.folder.name}/{mark.key}")

    os.fsync = failing_fsync
    replaced: Any = Path
    replaced.read_bytes = failing_read
    replaced = Ledger
    replaced.withdraw, replaced.write = noted_withdraw, noted_write


def dask_setup(worker: Any) -> None:
    """Called by Dask in a worker that loads this module."""
    arm()


if __name__ == "__main__":
    from flows import engine

    engine.settle()
    arm()
    from flows.cli import main

    sys.argv[0] = "image-defender"
    main()
