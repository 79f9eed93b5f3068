"""Stored runs: score card, images, what was rejected, how far a run is."""

from __future__ import annotations

from nicegui import ui

from flows.app.frame import framed
from storage.files import Place


def add(root: Place) -> None:
    """Add the page to the app.

    Args:
        root: of the store.
    """

    @ui.page("/browse")
    def browse() -> None:
        with framed("Browse"):
            ui.label(f"{root}")
