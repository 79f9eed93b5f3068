"""What the app serves out of a store besides pages: pictures of images, and outputs of runs."""

from __future__ import annotations

import mimetypes

from fastapi import Response
from nicegui import app

from storage.errors import StorageError
from tasks.library import Library
from tasks.stored_runs import NotStored

DIGITS = 9
"""Of a number in an address, at most."""
KEEP = "private, max-age=604800, immutable"
"""A picture that its address names by the digest of the run never changes."""
SHOWN = {".html": "text/html; charset=utf-8", ".json": "application/json", ".svg": "image/svg+xml"}
"""Outputs that a browser shows; it stores the others."""


def add_routes(library: Library) -> None:
    """Add pictures and outputs to the app.

    Args:
        library: the store.
    """

    @app.get("/stored/{run}/files/{name:path}", include_in_schema=False)
    def stored_file(run: str, name: str) -> Response:
        try:
            content = library.output(run, name)
        except StorageError as error:
            return _refused(error)
        suffix = f".{name.rpartition('.')[2].lower()}"
        kind = SHOWN.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        # a stored page may come from anyone: it runs nothing and reaches nothing
        headers = {"content-security-policy": "sandbox", "cache-control": "no-cache"}
        if suffix not in SHOWN and not kind.startswith("image/"):
            headers["content-disposition"] = "attachment"
        return Response(content, media_type=kind, headers=headers)

    @app.get("/stored/{run}/{number}/{place}.png", include_in_schema=False)
    def stored_picture(
        run: str, number: str, place: str, times: str = "0", side: str = "0", v: str = ""
    ) -> Response:
        try:
            numbers = [_number(text) for text in (number, place, times, side)]
            content = library.picture(
                run, numbers[0], numbers[1], times=numbers[2], side=numbers[3], version=v
            )
        except StorageError as error:
            return _refused(error)
        keep = KEEP if v else "no-store"
        return Response(content, media_type="image/png", headers={"cache-control": keep})


def _number(text: str) -> int:
    """A number of an address.

    Raises:
        NotStored: where it is none.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= DIGITS):
        raise NotStored(f"expected a number, got {text[:20]!r}")
    return int(text)


def _refused(error: StorageError) -> Response:
    return Response(f"{error}\n", 404, media_type="text/plain; charset=utf-8")
