"""The command line in a process that kills itself at the n-th call of a function.

``python -m tests.flows.killed MODULE:NAME N [before|after] -- COMMAND...``
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from typing import Any


def arm(target: str, count: int, moment: str) -> None:
    """Replace a function or method by one that sends SIGKILL around its n-th call."""
    module_name, _, path = target.partition(":")
    owner: Any = importlib.import_module(module_name)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original = getattr(owner, name)
    lock = threading.Lock()
    calls = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        with lock:
            calls += 1
            mine = calls == count
        if mine and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if mine:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, counted)


if __name__ == "__main__":
    divider = sys.argv.index("--")
    where, number, when = sys.argv[1:divider]
    command = sys.argv[divider + 1 :]
    from flows import engine

    engine.settle()
    arm(where, int(number), when)
    sys.argv = ["image-defender", *command]
    from flows.cli import main

    main()
