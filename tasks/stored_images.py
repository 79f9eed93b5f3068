"""The images and rows of one stored run, wherever they lie: nothing of it is held but numbers."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from storage.chunks import ChunkRef, Store
from storage.errors import DamagedChunk
from storage.files import Place
from storage.ledger import digest_of
from storage.scores import column_types, read_columns
from tasks.bounded import Bounded
from tasks.stored_runs import NotStored, Overview, read_vouched

SIDE_BY_SIDE = 16
"""Marks that are read at a time."""
PICTURED = ("ingest", "attack", "purify")
"""Kinds of stages whose pictures are shown."""
_HEX = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True)
class StoredNode:
    """A stage of a stored run.

    Args:
        number: its place among the stages.
        name: of the stage.
        kind: of the stage.
        fingerprint: name of its folder in the store.
        chunks: keys of its chunks; None for one that is not finished.
        attack, purifier, detector: labels that it stands for.
        config: what its results depend on besides the inputs.
    """

    number: int
    name: str
    kind: str
    fingerprint: str
    chunks: tuple[str | None, ...]
    attack: str = "none"
    purifier: str = "none"
    detector: str = "none"
    config: dict[str, Any] = field(default_factory=dict)


class StoredImages(ABC):
    """The per-image columns and chunks of a stored run.

    Args:
        root: of the store.
        name: of the run.
        digest: changes whenever anything here does.
        nodes: its stages.
        classes: names of the classes.
        thresholds: of its detectors, None where there is none.
    """

    def __init__(
        self,
        root: Place,
        name: str,
        digest: str,
        nodes: Sequence[StoredNode],
        classes: Sequence[str] = (),
        thresholds: dict[str, float | None] | None = None,
    ) -> None:
        self.root = root
        self.name = name
        self.digest = digest
        self.nodes = list(nodes)
        self.classes = list(classes)
        self.thresholds = thresholds or {}
        self._by_name = {node.name: node for node in nodes}

    def node(
        self, kind: str, attack: str = "", *, purifier: str = "", detector: str = ""
    ) -> StoredNode:
        """The stage of a kind that stands for some labels.

        Raises:
            NotStored: where the run has no such stage.
        """
        name = "/".join(part for part in (kind, attack, purifier or detector) if part)
        found = self._by_name.get(name)
        if found is None:
            raise NotStored(f"expected a stage of {self.name}, got {name[:200]!r}")
        return found

    def of(self, kind: str) -> list[StoredNode]:
        """Stages of a kind."""
        return [node for node in self.nodes if node.kind == kind]

    @property
    def shown(self) -> bool:
        """Whether there are images to be looked at."""
        return "score/none/none" in self._by_name and "ingest" in self._by_name

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.places)

    def ref(self, number: int, place: int) -> tuple[ChunkRef, int]:
        """Where a picture lies: its chunk, and its place in there.

        Args:
            number: of the stage.
            place: of the image in the run.

        Raises:
            NotStored: where the run has no such picture.
        """
        inside = 0 <= number < len(self.nodes) and 0 <= place < int(self.starts[-1])
        if not inside or self.nodes[number].kind not in PICTURED:
            raise NotStored(f"expected a picture of {self.name}, got stage {number}, image {place}")
        node = self.nodes[number]
        chunk = int(np.searchsorted(self.starts, place, side="right")) - 1
        key = node.chunks[chunk] if chunk < len(node.chunks) else None
        if key is None:
            raise NotStored(f"expected a finished chunk of {node.name}, got number {chunk}")
        return ChunkRef(node.fingerprint, key), place - int(self.starts[chunk])

    @property
    @abstractmethod
    def places(self) -> NDArray[np.int64]:
        """Place of each row's image in the run, ascending."""

    @property
    @abstractmethod
    def starts(self) -> NDArray[np.int64]:
        """First place of each chunk, and behind them the end of the last one."""

    @property
    @abstractmethod
    def names(self) -> pa.Array:
        """Name of each row's image."""

    @abstractmethod
    def there(self, node: StoredNode) -> NDArray[np.bool_]:
        """The rows that a stage has finished."""

    @abstractmethod
    def types(self, node: StoredNode) -> dict[str, pa.DataType]:
        """Columns of a stage's rows."""

    @abstractmethod
    def table(self, node: StoredNode, name: str) -> pa.ChunkedArray:
        """A column of a stage, null where it is not finished."""

    def column(self, node: StoredNode, name: str) -> NDArray[Any]:
        """A column of a stage as numbers: -1 or NaN where there is none.

        Raises:
            DamagedChunk: where it cannot be read.
        """
        values = self.table(node, name)
        if pa.types.is_integer(values.type):
            return np.asarray(pc.fill_null(values, -1).to_numpy())
        return np.asarray(values.cast(pa.float64()).to_numpy(), dtype=np.float64)


