"""The embedded Prefect server, tied to the life of the run that started it.

Prefect starts it as a process of its own and stops it at exit. A run that is killed has no exit,
and its server would go on for ever; here the kernel ends it with the run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

from prefect.server.api import server as prefect_server
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import get_current_settings

TIE = (
    "import ctypes, os, signal, sys; "
    "ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0); "  # PR_SET_PDEATHSIG
    "os.getppid() == int(sys.argv[1]) or sys.exit(1); "
    "os.execv(sys.argv[2], sys.argv[2:])"
)
"""Ask for SIGTERM when the parent dies, make sure that it has not died yet, become the program."""


def _tied(args: list[str], **more: Any) -> subprocess.Popen[Any]:
    return subprocess.Popen([sys.executable, "-c", TIE, str(os.getpid()), *args], **more)


def start() -> None:
    """Start the embedded server where no other is configured; call it from the main thread.

    Raises:
        RuntimeError: where it does not come up in time.
    """
    settings = get_current_settings()
    if settings.api.url is not None or not settings.server.ephemeral.enabled:
        return
    names = {name: getattr(subprocess, name) for name in subprocess.__all__}
    original = vars(prefect_server)["subprocess"]
    vars(prefect_server)["subprocess"] = SimpleNamespace(**{**names, "Popen": _tied})
    try:
        SubprocessASGIServer().start()
    finally:
        vars(prefect_server)["subprocess"] = original
