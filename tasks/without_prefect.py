"""Everything that is left of a run, stage by stage, chunks side by side, in this process alone."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

import torch

from tasks.compute import compute_chunk
from tasks.devices import default_workers, prepare
from tasks.nodes import Node
from tasks.survey import Survey

Counter = Callable[[int, int], None]


def nodes_of(state: Survey, kinds: Collection[str] | None = None) -> list[Node]:
    """The stages of some kinds, none: of all, in an order in which they can be computed."""
    return [node for node in state.plan if kinds is None or node.kind in kinds]


def left(state: Survey, kinds: Collection[str] | None = None) -> int:
    """How many chunks of the stages of some kinds are not finished."""
    return sum(
        (node.name, index) not in state.done
        for node in nodes_of(state, kinds)
        for index in state.indices(node)
    )


def compute_left(
    state: Survey, kinds: Collection[str] | None = None, progress: Counter | None = None
) -> None:
    """Compute what is not finished, to the bits that a run makes.

    Args:
        state: what is done; brought up to date as chunks finish.
        kinds: stages that are wanted, with all they depend on; none: all.
        progress: called with finished chunks and all chunks.

    Raises:
        SpecError, ModelError, StorageError: the first failure; what was finished stays.
    """
    bench = state.bench
    nodes = nodes_of(state, kinds)
    total = sum(len(state.indices(node)) for node in nodes)
    done = total - left(state, kinds)
    threads = torch.get_num_threads()
    prepare(bench.device)
    try:
        with ThreadPoolExecutor(
            bench.spec.compute.workers or default_workers(bench.device)
        ) as pool:
            for node in nodes:
                missing = [i for i in state.indices(node) if (node.name, i) not in state.done]
                for _ in pool.map(lambda index, node=node: _make(state, node, index), missing):
                    done += 1
                    if progress is not None:
                        progress(done, total)
    finally:
        torch.set_num_threads(threads)


def _make(state: Survey, node: Node, index: int) -> None:
    work = state.work(node, index)
    if work is None:
        raise RuntimeError(f"expected the inputs of {node.name} chunk {index}, got none")
    state.record(work, compute_chunk(state.bench, node, index, work.inputs, work.source))
