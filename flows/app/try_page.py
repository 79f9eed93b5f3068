"""One picture at a time: attacked, looked at by a detector, purified, scored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nicegui import ui

from flows.app.frame import framed

if TYPE_CHECKING:
    from flows.app.server import Settings


def add(settings: Settings) -> None:
    """Add the page to the app."""

    @ui.page("/")
    def try_one() -> None:
        with framed("Try"):
            ui.label(str(settings.data))
