"""A run that is still going, or was killed, as the note of its beginning and the marks tell it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from storage.chunks import ChunkRef, Store
from storage.files import Place
from storage.ledger import digest_of
from storage.scores import column_types, read_columns
from tasks.begun import Begun
from tasks.bounded import Bounded
from tasks.chunk import Input
from tasks.nodes import Node
from tasks.plan import Plan
from tasks.stored_images import StoredImages, StoredNode
from tasks.survey import Survey
from tasks.workbench import Workbench

KEPT = 32 << 20
"""Bytes of parts of columns that are kept, at most."""


@dataclass(frozen=True)
class _Spec:
    name: str
    content: dict[str, Any]

    def model_dump(self, **_: Any) -> dict[str, Any]:
        return self.content


@dataclass(frozen=True)
class _Dataset:
    chunks: list[int]
    opened: bool = True

    @property
    def count(self) -> int:
        return sum(self.chunks)

    def items(self, index: int) -> range:
        return range(self.chunks[index])


@dataclass(frozen=True)
class _Bench:
    """What a survey and a watch ask of a workbench, without models and without the data set."""

    spec: _Spec
    dataset: _Dataset
    store: Store


class _Plan(Plan):
    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = {node.name: node for node in nodes}


class NotedSurvey(Survey):
    """A survey of a run that is known by its note alone; it knows of no chunk yet.

    Args:
        root: of the store.
        name: of the run.
        begun: its note.
    """

    def __init__(self, root: Place, name: str, begun: Begun) -> None:
        bench = _Bench(_Spec(name, begun.spec), _Dataset(begun.items), Store(root))
        super().__init__(cast(Workbench, bench), _Plan(begun.nodes), len(begun.items))
        self.begun = begun

    def digests(self, node: Node, index: int, inputs: dict[str, Input]) -> dict[str, str]:
        """See :class:`Survey`."""
        given = self.begun.given.get(node.name)
        return {
            **{role: one.content for role, one in inputs.items()},
            **({} if given is None else given[index]),
        }


_parts: Bounded[pa.ChunkedArray] = Bounded(KEPT, size=lambda part: int(part.nbytes) + 100)


class GoingImages(StoredImages):
    """The images of the chunks that a run has finished and scored so far.

    Args:
        state: of the run; what it knows of now.
    """

    def __init__(self, state: NotedSurvey) -> None:
        self.done = dict(state.done)
        done = sorted((name, index, given.content) for (name, index), given in self.done.items())
        super().__init__(
            state.bench.store.root,
            state.bench.spec.name,
            digest_of([state.begun.digest, done]),
            [self._node(state, number, node) for number, node in enumerate(state.plan)],
            state.begun.classes,
        )
        self._items = state.begun.items
        self.rows = [
            (index, given.images)
            for index in range(state.chunks)
            if (given := self.done.get(("score/none/none", index))) is not None and given.images
        ]

    def _node(self, state: Survey, number: int, node: Node) -> StoredNode:
        found = [self.done.get((node.name, index)) for index in state.indices(node)]
        return StoredNode(
            number,
            node.name,
            node.kind,
            node.fingerprint,
            tuple(None if given is None else given.ref.key for given in found),
            node.attack,
            node.purifier,
            node.detector,
            node.config,
        )

    @property
    def shown(self) -> bool:
        """Whether there are images to be looked at by now."""
        return super().shown and bool(self.rows)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """See :class:`StoredImages`; places that no usable image took stay empty."""
        return np.concatenate([[0], np.cumsum(self._items, dtype=np.int64)])

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """See :class:`StoredImages`."""
        return np.concatenate([self.starts[i] + np.arange(count) for i, count in self.rows])

    @cached_property
    def names(self) -> pa.Array:
        """See :class:`StoredImages`."""
        return self.table(self.node("ingest"), "name").combine_chunks()

    def there(self, node: StoredNode) -> NDArray[np.bool_]:
        """See :class:`StoredImages`."""
        finished = [(node.name, index) in self.done for index, _ in self.rows]
        return np.repeat(np.array(finished, dtype=bool), [count for _, count in self.rows])

    def types(self, node: StoredNode) -> dict[str, pa.DataType]:
        """See :class:`StoredImages`; nothing while no chunk is finished."""
        for index, _ in self.rows:
            given = self.done.get((node.name, index))
            if given is not None:
                return self._types(given.ref)
        return {}

    def _types(self, ref: ChunkRef) -> dict[str, pa.DataType]:
        return column_types(Store(self.root).rows(ref))

    def table(self, node: StoredNode, name: str) -> pa.ChunkedArray:
        """See :class:`StoredImages`."""
        source = self.node("ingest") if name == "label" else node
        kind = self.types(source).get(name, pa.float64())
        arrays = [part.cast(kind) for part in self._column(source, name)]
        return pa.chunked_array([one for part in arrays for one in part.chunks], kind)

    def _column(self, node: StoredNode, name: str) -> Iterator[pa.ChunkedArray]:
        for index, count in self.rows:
            given = self.done.get((node.name, index))
            part = None if given is None else self._part(given.ref, name)
            yield pa.chunked_array([pa.nulls(count)]) if part is None else part

    def _part(self, ref: ChunkRef, name: str) -> pa.ChunkedArray | None:
        """A column of a chunk; chunks are named by what they hold, so it never changes."""

        def read() -> pa.ChunkedArray:
            table = read_columns(Store(self.root).rows(ref), [name])
            found = table.schema.names == [name]
            return table.column(name) if found else pa.chunked_array([], pa.null())

        part = _parts.get((str(self.root), ref, name), read)
        return part if len(part) else None
