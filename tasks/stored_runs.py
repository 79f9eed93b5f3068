"""What lies in a store: its runs of every kind, and the files that each of them vouches for."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from storage.errors import DamagedChunk, StorageError
from storage.files import Place, modified, store_holder
from storage.ledger import digest_of
from storage.scores import read_columns
from tasks.begun import NOTE, Begun, read_begun
from tasks.bounded import Bounded

KINDS = {
    "summary.json": "evaluation",
    "scan.json": "scan",
    "calibration.json": "calibration",
    "purify.json": "purification",
    "verify.json": "face verification",
    "sweep.json": "sweep",
    "card.json": "training",
}
"""What a run is, by the file that says what it came to."""
INDICES = ("run.json", "training.json")
TOLD = ("dataset", "source", "model", "metric", "encoder", "architecture", "images")
NO_RUN = "data"
"""Where a store keeps its chunks."""
SIDE_BY_SIDE = 8
"""Runs that are looked at at a time: a look at a store in a cloud is mostly waiting."""
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

Content = dict[str, Any]


class NotStored(StorageError):
    """Something was asked for that the store does not hold."""


@dataclass(frozen=True)
class Overview:
    """A run in a list of runs.

    Args:
        name: of its folder.
        kind: one of :data:`KINDS`, empty where it is not known.
        state: ``"finished"``, ``"going on"``, ``"not finished"`` or ``"damaged"``.
        dataset: its kind.
        model: name of what was attacked, judged or trained.
        images: how many; None where it is not said.
        when: its outputs were written, or it was begun.
        digest: of its index; what is made from its outputs is made anew when it changes.
        files: SHA-256 of its outputs by name.
        problem: what is wrong with it, in a sentence.
        begun: what a run that is still going, or was killed, noted when it began.
    """

    name: str
    kind: str = ""
    state: str = "finished"
    dataset: str = ""
    model: str = ""
    images: int | None = None
    when: datetime | None = None
    digest: str = ""
    files: dict[str, str] = field(default_factory=dict)
    problem: str = ""
    begun: Begun | None = None

    @property
    def pages(self) -> list[str]:
        """Its outputs that are pages."""
        return [name for name in self.files if name.endswith(".html")]


def overviews(root: Place) -> list[Overview]:
    """All runs of a store, the latest first.

    Raises:
        StorageError: where the store cannot be listed.
    """
    names = list(_names(root))
    held = store_holder(root) is not None if names else False
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        found = pool.map(lambda name: _overview(root / name, held), names)
        known = [one for one in found if one is not None]
    oldest = datetime.min.replace(tzinfo=UTC)
    return sorted(known, key=lambda one: (one.when or oldest, one.name), reverse=True)


def overview(root: Place, name: str) -> Overview:
    """One run of a store.

    Raises:
        NotStored: where there is none of that name.
    """
    if name in _names(root):
        found = _overview(root / name, store_holder(root) is not None)
        if found is not None:
            return found
    raise NotStored(f"expected a run of the store, got {name[:100]!r}")


def _names(root: Place) -> Iterator[str]:
    """Names that runs may have, of what lies in a store."""
    try:
        for place in root.iterdir():
            if place.name != NO_RUN and _PLAIN.fullmatch(place.name):
                yield place.name
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"store: cannot list {root}: {error.strerror or error}") from error


def _overview(folder: Place, held: bool) -> Overview | None:
    """What a folder of a store holds; None where it is no run's."""
    try:
        begun = read_begun(folder)
        for name in INDICES:
            content = _bytes(folder / name)
            if content is not None:
                return _finished(folder, name, content, begun, held)
        if begun is not None:
            return _going(folder, begun, held)
    except (StorageError, OSError) as error:
        return Overview(folder.name, state="damaged", problem=str(error))
    return None


