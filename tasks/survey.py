"""What is done and what is left of a run, as the ledger vouches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from storage.chunks import ChunkRef, chunk_key
from storage.ledger import Finding, Mark
from tasks.chunk import Input
from tasks.compute import inputs_digest
from tasks.nodes import Node
from tasks.plan import Plan
from tasks.workbench import Workbench

Done = dict[tuple[str, int], Input]


@dataclass(frozen=True)
class Work:
    """One chunk that can be computed: its node, its number, and the chunks it is made from."""

    node: Node
    index: int
    key: str
    digests: dict[str, str]
    inputs: dict[str, Input]
    source: Input | None


@dataclass
class Survey:
    """The state of a run: finished chunks by node name and chunk number."""

    bench: Workbench
    plan: Plan
    chunks: int
    done: Done = field(default_factory=dict)

    def work(self, node: Node, index: int) -> Work | None:
        """What computing a chunk takes, or None while an input is not finished."""
        inputs: dict[str, Input] = {}
        for role, supplier, number in self._needed(node, index):
            given = self.done.get((supplier, number))
            if given is None:
                return None
            inputs[role] = given
        digests = self.digests(node, index, inputs)
        lone = node.kind == "ingest" or node.gathers
        source = None if lone else self.done[("ingest", index)]
        return Work(node, index, chunk_key(digests), digests, inputs, source)

    def digests(self, node: Node, index: int, inputs: dict[str, Input]) -> dict[str, str]:
        """Content digest of everything a chunk is made from, by role."""
        return inputs_digest(self.bench, node, index, inputs)

    def _needed(self, node: Node, index: int) -> Iterator[tuple[str, str, int]]:
        """Role, node and number of every chunk that a chunk is made from."""
        for role, supplier in node.inputs.items():
            if self.plan.nodes[supplier].gathers:
                yield role, supplier, 0
            elif node.gathers:
                for number in range(node.gathers):
                    yield f"{role} {number}", supplier, number
            else:
                yield role, supplier, index

    def indices(self, node: Node) -> range:
        """Numbers of a node's chunks."""
        return range(1 if node.gathers else self.chunks)

    def mark(self, work: Work, *, hashed: bool = True) -> Mark | None:
        """The mark of a chunk, if it is done.

        Args:
            work: the chunk.
            hashed: re-hash every stored byte; otherwise only the mark is read.
        """
        ledger = self.bench.store.ledger(work.node.fingerprint)
        if hashed:
            return ledger.vouches(work.key, work.digests)
        mark = ledger.read(work.key)
        return mark if mark is not None and mark.inputs == work.digests else None

    def record(self, work: Work, mark: Mark) -> None:
        """Note that a chunk is finished."""
        ref = ChunkRef(work.node.fingerprint, work.key)
        self.done[(work.node.name, work.index)] = Input(ref, mark.content, mark.images)

    def seconds(self, node: Node) -> float | None:
        """Seconds of computing an image of a finished node, None where the marks do not say."""
        spent, images = 0.0, 0
        for index in self.indices(node):
            given = self.done[(node.name, index)]
            mark = self.bench.store.ledger(node.fingerprint).read(given.ref.key)
            if mark is None or "seconds" not in mark.receipt:
                return None
            spent, images = spent + float(mark.receipt["seconds"]), images + given.images
        return spent / images if images else None

    @property
    def total(self) -> int:
        """Chunks of all stages together."""
        return sum(len(self.indices(node)) for node in self.plan)

    @property
    def left(self) -> int:
        """Chunks that are not finished."""
        return self.total - len(self.done)

    def counts(self) -> Iterator[tuple[Node, int]]:
        """Finished chunks of each node."""
        finished: dict[str, int] = {}
        for name, _ in self.done:
            finished[name] = finished.get(name, 0) + 1
        for node in self.plan:
            yield node, finished.get(node.name, 0)


def survey(
    bench: Workbench,
    *,
    hashed: bool = True,
    found: Callable[[Finding], None] | None = None,
    plan: Plan | None = None,
) -> Survey:
    """Look at every chunk of a run.

    Args:
        bench: the run.
        hashed: re-hash every stored byte; otherwise only marks are read.
        found: called with every damaged file; the walk then goes on as if the chunk were whole
            where its mark can still be read, so that damage further on is found too.
        plan: its stages; none: those of its specification.
    """
    if not bench.dataset.opened:
        bench.catalogue(keep=False)
    plan = plan or Plan(bench)
    state = Survey(bench, plan, bench.dataset.chunk_count)
    for node in plan:
        for index in state.indices(node):
            work = state.work(node, index)
            if work is None:
                continue
            mark = state.mark(work, hashed=hashed and found is None)
            if found is not None:
                ledger = bench.store.ledger(node.fingerprint)
                for finding in ledger.findings(node.name, work.key):
                    found(finding)
            if mark is not None:
                state.record(work, mark)
    return state
