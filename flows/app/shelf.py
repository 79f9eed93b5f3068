"""Pictures that a page shows, by addresses that nobody can guess, gone when the page is."""

from __future__ import annotations

import secrets
from collections import OrderedDict

from nicegui import app
from starlette.responses import Response

ROUTE = "/pane"
MOST = 512 << 20
"""Bytes of all pictures of all users, at most; the oldest go first."""


class Shelf:
    """PNG files in memory.

    Args:
        most: bytes that are kept, at most.
    """

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.bytes = 0
        self._files: OrderedDict[str, bytes] = OrderedDict()

    def put(self, data: bytes) -> str:
        """Keep a picture; returns its address."""
        name = secrets.token_urlsafe(24)
        self._files[name] = data
        self.bytes += len(data)
        while self.bytes > self.most and len(self._files) > 1:
            _, old = self._files.popitem(last=False)
            self.bytes -= len(old)
        return f"{ROUTE}/{name}.png"

    def get(self, name: str) -> bytes | None:
        """The picture of a name, None where there is none."""
        return self._files.get(name)

    def drop(self, addresses: list[str]) -> None:
        """Forget pictures."""
        for address in addresses:
            name = address.removeprefix(f"{ROUTE}/").removesuffix(".png")
            self.bytes -= len(self._files.pop(name, b""))


shelf = Shelf()
"""That of this process."""


def add() -> None:
    """Add the route of the pictures to the app."""

    @app.get(ROUTE + "/{name}.png")
    def pane(name: str) -> Response:
        data = shelf.get(name)
        if data is None:
            return Response("no such picture", status_code=404, media_type="text/plain")
        headers = {"Cache-Control": "private, max-age=3600"}
        return Response(data, media_type="image/png", headers=headers)
