"""The app's server: pages, pictures and guards on a port of this machine."""

from __future__ import annotations

import ipaddress
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from nicegui import app, ui

from flows.app import browse_page, shelf, try_page
from flows.app.guards import LARGEST, Guards
from storage.files import Place

ICON = (
    '<svg viewBox="0 0 32 32" xmlns="http://www.w3.org/2000/svg">'
    '<path fill="#2b6cb0" d="M16 2 28 6v10c0 7-5 12-12 14C9 28 4 23 4 16V6z"/>'
    '<path fill="#fff" d="m9 22 5-7 4 5 2-2 4 4z"/></svg>'
)


RECONNECT = 60.0
"""Seconds for which a page that was lost may come back to its work, on a machine that is busy."""


@dataclass(frozen=True)
class Settings:
    """How the app is served.

    Args:
        store: whose runs can be browsed.
        data: folder below which typed paths lie: data sets, weights, specifications.
        host: address it listens on.
        port: of it.
        show: open it in the browser.
        native: open it in a window of its own, which needs pywebview.
        largest: bytes of a dropped picture, at most.
    """

    store: Place
    data: Path
    host: str = "127.0.0.1"
    port: int = 8642
    show: bool = True
    native: bool = False
    largest: int = LARGEST

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names that requests may be for; any where it listens to the network."""
        if is_loopback(self.host):
            return ("localhost", "127.0.0.1", "::1", self.host.lower())
        return ()


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def free_port(host: str, wanted: int) -> int:
    """The port that is wanted, or another where that is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in (wanted, 0):
        with socket.socket(family) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError(f"port: expected one that is free on {host}, found none")


def serve(settings: Settings) -> None:
    """Serve the app until it is stopped."""
    # read by the library that fetches models; what may be named here needs no hub
    os.environ["HF_HUB_OFFLINE"] = "1"
    app.add_middleware(Guards, hosts=settings.hosts, largest=settings.largest)
    shelf.add()
    try_page.add(settings)
    browse_page.add(settings.store)
    ui.run(
        host=settings.host,
        port=settings.port,
        title="image-defender",
        favicon=ICON,
        dark=None,
        show=settings.show and not settings.native,
        native=settings.native,
        reload=False,
        tailwind=False,
        reconnect_timeout=RECONNECT,
        show_welcome_message=False,
        uvicorn_logging_level="warning",
    )
