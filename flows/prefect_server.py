"""Prefect's server behind a guard: what ``up`` and runs without a server start.

Whoever may ask this server may have it start commands. It has no password, and by itself answers
pages of every site that is open in a browser on this machine.
"""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import urlsplit

from flows.guarding import ANY, LOOPBACK, Application, Guard, host_of

HOST = "127.0.0.1"
ORIGINS = "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS"
"""Prefect's setting of the pages that may ask: the newer of its two names, which it prefers."""
OLDER_ORIGINS = "PREFECT_SERVER_CORS_ALLOWED_ORIGINS"
ALONE = {"PREFECT__SERVER_FINAL": "1"}
"""What Prefect sets where a process serves nothing else."""
HEADERS = ((b"content-security-policy", b"frame-ancestors 'none'"),)
"""No page of another site may show the dashboard in a frame of its own."""


def command(port: int, log_level: str) -> list[str]:
    """The command that starts the server on this machine; what it is to do is its environment's.

    Args:
        port: to listen on.
        log_level: of what it prints.
    """
    # its working directory need not be the one from which the package is imported
    place = str(Path(__file__).resolve().parents[1])
    words = [sys.executable, "-m", "uvicorn", "--app-dir", place, "--factory"]
    words += [f"{__name__}:create_app", "--host", HOST, "--port", str(port)]
    return [*words, "--log-level", log_level, "--lifespan", "on"]


def origins_of(port: int) -> str:
    """The addresses of a server's own pages, as Prefect's setting wants them."""
    return ",".join(f"http://{name}:{port}" for name in (HOST, "localhost"))


def create_app() -> Application:
    """Prefect's server, for those that ask for it by name, and for its own pages.

    Pages may ask that ``PREFECT_SERVER_CORS_ALLOWED_ORIGINS`` names. The names of this machine are
    the loopback ones and those in that setting; with ``*``, every page and name is let in.
    """
    from prefect.server.api.server import create_app as unguarded
    from prefect.settings import get_current_settings

    allowed = get_current_settings().server.api.cors_allowed_origins.split(",")
    return guarded(unguarded(), [one.strip() for one in allowed if one.strip()])


def guarded(app: Application, origins: list[str]) -> Guard:
    """An application behind the guard of :func:`create_app`."""
    names = () if ANY in origins else (*LOOPBACK, *(host_of(urlsplit(o).netloc) for o in origins))
    return Guard(app, names, origins, HEADERS)
