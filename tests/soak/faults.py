"""Faults within a process: a store that fails now and then, and a note of every chunk made.

As a module that Dask's workers load (``--preload``), or in front of the command line:
``python -m tests.soak.faults COMMAND...``.
"""

from __future__ import annotations

import errno
import os
import random
import sys
from pathlib import Path
from typing import Any

from storage.ledger import Ledger, Mark

RATE, STORE, FULL, MADE = "SOAK_RATE", "SOAK_STORE", "SOAK_FULL", "SOAK_MADE"
"""Share of failing operations; the store; a file that stands for a full disk; the notes."""


def arm() -> None:
    """Make the store of this process fail as the environment says, and note what it makes."""
    rate, store = float(os.environ[RATE]), os.environ[STORE]
    full = Path(os.environ[FULL])
    chance = random.Random(os.getpid())
    fsync, read, write = os.fsync, Path.read_bytes, Ledger.write

    def failing_fsync(file: int) -> None:
        if full.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if chance.random() < rate:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(file)

    def failing_read(path: Path) -> bytes:
        if str(path).startswith(store) and chance.random() < rate:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(path)

    def noted_write(ledger: Ledger, mark: Mark) -> None:
        write(ledger, mark)
        with open(os.environ[MADE], "a") as notes:
            notes.write(f"{ledger.folder.name}/{mark.key}\n")

    os.fsync = failing_fsync
    replaced: Any = Path
    replaced.read_bytes = failing_read
    replaced = Ledger
    replaced.write = noted_write


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
