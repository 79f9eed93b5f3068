"""A page taken apart, for tests to ask about."""

from __future__ import annotations

from html.parser import HTMLParser

EMPTY = {"meta", "img", "br", "wbr", "link", "hr", "input"}
SVG_EMPTY = {"path", "rect", "use", "line"}


class Page(HTMLParser):
    """Tags with their attributes, text by section, and whether every tag is closed in its place."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[tuple[str, str]] = []
        self.misplaced: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append((tag, dict(attrs).get("class") or ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1][0] != tag:
            self.misplaced.append(tag)
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        classes = " ".join(classes for _, classes in self.open)
        self.texts.append((classes, data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def text(self, within: str = "", without: str = "") -> str:
        """Text inside an element of a class, and outside of another."""
        return "".join(
            data
            for classes, data in self.texts
            if (not within or within in classes.split())
            and (not without or without not in classes.split())
        )