class FinishedImages(StoredImages):
    """Those of a finished run, from its score files.

    Args:
        root: of the store.
        run: a finished evaluation.
        summary: of it, where it has been read.

    Raises:
        DamagedChunk: where what the run wrote is damaged.
    """

    def __init__(self, root: Place, run: Overview, summary: dict[str, Any]) -> None:
        folder = root / run.name
        stages = (
            read_vouched(folder, run.files, "stages.json") if "stages.json" in run.files else {}
        )
        super().__init__(
            root,
            run.name,
            run.digest,
            _nodes(stages, folder),
            summary.get("dataset", {}).get("classes") or (),
            summary.get("thresholds"),
        )
        self.folder = folder
        # the files that the index lists, by the digest of a stage's name that ends theirs
        self._files = {
            name.removesuffix(".parquet").rpartition("-")[2]: name.removeprefix("scores/")
            for name in run.files
            if name.startswith("scores/") and "/" not in name.removeprefix("scores/")
        }
        self._types: Bounded[dict[str, pa.DataType]] = Bounded(4000)

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """See :class:`StoredImages`."""
        return np.arange(len(self.names), dtype=np.int64)

    @cached_property
    def names(self) -> pa.Array:
        """See :class:`StoredImages`."""
        return self.table(self.node("score", "none", purifier="none"), "name").combine_chunks()

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """See :class:`StoredImages`."""
        ingest = self.node("ingest")
        ledger = Store(self.root).ledger(ingest.fingerprint)

        def images(key: str | None) -> int:
            mark = ledger.read(key or "")
            if mark is None:
                raise DamagedChunk(f"cannot read the mark of chunk {key} in {ledger.folder}")
            return mark.images

        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            counts = list(pool.map(images, ingest.chunks))
        return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])

    def there(self, node: StoredNode) -> NDArray[np.bool_]:
        """See :class:`StoredImages`."""
        return np.ones(self.count, dtype=bool)

    def types(self, node: StoredNode) -> dict[str, pa.DataType]:
        """See :class:`StoredImages`."""
        return self._types.get(node.name, lambda: column_types(self._path(node)))

    def table(self, node: StoredNode, name: str) -> pa.ChunkedArray:
        """See :class:`StoredImages`."""
        path = self._path(node)
        table = read_columns(path, [name])
        if name not in table.schema.names:
            raise DamagedChunk(f"{path}: expected a column {name!r}, got none")
        return table.column(name)

    def _path(self, node: StoredNode) -> Place:
        found = self._files.get(digest_of(node.name)[:8])
        if found is None:
            raise DamagedChunk(f"{self.folder}: expected rows of {node.name}, got none")
        return self.folder / "scores" / found


def _nodes(stages: dict[str, Any], folder: Place) -> list[StoredNode]:
    """The stages of ``stages.json``, with the labels that their names hold."""
    attacks = [name.removeprefix("attack/") for name in stages if name.startswith("attack/")]
    # of two labels of which one begins with the other, the longer one is meant
    known = sorted([*attacks, "none"], key=len, reverse=True)
    nodes = []
    for number, (name, stage) in enumerate(stages.items()):
        kind, _, rest = name.partition("/")
        attack = next((one for one in known if rest == one or rest.startswith(f"{one}/")), "none")
        last = rest.removeprefix(attack).removeprefix("/") or "none"
        try:
            chunks = tuple(_hex(key) for key in stage["chunks"])
            fingerprint, config = _hex(stage["fingerprint"]), dict(stage.get("config") or {})
        except (KeyError, TypeError, ValueError) as error:
            path = folder / "stages.json"
            raise DamagedChunk(f"{path}: expected stages and their chunks, {error}") from error
        nodes.append(
            StoredNode(
                number,
                name,
                kind,
                fingerprint,
                chunks,
                attack=attack,
                purifier=last if kind in ("purify", "score") else "none",
                detector=last if kind == "detect" else "none",
                config=config,
            )
        )
    return nodes


def _hex(name: Any) -> str:
    """A name that the store made of a digest, and no path."""
    if not isinstance(name, str) or not _HEX.fullmatch(name):
        raise ValueError(f"expected a digest, got {str(name)[:80]!r}")
    return name
