"""Who is told of progress within a chunk that takes long, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Listener = Callable[[str, int, int], None]
"""Called with the name of a stage, what is done of it, and the whole."""

_listeners: list[Listener] = []


def tell(stage: str, done: int, total: int) -> None:
    """Say how far a stage is."""
    for listener in list(_listeners):
        listener(stage, done, total)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have a listener told while this is entered; it is called from the threads that compute."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
