"""A cache that several threads share, bounded by what it holds."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


def _one(_: object) -> int:
    return 1


class Bounded(Generic[T]):
    """Keeps what was made last; what was not asked for the longest goes first.

    Several threads that ask for the same thing wait for the first of them to make it.

    Args:
        limit: sizes of what is kept together, at most.
        size: of one thing, such as its bytes; the number of things where none is given.
    """

    def __init__(self, limit: int, size: Callable[[T], int] = _one) -> None:
        self.limit = limit
        self.used = 0
        self._size = size
        self._kept: OrderedDict[Hashable, T] = OrderedDict()
        self._gates: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What is kept under a key, or what ``make`` returns; its errors pass through."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            gate = self._gates.setdefault(key, threading.Lock())
        with gate:
            with self._lock:
                if key in self._kept:
                    return self._kept[key]
            try:
                made = make()
                self._keep(key, made)
            finally:
                with self._lock:
                    self._gates.pop(key, None)
        return made

    def _keep(self, key: Hashable, made: T) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self.used += self._size(made)
            while self.used > self.limit:
                self.used -= self._size(self._kept.popitem(last=False)[1])
