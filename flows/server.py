"""A Prefect server and a worker on this machine: started, found again, and stopped."""

from __future__ import annotations

import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import flows
from flows import prefect_server
from flows.engine import HOME
from flows.prefect_server import HOST
from flows.processes import Process, end, launch, marked, note, noted, wait_for
from storage.files import exclusive, write_atomic

POOL = "default"
DEFAULT_PORT = 4200
MARK = "IMAGE_DEFENDER_SERVER"
"""Variable in the environment of everything that belongs to a server: its home."""
STARTS_WITHIN = 180.0
"""Seconds in which server and worker are up, at most, where other work takes the processor."""
ENDS_WITHIN = 15.0
"""Seconds in which a process ends that was asked to, before it is killed."""
FORCED = ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH")
"""Settings of the user's that are about another server."""


@dataclass(frozen=True)
class Place:
    """Where a server keeps its database, logs and notes.

    Args:
        home: an absolute folder.
    """

    home: Path

    @property
    def server(self) -> Path:
        """The note of the server's process."""
        return self.home / "server.json"

    @property
    def worker(self) -> Path:
        """The note of the worker's process."""
        return self.home / "worker.json"

    @property
    def logs(self) -> Path:
        """The folder of what both print."""
        return self.home / "logs"

    @property
    def port(self) -> int | None:
        """The port of the server that was started last, None before that."""
        try:
            return int((self.home / "port").read_text())
        except (OSError, ValueError):
            return None

    def remember(self, port: int) -> None:
        """Note the port of the server."""
        write_atomic(self.home / "port", str(port).encode())


@dataclass(frozen=True)
class Up:
    """A server that is up.

    Args:
        address: of its dashboard.
        logs: folder of the logs.
        started: whether it or its worker was started now.
        deployed: whether deployments were made or brought up to date now.
        lost: names of flow runs that had been left behind and were marked as crashed.
    """

    address: str
    logs: Path
    started: bool
    deployed: bool
    lost: list[str]


def place_of(home: str | Path) -> Place:
    """The place of a server, as an absolute path without links."""
    return Place(Path(home).expanduser().resolve())


def address_of(port: int) -> str:
    """The dashboard of a server on this machine."""
    return f"http://{HOST}:{port}"


def environment(place: Place, port: int) -> dict[str, str]:
    """The environment of a server's processes: the user's, with what belongs to this server."""
    api = f"{address_of(port)}/api"
    kept = {name: value for name, value in os.environ.items() if name not in FORCED}
    return {
        "PREFECT_LOGGING_LEVEL": "INFO",
        **HOME,
        prefect_server.OLDER_ORIGINS: prefect_server.origins_of(port),
        **kept,
        "PREFECT_HOME": str(place.home),
        "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(place.home / "storage"),
        "PREFECT_API_URL": api,
        # the page asks port 4200 otherwise, whatever port it comes from
        "PREFECT_SERVER_UI_API_URL": api,
        MARK: str(place.home),
    }


def worker_name() -> str:
    """What the worker of this machine is called on the dashboard."""
    return f"worker-{socket.gethostname()}"


def project() -> Path:
    """The folder with ``prefect.yaml``: the current one, or that of the package.

    Raises:
        FileNotFoundError: where there is none.
    """
    for folder in (Path.cwd(), Path(flows.__file__).resolve().parents[1]):
        if (folder / "prefect.yaml").is_file():
            return folder
    raise FileNotFoundError(
        f"up: expected prefect.yaml in {Path.cwd()}, found none; run it in the project's folder"
    )


def start(home: str | Path, port: int | None, say: Callable[[str], None] = print) -> Up:
    """Start what is not running of server and worker, and deploy what is not deployed.

    Args:
        home: folder of the server.
        port: to listen on; none: that of last time, or 4200.
        say: told what happens.

    Raises:
        RuntimeError: where something does not come up, or the port is taken.
        FileNotFoundError: where there is no ``prefect.yaml``.
    """
    place, folder = place_of(home), project()
    with exclusive(place.home):
        place.logs.mkdir(exist_ok=True)
        running = noted(place.server)
        if running is not None and port is not None and port != place.port:
            raise RuntimeError(
                f"--port: expected {place.port}, where the server of {place.home} runs, got "
                f"{port}; image-defender down stops it"
            )
        port = port or place.port or DEFAULT_PORT
        variables = environment(place, port)
        started = running is None
        if running is None:
            say("starting the server")
            running = _start_server(place, port, variables)
        _healthy(running, port, place)
        worker = noted(place.worker)
        # what the server is asked for needs Prefect, which reads its settings when it is imported
        os.environ.update(variables)
        from flows import server_setup

        server_setup.prepare(POOL)
        lost = server_setup.mark_lost_runs(worker_name()) if worker is None else []
        if worker is None:
            started = True
            say("starting the worker")
            worker = _start_worker(place, variables, folder)
        deployed = server_setup.deploy(folder, place.home, variables, say)
        server_setup.wait_for_worker(
            POOL, STARTS_WITHIN, lambda: _alive(worker, "worker", place.logs)
        )
        return Up(address_of(port), place.logs, started, deployed, lost)


def stop(home: str | Path) -> list[str]:
    """Stop worker, flow runs and server, in this order; processes of others are left alone.

    Returns:
        What was stopped, in words; nothing where nothing ran.
    """
    place = place_of(home)
    if not place.home.is_dir():
        return []
    with exclusive(place.home):
        words = []
        server, worker = noted(place.server), noted(place.worker)
        if worker is not None:
            words.append("worker")
            _end([worker])
        runs = [one for one in marked(MARK, str(place.home)) if one != server]
        if runs:
            words.append(f"{len(runs)} processes of flow runs")
            _end(runs)
        if server is not None:
            words.append("server")
            _end([server])
        _end(marked(MARK, str(place.home)))
        for path in (place.worker, place.server):
            path.unlink(missing_ok=True)
        return words


def _end(processes: list[Process]) -> None:
    end(processes, ENDS_WITHIN)


def _start_server(place: Place, port: int, variables: dict[str, str]) -> Process:
    _check_free(port)
    variables = {**variables, **prefect_server.ALONE}
    command = prefect_server.command(port, "warning")
    process = launch(command, variables, place.home, place.logs / "server.log")
    note(place.server, process)
    place.remember(port)
    return process


def _start_worker(place: Place, variables: dict[str, str], folder: Path) -> Process:
    command = [sys.executable, "-m", "prefect", "worker", "start"]
    command += ["--pool", POOL, "--type", "process", "--name", worker_name()]
    process = launch(command, variables, folder, place.logs / "worker.log")
    note(place.worker, process)
    return process


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise RuntimeError(
                f"--port: expected a free port, got {port}, on which something else listens"
            ) from None


def _healthy(server: Process, port: int, place: Place) -> None:
    """Wait until the server answers."""
    until = time.monotonic() + STARTS_WITHIN
    while not _answers(port):
        _alive(server, "server", place.logs)
        if time.monotonic() > until:
            raise RuntimeError(
                f"server: expected an answer within {STARTS_WITHIN:.0f} s, got none: "
                f"see {place.logs / 'server.log'}"
            )
        wait_for([server], 0.2)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"{address_of(port)}/api/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _alive(process: Process | None, name: str, logs: Path) -> None:
    if process is None or not process.alive:
        raise RuntimeError(f"{name}: expected it to run, it ended: see {logs / name}.log")
