"""Which chunk next: a bounded number at a time, each as soon as its inputs are finished.

Almost every chunk depends only on chunks of the same number, so a run is many short lanes side by
side. Lanes are opened in order; the oldest open lane comes first, so images are finished early and
few results are in flight. What is made of many chunks at once has a lane of its own, before all
others; lanes that need it wait, and further ones are opened meanwhile.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol

from tasks.survey import Survey, Work


class Future(Protocol):
    """What a task runner gives back for a submitted task."""

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """Call ``fn`` with this future once it is done."""

    def result(self) -> Any:
        """The task's result; raises what the task raised."""


def chunk_order(chunks: int, order: str, seed: int) -> list[int]:
    """Numbers of the chunks in the order in which they are begun."""
    numbers = list(range(chunks))
    if order == "backward":
        numbers.reverse()
    elif order == "shuffled":
        random.Random(seed).shuffle(numbers)
    return numbers


Ends = SimpleQueue[tuple[int, Work, Future]]


GATHERING = -1
"""Lane of the nodes that are made of many chunks at once."""


def _ended(ends: Ends, lane: int, work: Work, future: Future) -> None:
    ends.put((lane, work, future))


def drive(
    state: Survey,
    order: Sequence[int],
    submit: Callable[[Work], Future],
    *,
    window: int,
    finished: Callable[[Work, dict[str, Any]], None],
) -> int:
    """Compute everything that is left.

    Args:
        state: what is done; brought up to date as chunks finish.
        order: numbers of the chunks in the order in which they are begun.
        submit: hands one chunk to the task runner.
        window: chunks submitted and not finished, at most.
        finished: called with each finished chunk and its receipt.

    Returns:
        How many chunk tasks ran.

    Raises:
        Exception: the first failure, after the tasks in flight have ended.
    """
    names = list(state.plan.nodes)
    ready: list[tuple[int, int, Work]] = []
    ends: Ends = SimpleQueue()
    lanes = iter(enumerate(order))
    flying, ran = 0, 0
    waiting: dict[int, set[int]] = {}
    failure: Exception | None = None

    def advance(lane: int, index: int) -> None:
        moved = True
        while moved:
            moved = False
            for position in sorted(waiting.get(lane, ())):
                work = state.work(state.plan.nodes[names[position]], index)
                if work is None:
                    continue
                waiting[lane].discard(position)
                mark = state.mark(work)
                if mark is not None:
                    state.record(work, mark)
                    finished(work, {})
                    moved = True
                    tell_others(work)
                else:
                    heapq.heappush(ready, (lane, position, work))
        if not waiting.get(lane, True):
            del waiting[lane]

    def tell_others(work: Work) -> None:
        """Let other lanes go on that waited for this chunk."""
        if work.node.gathers:
            for other in sorted(waiting):
                if other != GATHERING:
                    advance(other, order[other])
        elif GATHERING in waiting:
            advance(GATHERING, 0)

    def open_lanes() -> None:
        while len(ready) + flying < window:
            lane, index = next(lanes, (-1, -1))
            if lane < 0:
                return
            left = {p for p in per_chunk if (names[p], index) not in state.done}
            if left:
                waiting[lane] = left
                advance(lane, index)

    gathering = {p for p, name in enumerate(names) if state.plan.nodes[name].gathers}
    per_chunk = [p for p in range(len(names)) if p not in gathering]
    left = {p for p in gathering if (names[p], 0) not in state.done}
    if left:
        waiting[GATHERING] = left
        advance(GATHERING, 0)
    open_lanes()
    while ready or flying:
        while ready and flying < window and failure is None:
            lane, _, work = heapq.heappop(ready)
            future = submit(work)
            flying += 1
            ran += 1
            future.add_done_callback(partial(_ended, ends, lane, work))
        if not flying:
            break
        lane, work, future = ends.get()
        flying -= 1
        try:
            receipt = future.result()
        except Exception as error:
            failure = failure or error
            continue
        mark = state.mark(work, hashed=False)
        if mark is None:
            raise RuntimeError(f"expected a mark of {work.node.name} chunk {work.index}, got none")
        state.record(work, mark)
        finished(work, receipt)
        if failure is None:
            tell_others(work)
            advance(lane, work.index)
            open_lanes()
    if failure is not None:
        raise failure
    return ran
