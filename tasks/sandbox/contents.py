"""What of its own folder a defence sees; the same is what it is known by.

Left out of sight are names that start with a dot and compiled Python, stores, the data set, and,
where a data set lies around the folder, every file that could be one of its images.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tasks.errors import DefenseError

MOST_FILES = 10_000
"""Files and folders in a defence's folder, at most."""
MOST_BYTES = 2_000_000_000
"""Bytes of the files that it sees, at most."""
OF_A_DEFENCE = frozenset(
    [
        *(".py", ".pt", ".pth", ".safetensors", ".npz", ".npy", ".onnx", ".bin"),
        *(".json", ".yaml", ".yml", ".pkl", ".csv", ".txt", ".md"),
    ]
)
"""Files that a defence sees of a folder that a data set holds: none of them is an image."""
_COMPILED = "__pycache__"

_digests: dict[tuple[str, int, int, int, int], bytes] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class Unseen:
    """What a defence must not see.

    Args:
        stores: folders of stores.
        data: files and folders of data sets.
    """

    stores: tuple[Path, ...] = ()
    data: tuple[Path, ...] = ()

    def resolved(self) -> Unseen:
        """The same without symbolic links."""
        stores = tuple(path.resolve() for path in self.stores)
        return Unseen(stores, tuple(path.resolve() for path in self.data))

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them."""
        return self.stores + self.data


@dataclass
class Contents:
    """What lies in a folder, at any depth.

    Args:
        files: what a defence sees: relative name and status, sorted by name.
        hidden: what it does not see; a folder stands for everything in it.
    """

    files: list[tuple[str, os.stat_result]] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)

    def digest(self, folder: Path) -> str:
        """SHA-256 over names and contents of the files.

        A file that has not changed since this process read it last is not read again.

        Raises:
            DefenseError: where one cannot be read.
        """
        found = hashlib.sha256()
        for name, status in self.files:
            kind = stat.S_IFMT(status.st_mode)
            found.update(f"{len(os.fsencode(name))} {kind} ".encode() + os.fsencode(name))
            with _readable():
                if stat.S_ISLNK(kind):
                    found.update(os.fsencode(os.readlink(folder / name)) + b"\0")
                elif stat.S_ISREG(kind):
                    found.update(_digest_of(folder / name, status))
        return found.hexdigest()


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DefenseError(f"path: cannot read {error.filename}: {error.strerror}") from None


def contents(folder: Path, unseen: Unseen) -> Contents:
    """Look through the folder of a defence; links are not followed.

    Args:
        folder: without symbolic links.
        unseen: without symbolic links.

    Raises:
        DefenseError: where too much lies there to be read, or it cannot be.
    """
    look = _Look(folder, unseen)
    with _readable():
        look.into(folder)
    look.found.files.sort(key=lambda entry: entry[0])
    return look.found


class _Look:
    def __init__(self, folder: Path, unseen: Unseen) -> None:
        self.folder = folder
        self.unseen = frozenset(unseen.paths)
        self.around = any(path == folder or path in folder.parents for path in unseen.data)
        self.found = Contents()
        self.count = self.size = 0

    def into(self, folder: Path) -> bool:
        """Look into a folder; whether anything in it is seen."""
        before, start = len(self.found.files), len(self.found.hidden)
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        self._check(len(listed))
        for entry in listed:
            path = folder / entry.name
            if not self._seen(entry, path):
                self.found.hidden.append(path)
            elif entry.is_dir(follow_symlinks=False):
                self._enter(entry, path)
            else:
                self._keep(entry, path)
        if self.around and listed and len(self.found.files) == before:
            del self.found.hidden[start:]
            return False
        return True

    def _enter(self, entry: os.DirEntry[str], path: Path) -> None:
        if self.into(path):
            self._keep(entry, path)
        else:
            self.found.hidden.append(path)

    def _keep(self, entry: os.DirEntry[str], path: Path) -> None:
        status = entry.stat(follow_symlinks=False)
        self.size += status.st_size
        self._check(0)
        self.found.files.append((path.relative_to(self.folder).as_posix(), status))

    def _seen(self, entry: os.DirEntry[str], path: Path) -> bool:
        if entry.name.startswith(".") or entry.name == _COMPILED or path in self.unseen:
            return False
        if entry.is_dir(follow_symlinks=False):
            return not ((path / ".lock").is_file() and (path / "data").is_dir())  # a store
        return not self.around or path.suffix.lower() in OF_A_DEFENCE

    def _check(self, more: int) -> None:
        self.count += more
        if self.count > MOST_FILES:
            much = f"more than {MOST_FILES:,} files"
        elif self.size > MOST_BYTES:
            much = f"more than {MOST_BYTES / 1e9:g} GB of files"
        else:
            return
        raise DefenseError(
            f"path: {self.folder} holds {much}, all of which the defence could read; "
            "expected it in a folder of its own"
        )


def _digest_of(path: Path, status: os.stat_result) -> bytes:
    key = (
        *(str(path), status.st_ino, status.st_size),
        *(status.st_mtime_ns, status.st_ctime_ns),
    )
    with _lock:
        known = _digests.get(key)
    if known is None:
        with path.open("rb") as stream:
            known = hashlib.file_digest(stream, "sha256").digest()
        with _lock:
            _digests[key] = known
    return known
