"""Atomic files in a store: what is there is whole, what is not whole is not there.

A store is a folder, or a prefix in a cloud store; :data:`Place` is either.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlparse

from storage.errors import StoreBusy, StoreError, StoreFault
from storage.lease import (
    holder_in_words,
    lease_holder,
    leased,
    read_holder,
    this_holder,
)
from storage.objects import SCHEMES, ObjectPath, object_root
from storage.patience import patiently

Place = Path | ObjectPath
"""A file or folder of a store."""


def store_root(store: str | Place) -> Place:
    """What a store URL names: a plain path, ``file://``, or a prefix of a cloud store.

    Raises:
        StoreError: for a URL of another scheme, or where the cloud store cannot be opened.
    """
    if isinstance(store, Path | ObjectPath):
        return store
    parts = urlparse(store)
    if parts.scheme in ("", "file"):
        return Path(unquote(parts.path) if parts.scheme else store).expanduser()
    found = object_root(store)
    if found is None:
        schemes = ", ".join(f"{scheme}://" for scheme in SCHEMES[:-1])
        raise StoreError(
            f"store: expected a folder, a file:// URL or one of {schemes}, got {store!r}"
        )
    return found


def local_root(store: str | Place, what: str = "this") -> Path:
    """The folder that a store is.

    Args:
        store: path or URL.
        what: what needs a folder, for the message.

    Raises:
        StoreError: for a store in a cloud.
    """
    root = store_root(store)
    if isinstance(root, ObjectPath):
        raise StoreError(f"store: {what} needs a folder, got {store}")
    return root


def free_bytes(place: Place) -> int | None:
    """Bytes that can still be written there, None where nobody knows."""
    return shutil.disk_usage(place).free if isinstance(place, Path) else None


def temporary_name(path: Path) -> Path:
    """A name beside ``path`` that readers ignore and that no other writer uses."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")


def write_atomic(path: Place, data: bytes) -> None:
    """Write ``data`` so that ``path`` holds either what it held before or all of it.

    An error that may pass is waited for, three times within a second.

    Raises:
        StoreError: where the disk is full or the folder cannot be written.
    """
    if isinstance(path, ObjectPath):
        path.write_bytes(data)
        return

    def write() -> None:
        temporary = temporary_name(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    try:
        patiently(write)
    except OSError as error:
        raise as_store_error(error, path) from error


def modified(path: Place) -> datetime | None:
    """When a file was written last; None where it is not there."""
    try:
        if isinstance(path, ObjectPath):
            return path.modified()
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        return None


def read_patiently(path: Place) -> bytes:
    """Read a file; an error that may pass is waited for, three times within a second.

    Raises:
        FileNotFoundError: where it is not there.
        OSError, StoreFault: where the error stays.
    """
    # one in a cloud store is patient by itself
    return path.read_bytes() if isinstance(path, ObjectPath) else patiently(path.read_bytes)


@dataclass(frozen=True)
class Written:
    """What is known of a file that was written: its SHA-256 and its bytes."""

    sha256: str
    size: int


def write_hashed(path: Place, data: bytes) -> Written:
    """Write as :func:`write_atomic` does, and say what was written.

    Raises:
        StoreError: where the disk is full or the folder cannot be written.
    """
    write_atomic(path, data)
    return Written(hashlib.sha256(data).hexdigest(), len(data))


def as_store_error(error: OSError, path: Path) -> StoreError:
    """Say in one sentence what an operating system error means for the store."""
    reasons = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "permission denied",
        errno.EPERM: "permission denied",
    }
    lasting = reasons.get(error.errno or 0)
    if lasting is not None:
        return StoreError(f"store: cannot write {path}: {lasting}")
    return StoreFault(f"store: cannot write {path}: {error.strerror or error}")


def check_writable(root: Place) -> None:
    """Create the store's folder and prove that a file can be written there.

    Raises:
        StoreError: with the reason.
    """
    if isinstance(root, Path):
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise as_store_error(error, root) from error
        if not root.is_dir():
            raise StoreError(f"store: expected a folder, got a file: {root}")
    probe = root / ".probe"
    write_atomic(probe, b"writable")
    probe.unlink(missing_ok=True)


def remove(path: Place) -> None:
    """Remove a file if it is there; a folder with :func:`remove_folder`."""
    path.unlink(missing_ok=True)


def remove_folder(path: Place) -> None:
    """Remove a folder and everything below it, if it is there."""
    if isinstance(path, ObjectPath):
        for found in list(path.rglob("*")):
            found.unlink(missing_ok=True)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=False)
    else:
        path.unlink(missing_ok=True)


def sweep(folder: Place, name: str) -> None:
    """Remove what an interrupted writer of ``name`` left in ``folder``."""
    if isinstance(folder, Path) and folder.is_dir():
        for leftover in folder.glob(f".{name}.*.tmp"):
            leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive(
    root: Place, *, wait: bool = True, on_wait: Callable[[], None] | None = None
) -> Iterator[None]:
    """Hold the store for one writing run; ``on_wait`` is called before waiting for another.

    In a folder the lock belongs to the process and ends with it, however it ends. In a cloud store
    it is a lease: see :func:`storage.lease.leased`.

    Raises:
        StoreBusy: where another run holds it and ``wait`` is false.
    """
    if isinstance(root, ObjectPath):
        with leased(root / ".lock", wait=wait, on_wait=on_wait):
            yield
        return
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                holder = holder_in_words(_held_by(handle))
                raise StoreBusy(f"store: {holder} is writing to {root}") from None
            if on_wait is not None:
                on_wait()
            fcntl.flock(handle, fcntl.LOCK_EX)
        handle.seek(0)
        handle.truncate()
        handle.write(json.dumps(this_holder()))
        handle.flush()
        yield


def _held_by(handle: IO[str]) -> dict[str, str]:
    handle.seek(0)
    return read_holder(handle.read())


def store_holder(root: Place) -> dict[str, str] | None:
    """Who writes to the store now: host, pid and since when; None where nobody does."""
    if isinstance(root, ObjectPath):
        return lease_holder(root / ".lock")
    try:
        with (root / ".lock").open("r+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _held_by(handle)
    except OSError:
        return None
    return None
