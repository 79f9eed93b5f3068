"""The runs of one store, kept open as long as they stay what they are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from storage.errors import DamagedChunk
from storage.files import Place
from tasks.bounded import Bounded
from tasks.browsing import Gallery
from tasks.stored_images import FinishedImages, StoredImages
from tasks.stored_pictures import Pictures
from tasks.stored_runs import (
    NotStored,
    Overview,
    output,
    overview,
    overviews,
    read_vouched,
    rejected,
)

if TYPE_CHECKING:
    from tasks.going import NotedSurvey

FRESH = 2.0
"""Seconds for which pictures of a run are served without a look at whether it is the same."""
OPEN = 8
"""Runs that are kept open."""


class Watching(Protocol):
    """Keeps a survey of a run up to date: :class:`flows.watch.Watch`."""

    def look(self) -> dict[str, Any]:
        """Read what is new, and say how far the run is."""


class _Watched:
    """A run that is going, and who watches it; one look at a time."""

    def __init__(self, state: NotedSurvey, watch: Watching) -> None:
        self.state = state
        self.watch = watch
        self.lock = threading.Lock()


@dataclass(frozen=True)
class Opened:
    """A run that is looked at.

    Args:
        overview: what it is.
        summary: what it came to, empty for one that is still going.
        gallery: its images; None where there are none to be looked at.
        status: of a run that is still going or was killed: what :class:`flows.watch.Watch` sees.
    """

    overview: Overview
    summary: dict[str, Any]
    gallery: Gallery | None
    status: dict[str, Any] = field(default_factory=dict)

    @property
    def images(self) -> StoredImages | None:
        """Where its rows and pictures are."""
        return None if self.gallery is None else self.gallery.run


class Library:
    """A store that is looked at, by several users at a time.

    Args:
        root: of the store.
        watch: makes what watches a run that is going.
    """

    def __init__(self, root: Place, watch: Callable[[NotedSurvey], Watching]) -> None:
        self.root = root
        self._watch = watch
        self.pictures = Pictures()
        self._finished: Bounded[Opened] = Bounded(OPEN)
        self._watched: Bounded[_Watched] = Bounded(OPEN)
        self._recent: dict[str, tuple[float, Opened]] = {}

    def runs(self) -> list[Overview]:
        """All runs, the latest first.

        Raises:
            StorageError: where the store cannot be listed.
        """
        return overviews(self.root)

    def open(self, name: str) -> Opened:
        """A run as it is now.

        Raises:
            NotStored: where there is none of that name.
            DamagedChunk: where what it wrote is damaged.
        """
        found = overview(self.root, name)
        opened = self._opened(found)
        if len(self._recent) > OPEN:
            self._recent.clear()
        self._recent[name] = (time.monotonic(), opened)
        return opened

    def recent(self, name: str) -> Opened:
        """A run as it was a moment ago, or is now; errors as of :meth:`open`."""
        known = self._recent.get(name)
        if known is not None and time.monotonic() - known[0] < FRESH:
            return known[1]
        return self.open(name)

    def _opened(self, found: Overview) -> Opened:
        if found.begun is not None and found.problem == "":
            return self._going(found)
        if found.problem:
            raise DamagedChunk(found.problem)
        return self._finished.get((found.name, found.digest), lambda: self._read(found))

    def _read(self, found: Overview) -> Opened:
        if "summary.json" not in found.files:
            return Opened(found, {}, None)
        summary = read_vouched(self.root / found.name, found.files, "summary.json")
        try:
            images = FinishedImages(self.root, found, summary)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DamagedChunk(f"{found.name}: expected a summary and stages, {error}") from error
        return Opened(found, summary, Gallery(images) if images.shown else None)

    def _going(self, found: Overview) -> Opened:
        # imported here because it brings torch along
        from tasks.going import GoingImages, NotedSurvey

        begun = found.begun
        if begun is None:
            raise NotStored(f"expected a run that is going, got {found.name}")

        def watched() -> _Watched:
            state = NotedSurvey(self.root, found.name, begun)
            return _Watched(state, self._watch(state))

        one = self._watched.get((found.name, begun.digest), watched)
        with one.lock:
            status = one.watch.look()
            images = GoingImages(one.state)
        return Opened(found, {}, Gallery(images) if images.shown else None, status)

    def output(self, name: str, file: str) -> bytes:
        """An output of a run; errors as of :func:`tasks.stored_runs.output`."""
        return output(self.root, overview(self.root, name), file)

    def rejected(
        self, run: Overview, first: int = 0, count: int = 50
    ) -> tuple[int, list[dict[str, Any]]]:
        """See :func:`tasks.stored_runs.rejected`."""
        return rejected(self.root, run, first, count)

    def picture(
        self, name: str, number: int, place: int, *, times: int = 0, side: int = 0, version: str
    ) -> bytes:
        """A picture as PNG; arguments and errors as of :meth:`Pictures.png`.

        Args:
            name: of the run.
            number: of the stage.
            place: of the image.
            times: amplification of a difference.
            side: longest side.
            version: what the digest of the run begins with, or nothing.
        """
        images = self.recent(name).images
        if images is None:
            raise NotStored(f"expected a run with images, got {name}")
        if version and not images.digest.startswith(version):
            raise NotStored(f"expected the present state of {name}, it was made anew")
        return self.pictures.png(images, number, place, times=times, side=side)
