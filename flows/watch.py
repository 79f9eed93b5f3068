"""Watching a run from outside: what is done, how fast, and how long the rest will take.

All of it is read from the marks of the store, so it works from another terminal or machine, for
runs that wait, work or have ended. A look reads only the marks that appeared since the last one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from flows.telemetry import StageFigures, earlier_failures, left_seconds, sums
from storage.files import store_holder
from storage.ledger import Mark
from tasks.nodes import Node
from tasks.outputs import finished
from tasks.plan import Plan
from tasks.survey import Survey, Work
from tasks.workbench import Workbench

MINUTE = 60.0
LONGEST = 3600.0
"""Seconds to look back, at most, for how many workers there are."""
Chunk = tuple[str, int]


class Watch:
    """The state of a run in the store, brought up to date by each look.

    Args:
        bench: the run, its dataset listed.
        clock: seconds since 1970.
        state: the same as a survey that knows of no chunk; none: it is made.
    """

    def __init__(
        self,
        bench: Workbench,
        clock: Callable[[], float] = time.time,
        state: Survey | None = None,
    ) -> None:
        if not bench.dataset.opened:
            bench.catalogue(keep=False)
        plan = Plan(bench) if state is None else state.plan
        self.bench = bench
        self.state = state or Survey(bench, plan, bench.dataset.chunk_count)
        self.stages = {
            node.name: StageFigures(node.kind, total=len(self.state.indices(node))) for node in plan
        }
        self.rejected = 0
        self._clock = clock
        self._missing = {node.name: dict.fromkeys(self.state.indices(node)) for node in plan}
        self._works: dict[Chunk, Work] = {}
        self._marks: dict[Chunk, Mark] = {}
        self._spans: dict[Chunk, tuple[float, float]] = {}

    def look(self) -> dict[str, Any]:
        """Read what is new; returns everything that is known as plain values."""
        for node in self.state.plan:
            # one listing in place of a look for each chunk that is not there
            keys = set(self.bench.store.ledger(node.fingerprint).keys())
            self._drop_vanished(node, keys)
            for index in list(self._missing[node.name]):
                work = self._work(node, index)
                if work is None or work.key not in keys:
                    continue
                mark = self.state.mark(work, hashed=False)
                if mark is not None:
                    self._count(work, mark)
        return self._plain()

    def _work(self, node: Node, index: int) -> Work | None:
        """A chunk that is not done, worked out once."""
        work = self._works.get((node.name, index))
        if work is None and (work := self.state.work(node, index)) is not None:
            self._works[(node.name, index)] = work
        return work

    def _count(self, work: Work, mark: Mark) -> None:
        chunk = (work.node.name, work.index)
        self.state.record(work, mark)
        self._works.pop(chunk, None)
        del self._missing[work.node.name][work.index]
        self._marks[chunk] = mark
        self._add(chunk, mark, 1)
        span = _span(mark.receipt)
        if span is not None:
            self._spans[chunk] = span

    def _add(self, chunk: Chunk, mark: Mark, sign: int) -> None:
        stage = self.stages[chunk[0]]
        stage.done += sign
        stage.failures += sign * earlier_failures(mark.receipt)
        stage.add(mark.receipt, mark.images, sign)
        if stage.kind == "ingest":
            self.rejected += sign * (len(self.bench.dataset.items(chunk[1])) - mark.images)

    def _drop_vanished(self, node: Node, keys: set[str]) -> None:
        """Take back chunks whose marks are gone: damaged ones, which a run makes again."""
        for index in self.state.indices(node):
            chunk = (node.name, index)
            given = self.state.done.get(chunk)
            if given is None or given.ref.key in keys:
                continue
            del self.state.done[chunk]
            self._add(chunk, self._marks.pop(chunk), -1)
            self._spans.pop(chunk, None)
            self._missing[node.name][index] = None
            # what is made from it is looked for under the name that its new content will give
            self._works.clear()

    def _plain(self) -> dict[str, Any]:
        now = self._clock()
        done, total = len(self.state.done), self.state.total
        holder = store_holder(self.bench.store.root)
        lately = self._images_since(now - MINUTE)
        whole = sums(self.stages.values())
        workers = self._workers(now)
        left = left_seconds(self.stages.values())
        eta = left / workers if left is not None and workers and holder is not None else None
        return {
            "time": datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds"),
            "name": self.bench.spec.name,
            "images": self.bench.dataset.count,
            "done": done,
            "total": total,
            "finished": done == total and finished(self.state),
            "eta_seconds": None if eta is None else round(eta, 1),
            "workers": None if workers is None else round(workers, 2),
            "rejected": self.rejected,
            "failures": whole.failures,
            "bytes": whole.bytes,
            "holder": holder,
            "stages": [
                {
                    "stage": name,
                    **stage.plain(),
                    "last_minute": round(lately.get(name, 0) / MINUTE, 3),
                    "left_seconds": _rounded(stage.left_seconds),
                }
                for name, stage in self.stages.items()
            ],
        }

    def _images_since(self, moment: float) -> dict[str, int]:
        """Images of the chunks that were finished since a moment, by stage."""
        images: dict[str, int] = {}
        for chunk, (_, end) in self._spans.items():
            if end > moment:
                images[chunk[0]] = images.get(chunk[0], 0) + self._marks[chunk].images
        return images

    def _workers(self, now: float) -> float | None:
        """How many chunks were made at a time lately; None where none was finished lately."""
        if not self._spans:
            return None
        last = max(end for _, end in self._spans.values())
        recent = [span for span in self._spans.values() if span[1] > last - LONGEST]
        longest = max(end - begin for begin, end in recent)
        look_back = min(LONGEST, max(MINUTE, 3 * longest))
        if now - last > look_back:
            return None
        since = last - look_back
        inside = [(max(begin, since), end) for begin, end in recent if end > since]
        busy = sum(end - begin for begin, end in inside)
        span = last - min(begin for begin, _ in inside)
        return busy / span if span > 0 else None


def _span(receipt: dict[str, Any]) -> tuple[float, float] | None:
    """When a chunk was begun and finished, in seconds since 1970."""
    try:
        end = datetime.fromisoformat(receipt["at"]).timestamp()
        return end - float(receipt["seconds"]), end
    except (KeyError, TypeError, ValueError):
        return None


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def watching(
    bench: Workbench, every: float, sleep: Callable[[float], None] = time.sleep
) -> Iterator[dict[str, Any]]:
    """Look at a run again and again, until it has finished.

    Args:
        bench: the run.
        every: seconds between looks.
        sleep: waits.
    """
    watch = Watch(bench)
    while True:
        state = watch.look()
        yield state
        if state["finished"]:
            return
        sleep(every)
