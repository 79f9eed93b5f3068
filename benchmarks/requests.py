"""Requests of this process to a cloud store: they can be counted, or be made to fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest import mock

import obstore

KINDS = {
    "get": "GET",
    "head": "HEAD",
    "put": "PUT",
    "delete": "DELETE",
    "list": "LIST",
    "list_with_delimiter": "LIST",
}
"""Functions of obstore, and what they ask of the store. A list of many pages is counted once."""
Request = Callable[[], Any]


@contextmanager
def through(ask: Callable[[str, Request], Any]) -> Iterator[None]:
    """Have every request pass ``ask``, which is given its kind and what makes it."""

    def wrapped(kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given, **options: ask(kind, partial(function, *given, **options))

    with ExitStack() as stack:
        for name, kind in KINDS.items():
            instead = wrapped(kind, getattr(obstore, name))
            stack.enter_context(mock.patch.object(obstore, name, instead))
        yield


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count requests by kind."""
    counts: Counter[str] = Counter()

    def ask(kind: str, request: Request) -> Any:
        counts[kind] += 1
        return request()

    with through(ask):
        yield counts
