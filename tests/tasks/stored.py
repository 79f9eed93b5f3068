"""Stored runs for tests: one whose rows stand in the test, and a small one that was computed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from flows.watch import Watch
from storage.files import Place
from tasks.browsing import Gallery
from tasks.going import NotedSurvey
from tasks.library import Library, Opened
from tasks.outputs import write_outputs
from tasks.stored_images import StoredImages, StoredNode
from tests.toy import bench, run

PAGE = "<!doctype html><title>toy</title>"


def library(root: Place) -> Library:
    """A store as the app looks at it."""

    def watch(state: NotedSurvey) -> Watch:
        return Watch(state.bench, state=state)

    return Library(root, watch)


def finished_run(folder: Path, **changes: Any) -> Path:
    """Compute a toy run and write its outputs; returns its store."""
    state, _ = run(bench(folder, **changes))
    write_outputs(state, lambda *_: PAGE)
    return folder / "store"


def rows_of(store: Path, kind: str, attack: str, other: str) -> pa.Table:
    """The rows of a stage, found by what they say of themselves."""
    name = "detector" if kind == "detect" else "purifier"
    for path in sorted((store / "toy" / "scores").glob(f"{kind}-*.parquet")):
        table = pq.read_table(path)
        if table["attack"][0].as_py() == attack and table[name][0].as_py() == other:
            return table
    raise AssertionError(f"no rows of {kind} {attack} {other}")


def gallery_of(opened: Opened) -> Gallery:
    """The images of a run that has some."""
    assert opened.gallery is not None
    return opened.gallery


def decoded(png: bytes) -> NDArray[np.uint8]:
    """The pixels of a PNG."""
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture)


class WrittenDown(StoredImages):
    """A run of which every row stands in a test.

    Args:
        rows: columns of each stage by its name.
        config: of the attack.
        thresholds: of detectors.
        name: digest of the run.
    """

    def __init__(
        self,
        rows: dict[str, dict[str, list[Any]]],
        config: dict[str, Any] | None = None,
        thresholds: dict[str, float | None] | None = None,
        name: str = "written",
    ) -> None:
        nodes = [StoredNode(0, "ingest", "ingest", "0" * 24, ("1" * 24,))]
        for stage in rows:
            kind, attack, last = stage.split("/")
            if kind == "score" and last == "none" and attack != "none":
                made = (f"attack/{attack}", "attack", "2" * 24, (None,))
                nodes.append(StoredNode(len(nodes), *made, attack, config=config or {}))
            if kind == "score" and last != "none":
                made = (f"purify/{attack}/{last}", "purify", "3" * 24, (None,))
                nodes.append(StoredNode(len(nodes), *made, attack, purifier=last))
            label = {"detector" if kind == "detect" else "purifier": last}
            one = (len(nodes), stage, kind, "4" * 24, (None,), attack)
            nodes.append(StoredNode(*one, **label))
        super().__init__(Path("nowhere"), "toy", name, nodes, ("cat", "dog"), thresholds)
        self._rows = {stage: pa.table(columns) for stage, columns in rows.items()}

    @property
    def places(self) -> NDArray[np.int64]:
        return np.arange(len(self.names))

    @property
    def starts(self) -> NDArray[np.int64]:
        return np.array([0, len(self.names)])

    @property
    def names(self) -> pa.Array:
        return self._rows["score/none/none"]["name"].combine_chunks()

    def there(self, node: StoredNode) -> NDArray[np.bool_]:
        return np.ones(self.count, dtype=bool)

    def types(self, node: StoredNode) -> dict[str, pa.DataType]:
        return {field.name: field.type for field in self._rows[node.name].schema}

    def table(self, node: StoredNode, name: str) -> pa.ChunkedArray:
        return self._rows[node.name][name]
