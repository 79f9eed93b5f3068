"""The embedded Prefect server: started early, waited for late, and tied to the life of the run.

Prefect would start one itself, at the moment it is needed and not before, from a module that takes
longer to import than the server takes to answer. Here it starts while the run is still importing,
reading its dataset and loading its model, and Prefect is told its address as if it were any other.
A run that is killed has no exit, and its server would go on for ever; the kernel ends it instead.
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from urllib.error import URLError

from flows import engine, prefect_server

TIE = (
    "import ctypes, os, signal, sys; "
    "ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0); "  # PR_SET_PDEATHSIG
    "os.getppid() == int(sys.argv[1]) or sys.exit(1); "
    "os.execv(sys.argv[2], sys.argv[2:])"
)
"""Ask for SIGTERM when the parent dies, make sure that it has not died yet, become the program."""
AT_HOME = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
}
"""What Prefect sets for servers of this kind: no pages, and no services but those a run needs."""
ATTEMPTS = 5
"""Ports that are tried; another process may take one between the choice and the start."""
POLL = 0.05
"""Seconds between two looks at whether it answers."""


class Server:
    """A server process on a port of its own."""

    def __init__(self) -> None:
        self.port = _free_port()
        command = prefect_server.command(self.port, "error")
        # it has no pages, so that its own address is nobody's
        own = {prefect_server.ORIGINS: prefect_server.origins_of(self.port)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", TIE, str(os.getpid()), *command],
            env={**os.environ, **AT_HOME, **own},
        )
        self.used = False

    @property
    def url(self) -> str:
        """Where its API is."""
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    def answers(self) -> bool:
        """Whether it can be used."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def stop(self) -> None:
        """End it; one that was never used ends by itself as soon as it has come up."""
        if not self.alive:
            return
        self.process.terminate()
        if not self.used:
            # killed while it makes its database, it would leave half of one
            self.process.returncode = 0
            return
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


_servers: list[Server] = []


def launch() -> None:
    """Start the server where no other is configured, and do not wait for it; main thread only.

    Nothing of Prefect is imported.
    """
    if not (_servers and _servers[-1].alive) and not engine.has_server():
        _servers.append(Server())
        if len(_servers) == 1:
            atexit.register(_stop)


def launch_for(spec: Path, store: str, assignments: Sequence[str] = ()) -> None:
    """Start it early for a run, unless that run looks as if it had nothing left to do.

    Args:
        spec: file of the run's specification.
        store: folder or URL of the store.
        assignments: changes to the specification, each ``key=value``.
    """
    if not _has_outputs(spec, store, assignments):
        launch()


def _has_outputs(spec: Path, store: str, assignments: Sequence[str]) -> bool:
    """Whether a run of that name has finished once, as far as can be told in a moment."""
    import yaml

    names = [text.partition("=")[2] for text in assignments if text.startswith("name=")]
    try:
        name = names[-1] if names else yaml.safe_load(spec.read_bytes())["name"]
        return (Path(store.removeprefix("file://")).expanduser() / str(name) / "run.json").exists()
    except (OSError, LookupError, TypeError, ValueError, yaml.YAMLError):
        return False


def start(meanwhile: Callable[[], AbstractContextManager[object]] = nullcontext) -> None:
    """Have the server up where no other is configured; call it from the main thread.

    Args:
        meanwhile: what is entered while it is waited for.

    Raises:
        RuntimeError: where it does not come up in time.
    """
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    used = {server.url: server for server in _servers if server.used}
    if settings.api.url in used and used[settings.api.url].alive:
        return
    if settings.api.url not in (None, *used) or not settings.server.ephemeral.enabled:
        _stop()
        return
    with meanwhile():
        server = _await(time.monotonic() + settings.server.ephemeral.startup_timeout_seconds)
    server.used = True
    _tell_prefect(server.url)


def running() -> bool:
    """Whether runs of this process are told of a server that was started here."""
    from prefect.settings import get_current_settings

    return get_current_settings().api.url in {server.url for server in _servers if server.used}


def alone() -> bool:
    """Whether no server but a temporary one knows of the runs of this process."""
    from prefect.settings import get_current_settings

    return get_current_settings().api.url is None or running()


def _await(until: float) -> Server:
    """A server that answers."""
    for _ in range(ATTEMPTS):
        if not (_servers and _servers[-1].alive):
            if not _servers:
                atexit.register(_stop)
            _servers.append(Server())
        server = _servers[-1]
        while server.alive and time.monotonic() < until:
            if server.answers():
                return server
            time.sleep(POLL)
    raise RuntimeError(
        f"expected Prefect's embedded server to answer at {_servers[-1].url}, got nothing; set "
        "PREFECT_API_URL to use another, or PREFECT_LOGGING_SERVER_LEVEL=INFO to see what it says"
    )


def _tell_prefect(url: str) -> None:
    """Make it the server of this process, though not of others that it starts."""
    from prefect.context import refresh_global_settings_context

    before = os.environ.get("PREFECT_API_URL")
    os.environ["PREFECT_API_URL"] = url
    try:
        refresh_global_settings_context()
    finally:
        if before is None:
            del os.environ["PREFECT_API_URL"]
        else:
            os.environ["PREFECT_API_URL"] = before


def _stop() -> None:
    for server in _servers:
        server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
