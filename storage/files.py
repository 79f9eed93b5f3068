"""Atomic files in a store: what is there is whole, what is not whole is not there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

from storage.errors import StoreBusy, StoreError


def local_root(store: str | Path) -> Path:
    """The folder that a store URL names: a plain path or ``file://``.

    Raises:
        StoreError: for a URL of another scheme.
    """
    if isinstance(store, Path):
        return store
    parts = urlparse(store)
    if parts.scheme in ("", "file"):
        return Path(unquote(parts.path) if parts.scheme else store).expanduser()
    raise StoreError(f"store: expected a folder or a file:// URL, got {store!r}")


def temporary_name(path: Path) -> Path:
    """A name beside ``path`` that readers ignore and that no other writer uses."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` so that ``path`` holds either what it held before or all of it.

    Raises:
        StoreError: where the disk is full or the folder cannot be written.
    """
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise as_store_error(error, path) from error


def as_store_error(error: OSError, path: Path) -> StoreError:
    """Say in one sentence what an operating system error means for the store."""
    reasons = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "permission denied",
        errno.EPERM: "permission denied",
    }
    reason = reasons.get(error.errno or 0, error.strerror or str(error))
    return StoreError(f"store: cannot write {path}: {reason}")


def check_writable(root: Path) -> None:
    """Create the store's folder and prove that a file can be written there.

    Raises:
        StoreError: with the reason.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise as_store_error(error, root) from error
    if not root.is_dir():
        raise StoreError(f"store: expected a folder, got a file: {root}")
    probe = root / ".probe"
    write_atomic(probe, b"writable")
    probe.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file or folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=False)
    else:
        path.unlink(missing_ok=True)


def sweep(folder: Path, name: str) -> None:
    """Remove what an interrupted writer of ``name`` left in ``folder``."""
    if folder.is_dir():
        for leftover in folder.glob(f".{name}.*.tmp"):
            leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive(
    root: Path, *, wait: bool = True, on_wait: Callable[[], None] | None = None
) -> Iterator[None]:
    """Hold the store for one writing run; ``on_wait`` is called before waiting for another.

    The lock belongs to the process and ends with it, however it ends.

    Raises:
        StoreBusy: where another run holds it and ``wait`` is false.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise StoreBusy(f"store: another run is writing to {root}") from None
            if on_wait is not None:
                on_wait()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
