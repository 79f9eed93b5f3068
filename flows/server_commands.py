"""The commands ``up`` and ``down``: a Prefect server and a worker on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.command import JsonOption, guarded, print_json

HomeOption = Annotated[
    str,
    typer.Option("--home", help="Folder of the server's database and logs.", metavar="FOLDER"),
]
DEFAULT_HOME = "image-defender-server"


def up(
    port: Annotated[
        int | None,
        typer.Option(
            "--port", min=1, max=65535, help="Port on 127.0.0.1: that of last time, or 4200."
        ),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Start a Prefect server and a worker here, and deploy what prefect.yaml lists."""

    def action() -> None:
        from flows.server import start

        quiet = (lambda text: None) if as_json else print
        found = start(home, port, quiet)
        if as_json:
            print_json(
                {
                    "address": found.address,
                    "api": f"{found.address}/api",
                    "logs": str(found.logs),
                    "started": found.started,
                    "deployed": found.deployed,
                    "lost": found.lost,
                }
            )
            return
        for name in found.lost:
            print(f"was left behind, now marked as crashed: {name}")
        where = "" if home == DEFAULT_HOME else f" --home {home}"
        print(f"{'up' if found.started else 'is up already'}: dashboard {found.address}")
        print(f"  export PREFECT_API_URL={found.address}/api")
        print("  prefect deployment run evaluate/evaluate --watch")
        print(f"  image-defender down{where}")
        print(f"logs: {found.logs}")

    guarded(action)


def down(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Stop the worker, its flow runs and the server."""

    def action() -> None:
        from flows.server import place_of, stop

        stopped = stop(home)
        if as_json:
            print_json({"stopped": stopped})
        elif stopped:
            print(f"stopped: {', '.join(stopped)}")
        else:
            print(f"nothing runs from {place_of(home).home}")

    guarded(action)
