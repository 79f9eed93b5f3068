"""What a run notes in the store when it begins, so that others can watch it without its data.

The note names the stages, what each is made from, and how many items each chunk has; the marks
say the rest. It is removed when the outputs are written, so one that is there is of a run that is
still going, or was killed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from storage.errors import DamagedChunk
from storage.files import Place, remove, sweep, write_atomic
from storage.ledger import digest_of
from tasks.nodes import Node

if TYPE_CHECKING:
    from tasks.survey import Survey

NOTE = "begun.json"
PARTS = (
    "name",
    "kind",
    "inputs",
    "position",
    "attack",
    "detector",
    "purifier",
    "subject",
    "config",
    "gathers",
)
"""Of a node."""


@dataclass(frozen=True)
class Begun:
    """A run as it was begun.

    Args:
        spec: its specification, without what does not change results.
        items: source items of each chunk.
        nodes: its stages, in an order in which they can be computed.
        given: digests of what chunks are made from besides other chunks: by stage, one for each
            chunk, by role.
        classes: names of the data set's classes.
        digest: of all this.
    """

    spec: dict[str, Any]
    items: list[int]
    nodes: list[Node]
    given: dict[str, list[dict[str, str]]]
    classes: list[str]
    digest: str

    @property
    def images(self) -> int:
        """Source items, usable or not."""
        return sum(self.items)

    @property
    def kind(self) -> str:
        """What kind of run it is, where its stages tell."""
        return "evaluation" if any(node.kind == "score" for node in self.nodes) else ""


def note(state: Survey) -> None:
    """Note that a run begins.

    Raises:
        StoreError: where the store cannot be written.
    """
    # only here, so that whoever reads notes does without torch
    from tasks.compute import inputs_digest

    bench = state.bench
    given = {}
    for node in state.plan:
        found = [inputs_digest(bench, node, index, {}) for index in state.indices(node)]
        if any(found):
            given[node.name] = found
    content = {
        "spec": bench.spec.model_dump(mode="json", exclude={"compute"}),
        "items": [len(bench.dataset.items(index)) for index in range(state.chunks)],
        "nodes": [{part: getattr(node, part) for part in PARTS} for node in state.plan],
        "given": given,
        "classes": list(bench.dataset.source.classes or []),
    }
    text = json.dumps({**content, "digest": digest_of(content)}, allow_nan=False)
    write_atomic(bench.store.run(bench.spec.name) / NOTE, text.encode())


def finish(state: Survey) -> None:
    """Take the note back: the outputs are written."""
    folder = state.bench.store.run(state.bench.spec.name)
    sweep(folder, NOTE)
    remove(folder / NOTE)


def read_begun(folder: Place) -> Begun | None:
    """What the run of a folder noted; None where no run is going there.

    Raises:
        DamagedChunk: where the note is damaged.
    """
    path = folder / NOTE
    try:
        content = json.loads(path.read_bytes())
        digest = content.pop("digest")
        if digest != digest_of(content):
            raise ValueError("its digest differs")
        content["nodes"] = [Node(**node) for node in content["nodes"]]
        return Begun(**content, digest=digest)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise DamagedChunk(f"{path}: expected what a run noted, got a damaged file") from error
