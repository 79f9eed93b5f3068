"""The ledger: a mark for every finished chunk, which vouches for its bytes.

A mark is written after the data, atomically, and holds the digest of every file it vouches for,
the digests of what the chunk was made from, and a digest of itself. A chunk counts as done only
while all of them agree; anything else is damage or work to do, never a result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from storage.errors import StorageError
from storage.files import Place, read_patiently, remove, remove_folder, sweep, write_atomic


def sha256_file(path: Place) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(read_patiently(path)).hexdigest()


def canonical(value: Any) -> bytes:
    """The one JSON spelling of a value, fit for hashing."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value in its canonical spelling."""
    return hashlib.sha256(canonical(value)).hexdigest()


@dataclass(frozen=True)
class Mark:
    """What the ledger vouches for.

    Args:
        key: name of the chunk within its stage.
        inputs: content digest of every input by role.
        files: SHA-256 of every file the chunk consists of, by path relative to the stage.
        content: digest of what the chunk means (ids, shapes, pixels, rows), independent of
            compression; it is the input digest of the stages that follow.
        images: number of images.
        receipt: what does not belong to the result: seconds, dates, versions, host.
    """

    key: str
    inputs: dict[str, str]
    files: dict[str, str]
    content: str
    images: int
    receipt: dict[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Serialise with a digest of the whole."""
        body = dict(vars(self))
        return json.dumps({**body, "mark": digest_of(body)}, sort_keys=True, indent=1).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Mark | None:
        """Read a mark; None for anything that is not exactly what was written."""
        try:
            body = json.loads(data)
            stated = body.pop("mark")
            return cls(**body) if digest_of(body) == stated else None
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


@dataclass(frozen=True)
class Finding:
    """One thing that is not as the ledger says."""

    stage: str
    key: str
    path: str
    problem: str


class Ledger:
    """The marks of one stage.

    Args:
        folder: the stage's folder in the store.
    """

    def __init__(self, folder: Place) -> None:
        self.folder = folder

    def path(self, key: str) -> Place:
        """Where the mark of a chunk lies."""
        return self.folder / "marks" / f"{key}.json"

    def read(self, key: str) -> Mark | None:
        """The mark of a chunk, or None where there is none or it is damaged."""
        try:
            return Mark.from_bytes(read_patiently(self.path(key)))
        except OSError:
            return None

    def problems(self, mark: Mark) -> Iterator[tuple[str, str]]:
        """Every file that is not as the mark says, with what is wrong."""
        for name, stated in mark.files.items():
            path = self.folder / name
            try:
                found = sha256_file(path)
            except FileNotFoundError:
                yield name, "missing"
            except OSError as error:
                yield name, f"unreadable ({error.strerror})"
            else:
                if found != stated:
                    yield name, "digest differs"

    def vouches(self, key: str, inputs: dict[str, str]) -> Mark | None:
        """The mark, if the chunk is done from these inputs and every byte is as it was written."""
        mark = self.read(key)
        if mark is None or mark.key != key or mark.inputs != inputs:
            return None
        return None if any(True for _ in self.problems(mark)) else mark

    def write(self, mark: Mark) -> None:
        """Vouch for a chunk; the last step of making it."""
        for name in mark.files:
            if not (self.folder / name).is_file():
                raise StorageError(f"expected {name} to be written before its mark")
        write_atomic(self.path(mark.key), mark.to_bytes())

    def withdraw(self, key: str) -> None:
        """Take back a mark and everything it may have vouched for, before the chunk is remade."""
        remove(self.path(key))
        remove_folder(self.folder / "images" / key)
        remove(self.folder / "rows" / f"{key}.parquet")
        remove(self.folder / "rows" / f"{key}.rejected.parquet")
        sweep(self.path(key).parent, f"{key}.json")
        sweep(self.folder / "rows", f"{key}.parquet")
        sweep(self.folder / "rows", f"{key}.rejected.parquet")

    def keys(self) -> list[str]:
        """Keys of all marks, sorted."""
        marks = self.folder / "marks"
        return sorted(p.stem for p in marks.glob("[!.]*.json")) if marks.is_dir() else []

    def findings(self, stage: str, key: str) -> list[Finding]:
        """What is wrong with a chunk that has, or had, a mark; empty where all is well."""
        if not self.path(key).exists():
            return []
        mark = self.read(key)
        if mark is None or mark.key != key:
            name = f"marks/{key}.json"
            return [Finding(stage, key, name, "the mark itself is damaged")]
        return [Finding(stage, key, name, problem) for name, problem in self.problems(mark)]
