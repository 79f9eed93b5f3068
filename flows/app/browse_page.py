"""Stored runs: score card, images, what was rejected, how far a run is."""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nicegui import ui
from starlette.requests import Request

from flows.app import browse_words as words
from flows.app.browse_card import Card
from flows.app.browse_gallery import Images
from flows.app.browse_routes import add_routes
from flows.app.browse_status import status
from flows.app.frame import framed
from storage.errors import StorageError
from storage.files import Place
from tasks.library import Library, Opened, Watching

if TYPE_CHECKING:
    from tasks.going import NotedSurvey

STYLE = (Path(__file__).parent / "browse.css").read_text(encoding="utf-8")
SCRIPT = (Path(__file__).parent / "browse.js").read_text(encoding="utf-8")
PATIENCE = 120.0
"""Seconds that a page may take to be made: a store in a cloud may be slow."""
EVERY = 3.0
"""Seconds between looks at a run that is going."""
REJECTED = 200
"""Rejected items that are listed."""


def add(root: Place) -> None:
    """Add the page to the app.

    Args:
        root: of the store.
    """
    library = Library(root, _watch)
    add_routes(library)

    @ui.page("/browse", response_timeout=PATIENCE)
    async def browse() -> None:
        with _framed():
            ui.html("<h1>Runs</h1>", sanitize=False)
            ui.label(str(root)).classes("muted br-store")
            try:
                found = await to_thread(library.runs)
            except StorageError as error:
                ui.html(words.sentence(str(error)), sanitize=False)
                return
            if found:
                ui.html(words.run_list(found), sanitize=False)
            else:
                ui.html("<p>No run lies in this store.</p>", sanitize=False)

    @ui.page("/browse/{name}", response_timeout=PATIENCE)
    async def browse_run(name: str, request: Request) -> None:
        with _framed():
            ui.html('<p><a href="/browse">All runs</a></p>', sanitize=False)
            try:
                opened = await to_thread(library.open, name)
            except StorageError as error:
                ui.html(f"<h1>{escape(name[:100])}</h1>", sanitize=False)
                ui.html(words.sentence(str(error)), sanitize=False)
                return
            await _run_page(library, opened, dict(request.query_params))


def _framed() -> Any:
    ui.add_head_html(f"<style>{STYLE}</style><script>{SCRIPT}</script>")
    return framed("Browse")


def _watch(state: NotedSurvey) -> Watching:
    """Watches a run that is going."""
    # imported here because it brings torch along
    from flows.watch import Watch

    return Watch(state.bench, state=state)


async def _run_page(library: Library, opened: Opened, asked: dict[str, str]) -> None:
    """The page of a run."""
    one = opened.overview
    title = f"<h1>{escape(one.name)}</h1>"
    ui.html(f'{title}<dl class="br-facts">{words.facts(one)}</dl>', sanitize=False)
    if one.pages:
        ui.html(f'<p class="br-links">{words.pages(one)}</p>', sanitize=False)
    images: list[Images] = []
    if opened.status:
        await _status(library, opened, images)
    if "requirements" in opened.summary:
        with _section("Requirements"):
            ui.html(await to_thread(_requirements, opened.summary), sanitize=False)
    if opened.summary.get("rows"):
        with _section("Score card"):
            card = await to_thread(Card, opened.summary["rows"])
            _card(card)
    if opened.gallery is not None:
        with _section("Images"):
            images.append(Images(library, opened, asked))
            await images[0].build()
    if "rejected.parquet" in one.files:
        with _section("Rejected"):
            ui.html(await _told(lambda: _rejected(library, opened)), sanitize=False)
    if one.files:
        with _section("Files"):
            ui.html(words.files(one), sanitize=False)


def _section(title: str) -> Any:
    section = ui.element("section").classes("br-section").props(f'aria-label="{title}"')
    with section:
        ui.html(f"<h2>{title}</h2>", sanitize=False)
    return section


async def _told(made: Callable[[], str]) -> str:
    """What is made in a thread, or what went wrong."""
    try:
        return await to_thread(made)
    except StorageError as error:
        return words.sentence(str(error))


def _requirements(summary: dict[str, Any]) -> str:
    # imported here because it brings torch along
    from flows.requirement_words import sections, verdict

    told = summary["requirements"]
    return words.requirements(sections(told), verdict(told))


def _rejected(library: Library, opened: Opened) -> str:
    total, lines = library.rejected(opened.overview, 0, REJECTED)
    return words.rejected(total, lines)


def _card(card: Card) -> None:
    """The score card with its search and its pages."""
    with ui.element("div").classes("br-controls"):
        search = (
            ui.input("Rows with")
            .props('dense outlined clearable debounce="300" type="search" data-test="rows"')
            .classes("br-choice")
        )
        previous = ui.button(icon="chevron_left").props('flat dense aria-label="Previous rows"')
        position = ui.label().props('role="status" data-test="card-position"')
        following = ui.button(icon="chevron_right").props('flat dense aria-label="Next rows"')
    table = ui.html(sanitize=False)

    def draw() -> None:
        table.content = card.html()
        found = len(card.found())
        position.text = (
            f"{words.count(found)} rows"
            if card.pages == 1
            else f"page {card.number} of {card.pages} \u00b7 {words.count(found)} rows"
        )
        for button, there in ((previous, card.number > 1), (following, card.number < card.pages)):
            button.visible = card.pages > 1
            button.set_enabled(there)

    def turn(step: int) -> None:
        card.number = min(max(1, card.number + step), card.pages)
        draw()

    def sort(by: str) -> None:
        card.sort(by)
        draw()

    def look_for(text: str | None) -> None:
        card.search, card.number = text or "", 1
        draw()

    search.on_value_change(lambda event: look_for(event.value))
    previous.on_click(lambda: turn(-1))
    following.on_click(lambda: turn(1))
    ui.on("browse_sort", lambda event: sort(str(event.args)))
    draw()


async def _status(library: Library, opened: Opened, images: list[Images]) -> None:
    """How far a run is, looked at again every few seconds."""
    name = opened.overview.name
    with _section("Status"):
        shown = ui.html(await to_thread(status, opened.status), sanitize=False)
    looking = False

    async def look() -> None:
        nonlocal looking
        if looking:
            return
        looking = True
        try:
            now = await to_thread(library.open, name)
            if not now.status:
                timer.deactivate()
                ui.navigate.reload()  # it has finished: the whole page is another
                return
            shown.content = await to_thread(status, now.status)
            if now.gallery is not None and not images:
                ui.navigate.reload()  # the first images are there
        except StorageError as error:
            shown.content = words.sentence(str(error))
        finally:
            looking = False

    timer = ui.timer(EVERY, look)
