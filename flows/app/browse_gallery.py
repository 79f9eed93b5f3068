"""The images of a stored run on a page: what to show, in which order, page by page."""

from __future__ import annotations

import json
from asyncio import to_thread
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from flows.app.browse_strips import Strips
from flows.app.browse_words import address, count, sentence
from storage.errors import StorageError
from tasks.library import Library, Opened
from tasks.views import ORDERS, Page, View

SHOWS = {
    "all": "all images",
    "fooled": "fooled by the attack",
    "restored": "restored by the purifier",
    "wrong": "still wrong",
    "flagged": "flagged by the detector",
}
IN_ORDER = {"worst": "worst first", "best": "best first", "place": "as in the data set"}
CHOICES = ("attack", "purifier", "show", "detector", "order", "by")
TITLES = {
    "attack": "Attack",
    "purifier": "Purifier",
    "show": "Show",
    "detector": "Detector",
    "order": "Order",
    "by": "Worst by",
}
VERSION = 12
"""Digits of the digest of a run in the addresses of its pictures."""


class Images:
    """The images of a run; what is read is read in threads, so that nobody waits for another.

    Args:
        library: the store.
        opened: the run, with a gallery.
        asked: what the address of the page asks for.
    """

    def __init__(self, library: Library, opened: Opened, asked: Mapping[str, str]) -> None:
        self.library, self.opened = library, opened
        self.name = opened.overview.name
        names = (*CHOICES, "search")
        given = {name: asked[name] for name in names if name in asked}
        if "attack" not in given:
            given["attack"] = ""
        self.view = View(**given)
        self.first = "purifier" not in given
        text = asked.get("page", "1")
        self.number = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 1
        self.turn = 0
        self._filling = False
        self.chosen: dict[str, Any] = {}

    async def build(self) -> None:
        """Draw everything."""
        with ui.element("div").classes("br-controls").props('role="group" aria-label="Filters"'):
            for name in CHOICES:
                self.chosen[name] = (
                    ui.select({}, label=TITLES[name], on_change=lambda e, n=name: self._set(n, e))
                    .props(f'dense outlined options-dense data-test="{name}"')
                    .classes("br-choice")
                )
            self.search = (
                ui.input("Name contains", value=self.view.search)
                .props('dense outlined clearable debounce="300" type="search" data-test="search"')
                .classes("br-choice")
            )
            self.search.on_value_change(lambda event: self._search(event.value))
        with ui.element("nav").classes("br-pager").props('aria-label="Pages of images"'):
            self.previous = ui.button(
                icon="chevron_left", on_click=lambda: self.turn_to(self.number - 1)
            ).props('flat dense id="br-previous" aria-label="Previous page"')
            self.position = ui.label().props(
                'role="status" aria-live="polite" data-test="position"'
            )
            self.following = ui.button(
                icon="chevron_right", on_click=lambda: self.turn_to(self.number + 1)
            ).props('flat dense id="br-next" aria-label="Next page"')
            self.jump = (
                ui.number("Page", value=1, min=1, precision=0, on_change=self._jumped)
                .props('dense outlined debounce="400" data-test="jump"')
                .classes("br-jump")
            )
            ui.label("left and right arrow: pages; click: larger").classes("muted small")
        self.strips = ui.html(sanitize=False)
        with ui.element("nav").classes("br-pager").props('aria-label="Pages of images, again"'):
            # beneath the images, where a thumb is when they have been looked at
            self.back = ui.button("Previous", on_click=lambda: self._step(-1)).props("flat no-caps")
            self.forth = ui.button("Next", on_click=lambda: self._step(1)).props("flat no-caps")
        await self.refresh()

    async def refresh(self) -> None:
        """Show the page of images that is asked for, from the run as it is now."""
        self.turn += 1
        turn = self.turn
        try:
            opened, view, page, html = await to_thread(self._read, self.view, self.number)
        except StorageError as error:
            self.strips.content = sentence(str(error))
            return
        if turn != self.turn:
            return  # something else was asked for meanwhile
        self.opened, self.view, self.number, self.first = opened, view, page.number, False
        self._fill(view)
        self._say(page)
        self.strips.content = html
        asked = {name: getattr(view, name) for name in (*CHOICES, "search") if getattr(view, name)}
        link = f"{address(self.name)}?{urlencode({**asked, 'page': page.number})}"
        ui.run_javascript(f"history.replaceState(null, '', {json.dumps(link)})")

    def _read(self, view: View, number: int) -> tuple[Opened, View, Page, str]:
        opened = self.library.open(self.name)
        gallery = opened.gallery
        if gallery is None:
            return opened, view, Page(), Strips(self.name, "", 0).html(Page())
        view = gallery.settled(view)
        if self.first:
            # the whole strip, where a purifier was tried
            view = gallery.settled(replace(view, purifier=gallery.purifiers(view.attack)[0]))
        page = gallery.page(view, number)
        factor = 0
        if view.attack != "none" and page.shots:
            factor = self.library.pictures.factor(gallery.run, view.attack)
        version = "" if opened.overview.begun is not None else gallery.run.digest[:VERSION]
        return opened, view, page, Strips(self.name, version, factor).html(page)

    def _fill(self, view: View) -> None:
        gallery = self.opened.gallery
        if gallery is None:
            return
        strips = Strips(self.name, "", 0)
        options = {
            "attack": {label: _label(label, "no attack") for label in gallery.attacks},
            "purifier": {
                label: _label(label, "no purifier") for label in gallery.purifiers(view.attack)
            },
            "show": {name: SHOWS[name] for name in gallery.shows(view)},
            "detector": {label: label for label in gallery.detectors(view.attack)},
            "order": {name: IN_ORDER[name] for name in ORDERS},
            "by": {name: strips.title(name) for name in gallery.columns(view)},
        }
        self._filling = True
        try:
            for name, known in options.items():
                chosen = self.chosen[name]
                value = getattr(view, name) or None
                chosen.set_options(known, value=value if value in known else None)
                chosen.visible = bool(known)
        finally:
            self._filling = False

    def _say(self, page: Page) -> None:
        of = "" if page.found == page.total else f" of {count(page.total)}"
        self.position.text = (
            f"page {count(page.number)} of {count(page.pages)} \u00b7 "
            f"{count(page.found)}{of} images"
        )
        for button in (self.previous, self.back):
            button.set_enabled(page.number > 1)
        for button in (self.following, self.forth):
            button.set_enabled(page.number < page.pages)
        self._filling = True
        try:
            self.jump.max = page.pages
            self.jump.value = page.number
        finally:
            self._filling = False

    async def _set(self, name: str, event: Any) -> None:
        if self._filling or event.value is None or event.value == getattr(self.view, name):
            return
        changes = {name: event.value}
        if name == "by" and self.view.order == "place":
            changes["order"] = "worst"
        self.view = replace(self.view, **changes)
        self.number = 1
        await self.refresh()

    async def _search(self, text: str | None) -> None:
        if (text or "") != self.view.search:
            self.view = replace(self.view, search=text or "")
            self.number = 1
            await self.refresh()

    async def _jumped(self, event: Any) -> None:
        if not self._filling and event.value is not None and int(event.value) != self.number:
            await self.turn_to(int(event.value))

    async def _step(self, step: int) -> None:
        await self.turn_to(self.number + step)
        ui.run_javascript("document.querySelector('.br-strips')?.scrollIntoView()")

    async def turn_to(self, number: int) -> None:
        """Show another page."""
        self.number = number
        await self.refresh()


def _label(label: str, none: str) -> str:
    return none if label == "none" else label
