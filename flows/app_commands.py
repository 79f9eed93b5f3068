"""The command that opens the app."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.app.packed import is_packed
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
        bool, typer.Option("--window", help="Open a window of its own (the extra window).")
    ] = False,
) -> None:
    """Open the app: try attacks and defences on one picture, or look at stored runs."""

    def action() -> None:
        from tasks.errors import SpecError

        folder = data or Path(os.environ.get("IMAGE_DEFENDER_DATA") or ".")
        if not folder.is_dir():
            raise SpecError(f"--data: expected a folder, got {folder}")
        if window:
            _check_window()
        from storage.files import store_root
        from storage.objects import ObjectPath

        root = store_root(store)
        if is_packed() and isinstance(root, ObjectPath):
            raise SpecError(
                f"--store: the executable opens stores in folders only, got {store}; those in a "
                "cloud need image-defender itself, with its extra s3"
            )
        try:
            from flows.app.server import Settings, free_port, is_loopback, serve
        except ModuleNotFoundError as error:
            if error.name != "nicegui":
                raise
            raise SpecError(
                "app: expected the package nicegui: pip install 'image-defender[app]'"
            ) from None

        chosen = free_port(host, port)
        if chosen != port and port:
            print(f"port {port} is taken", file=sys.stderr)
        if not is_loopback(host):
            print(f"warning: anyone who reaches {host} can use this app", file=sys.stderr)
        print(f"http://{host}:{chosen}/", flush=True)
        serve(Settings(root, folder.resolve(), host, chosen, show, window))

    guarded(action)


def _check_window() -> None:
    """Refuse a window where nothing can open one.

    Raises:
        SpecError: saying what is needed.
    """
    from tasks.errors import SpecError

    if is_packed():
        raise SpecError(
            "--window: the executable opens in the browser only; a window needs image-defender "
            "itself, with its extra window"
        )
    if importlib.util.find_spec("webview") is None:
        raise SpecError(
            "--window: expected the package pywebview: pip install 'image-defender[window]'"
        )
