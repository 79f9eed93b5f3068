"""Images are decoded while Prefect's embedded server comes up, so that a run begins at once.

On a machine's first run the server makes its database, which takes longer than all else.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from storage.ledger import Mark
from tasks.compute import compute_chunk
from tasks.survey import Survey, Work

Early = list[tuple[Work, Mark]]


@contextmanager
def decoding(state: Survey, order: Sequence[int]) -> Iterator[Early]:
    """Ingest images, chunk by chunk, for as long as this is entered.

    What goes wrong is left to the run, which meets it again and knows what to do.

    Args:
        state: the run; it is not changed.
        order: numbers of the chunks in the order in which they are begun.

    Yields:
        The chunks that were finished: complete only once this is left.
    """
    made: Early = []
    over = threading.Event()
    worker = threading.Thread(target=_decode, args=(state, order, made, over), name="decoding")
    worker.start()
    try:
        yield made
    finally:
        over.set()
        worker.join()


def _decode(state: Survey, order: Sequence[int], made: Early, over: threading.Event) -> None:
    nodes = [node for node in state.plan if node.kind == "ingest"]
    for node in nodes:
        for index in order:
            if over.is_set():
                return
            if (node.name, index) in state.done:
                continue
            work = state.work(node, index)
            if work is None:
                continue
            try:
                mark = compute_chunk(state.bench, node, index, work.inputs, work.source)
            except Exception:
                return
            made.append((work, mark))
