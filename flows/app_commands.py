"""The command that opens the app."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.command import DEFAULT_STORE, StoreOption, guarded


def app(
    store: StoreOption = DEFAULT_STORE,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free one.")] = 8642,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's own are open.")
    ] = "127.0.0.1",
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder below which typed paths must lie; default: IMAGE_DEFENDER_DATA, or here."
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--open/--no-open", help="Open the browser.")] = True,
    window: Annotated[
        bool, typer.Option("--window", help="Open a window of its own (needs pywebview).")
    ] = False,
) -> None:
    """Open the app: try attacks and defences on one picture, or look at stored runs."""

    def action() -> None:
        from tasks.errors import SpecError

        folder = data or Path(os.environ.get("IMAGE_DEFENDER_DATA") or ".")
        if not folder.is_dir():
            raise SpecError(f"--data: expected a folder, got {folder}")
        try:
            from flows.app.server import Settings, free_port, is_loopback, serve
        except ModuleNotFoundError as error:
            if error.name != "nicegui":
                raise
            raise SpecError(
                "app: expected the package nicegui: pip install 'image-defender[app]'"
            ) from None
        from storage.files import store_root

        chosen = free_port(host, port)
        if chosen != port and port:
            print(f"port {port} is taken", file=sys.stderr)
        if not is_loopback(host):
            print(f"warning: anyone who reaches {host} can use this app", file=sys.stderr)
        print(f"http://{host}:{chosen}/", flush=True)
        serve(Settings(store_root(store), folder.resolve(), host, chosen, show, window))

    guarded(action)
