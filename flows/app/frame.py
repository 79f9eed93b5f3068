"""What all pages of the app share: header, style, dark mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nicegui import ui

STYLE = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
SCRIPT = (Path(__file__).parent / "panes.js").read_text(encoding="utf-8")
PAGES = (("Try", "/"), ("Browse", "/browse"))


@contextmanager
def framed(here: str) -> Iterator[None]:
    """A page of the app; what is made while this is entered is its content.

    Args:
        here: name of the page, one of :data:`PAGES`.
    """
    ui.page_title(f"{here} · image-defender")
    ui.add_head_html(f"<style>{STYLE}</style><script>{SCRIPT}</script>")
    # seen at once, while the browser still reads the scripts; the page then lies over it
    ui.add_body_html('<div class="begins" aria-hidden="true">image-defender</div>')
    ui.dark_mode(None)
    with ui.header().classes("top"):
        ui.label("image-defender").classes("name")
        with ui.element("nav").props('aria-label="Pages"'):
            for name, address in PAGES:
                current = ' aria-current="page"' if name == here else ""
                ui.html(f'<a href="{address}"{current}>{name}</a>', sanitize=False)
        ui.space()
        switch = ui.button(icon="dark_mode").props('flat round dense aria-label="Light or dark"')
        switch.on(
            "click",
            js_handler="() => { Quasar.Dark.toggle(); "
            "localStorage.setItem('dark', Quasar.Dark.isActive ? '1' : '0'); }",
        )
        ui.tooltip("light or dark (D)").move(switch)
    with ui.element("main").classes("content"):
        yield
