"""How a command can be observed while it works: options that all of them share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

LogOption = Annotated[
    Path | None,
    typer.Option(
        "--log",
        envvar="IMAGE_DEFENDER_LOG",
        help="Append events to this file as JSON lines; - for standard error.",
        metavar="FILE",
    ),
]
MetricsPortOption = Annotated[
    int | None,
    typer.Option(
        envvar="IMAGE_DEFENDER_METRICS_PORT",
        min=1,
        max=65535,
        help="Serve figures for Prometheus on this port of the loopback interface.",
        metavar="PORT",
    ),
]


def observed(action: Callable[[], None], log: Path | None, port: int | None) -> Callable[[], None]:
    """The same action, with events written to a file and figures served while it works."""

    def watched() -> None:
        from flows.metrics import serving
        from tasks.telemetry import logging_to

        with logging_to(None if log is None else str(log)), serving(port):
            action()

    return watched