def _finished(
    folder: Place, index_name: str, content: bytes, begun: Begun | None, held: bool
) -> Overview:
    path = folder / index_name
    try:
        index = json.loads(content)
        digest = index.pop("digest")
        if digest != digest_of(index):
            raise ValueError("its digest differs")
        files = {str(name): str(stated) for name, stated in index["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"{path}: expected the index of a finished run, got a damaged file ({error})"
        return Overview(folder.name, state="damaged", problem=problem, begun=begun)
    about = next((name for name in KINDS if name in files), "")
    said: Content = {}
    problem = ""
    if about:
        try:
            said = _known.get((str(path), digest), lambda: _told(folder, files, about))
        except StorageError as error:
            problem = str(error)
    state = "damaged" if problem else "finished" if begun is None else _state(held)
    return Overview(
        folder.name,
        KINDS.get(about, ""),
        state,
        dataset=_dataset(said),
        model=_model(said),
        images=_images(said),
        when=modified(path),
        digest=digest,
        files=files,
        problem=problem,
        begun=begun,
    )


def _told(folder: Place, files: dict[str, str], about: str) -> Content:
    """Of what a run came to, the part that a list of runs shows."""
    said = read_vouched(folder, files, about)
    return {name: said.get(name) for name in TOLD}


_known: Bounded[Content] = Bounded(1000)
"""The same by index and its digest: summaries are long, and a list reads all of them."""


def _going(folder: Place, begun: Begun, held: bool) -> Overview:
    return Overview(
        folder.name,
        begun.kind,
        _state(held),
        dataset=_dataset(begun.spec),
        model=_model(begun.spec),
        images=begun.images,
        when=modified(folder / NOTE),
        begun=begun,
    )


def _state(held: bool) -> str:
    return "going on" if held else "not finished"


def _dataset(said: Content) -> str:
    found = said.get("dataset")
    if isinstance(found, dict):
        return str(found.get("kind", ""))
    return str(said.get("source") or "")


def _model(said: Content) -> str:
    for name in ("model", "metric", "encoder"):
        found = said.get(name)
        if isinstance(found, dict) and found.get("name"):
            return str(found["name"])
    return str(said.get("architecture") or "")


def _images(said: Content) -> int | None:
    found = said.get("images")
    if found is None and isinstance(said.get("dataset"), dict):
        found = said["dataset"].get("images")
    return found if isinstance(found, int) else None


def _bytes(path: Place) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def output(root: Place, run: Overview, name: str) -> bytes:
    """An output of a run, as its index vouches for it.

    Raises:
        NotStored: where the index lists no such output.
        DamagedChunk: where it is not there, or not what was written.
    """
    if name not in run.files:
        raise NotStored(f"expected an output of {run.name}, got {name[:100]!r}")
    return _vouched(root / run.name, run.files, name)


def _vouched(folder: Place, files: dict[str, str], name: str) -> bytes:
    path = folder
    for part in name.split("/"):
        if part in ("", ".", ".."):
            raise DamagedChunk(f"{folder}: expected plain names of outputs, got {name!r}")
        path = path / part
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedChunk(f"cannot read {path}: {error.strerror or error}") from error
    if hashlib.sha256(content).hexdigest() != files[name]:
        raise DamagedChunk(f"{path}: expected what the run wrote, got other content")
    return content


def read_vouched(folder: Place, files: dict[str, str], name: str) -> Content:
    """An output that is a JSON object.

    Raises:
        DamagedChunk: where it is not there, not what was written, or no such object.
    """
    content = _vouched(folder, files, name)
    try:
        found = json.loads(content)
    except ValueError as error:
        raise DamagedChunk(f"{folder / name}: expected JSON, got a damaged file") from error
    if not isinstance(found, dict):
        raise DamagedChunk(f"{folder / name}: expected a JSON object, got something else")
    return found


def rejected(root: Place, run: Overview, first: int, count: int) -> tuple[int, list[Content]]:
    """How many source items a run could not use, and some of them: name and reason.

    Raises:
        DamagedChunk: where the list cannot be read.
    """
    if "rejected.parquet" not in run.files:
        return 0, []
    table = read_columns(root / run.name / "rejected.parquet", ("name", "reason"))
    return table.num_rows, table.slice(first, count).to_pylist()
