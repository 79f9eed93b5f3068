"""CIFAR-10 as Parquet files, as the original Python archive, or downloaded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from storage.errors import DatasetNotFound, SourceError
from storage.sources.download import download_archive
from storage.sources.items import JSON, Content, Item, identity_of, require_choice
from storage.sources.paths import data_folder, resolve
from storage.sources.pickles import load_arrays
from storage.sources.rows import list_parts, list_rows, read_rows

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

ARCHIVE_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE_MD5 = "c58f30108f718f92721af3b95e74349a"
ARCHIVE_FOLDER = "cifar-10-batches-py"

_BATCHES = {
    "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
    "test": ("test_batch",),
}
_SHAPE = (3, 32, 32)
_BYTES = 3 * 32 * 32


@dataclass(frozen=True)
class Cifar10:
    """CIFAR-10 (Krizhevsky 2009): 32 x 32 colour images of ten classes.

    Three forms are known by what lies at the path: a folder with ``<split>-*.parquet`` in the
    layout of the Hugging Face hub (or one such file), the folder ``cifar-10-batches-py`` of the
    original Python archive, and a folder that holds it. The order is that of the files. Names are
    the paths or file names stored with the images where no two are alike, else
    ``<part>/<row>`` or ``<split>/<row>``.

    Args:
        path: where it lies; None looks for ``cifar10`` and ``cifar-10-batches-py`` among the
            data folders.
        split: ``test`` (10,000 images) or ``train`` (50,000).
        download: fetch the original archive (170 MB) where nothing is found: into the folder
            ``path``, or into the data folder where that is None.
    """

    kind: ClassVar[str] = "cifar10"
    doc: ClassVar[str] = "CIFAR-10: Parquet files, the Python archive, or downloaded"

    path: Path | None = None
    split: str = "test"
    download: bool = False

    def __post_init__(self) -> None:
        """Accept the path as text and check the options."""
        if self.path is not None:
            object.__setattr__(self, "path", Path(self.path))
        require_choice("split", self.split, tuple(_BATCHES))
        if not isinstance(self.download, bool):
            raise ValueError(f"download: expected true or false, got {self.download!r}")

    def identity(self) -> dict[str, JSON]:
        """Kind, path and split."""
        return identity_of(self, without=("download",))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the ten classes."""
        return CLASSES

    def items(self) -> Iterator[Item]:
        """List the images; the stamp is the file's size and modification time and the row.

        Raises:
            DatasetNotFound: where nothing is found and nothing is to be downloaded.
            SourceError: where the files are damaged or the download fails.
        """
        root = self._locate()
        parts = self._parts(root)
        if parts is not None:
            yield from list_rows(_root_of(root), parts, "auto", "auto", hint=_BYTES)
            return
        batches = {name: _load_batch(root / name) for name in _BATCHES[self.split]}
        stored = [name for batch in batches.values() for name in batch.names]
        unique = len(set(stored)) == len(stored) == sum(len(b.labels) for b in batches.values())
        position = 0
        for name, batch in batches.items():
            status = (root / name).stat()
            for row, label in enumerate(batch.labels):
                yield Item(
                    f"{self.split}/{stored[position] if unique else f'{position:06d}'}",
                    label,
                    f"{status.st_size}-{status.st_mtime_ns}-{row}",
                    _BYTES,
                    f"{name}#{row}",
                )
                position += 1

    def read(self, items: Sequence[Item]) -> Iterator[Content]:
        """Yield encoded bytes (Parquet) or arrays (32, 32, 3) of uint8 (Python archive).

        Raises:
            DatasetNotFound: where nothing is found.
            SourceError: where the files are damaged.
        """
        root = self._locate()
        if self._parts(root) is not None:
            yield from read_rows(_root_of(root), items, "auto", "auto")
            return
        loaded, batch = "", None
        for item in items:
            name, _, row = item.place.rpartition("#")
            if name not in _BATCHES[self.split]:
                yield SourceError(f"cannot be read: {item.place!r} is no row of {self.split}")
                continue
            if batch is None or name != loaded:
                loaded, batch = name, _load_batch(root / name)
            yield batch.images[int(row)].reshape(_SHAPE).transpose(1, 2, 0)

    def _parts(self, root: Path) -> list[Path] | None:
        """Parquet files of the split, or None where the Python archive lies at ``root``."""
        if root.is_dir() and (root / _BATCHES[self.split][0]).is_file():
            return None
        return list_parts(root, f"{self.split}-*.parquet")

    def _locate(self) -> Path:
        """The folder or file with the split, downloaded where that is asked for."""
        if self.path is None:
            for name in ("cifar10", ARCHIVE_FOLDER):
                try:
                    return _inner(resolve(name, None, os.environ))
                except DatasetNotFound:
                    continue
            kept = data_folder(os.environ) / ARCHIVE_FOLDER
            if kept.is_dir():
                return kept
            target = data_folder(os.environ)
        else:
            found = _inner(self.path)
            if found.is_file() or self._holds(found):
                return found
            target = found
        if not self.download:
            raise DatasetNotFound(
                f"expected CIFAR-10 ({self.split}-*.parquet or {ARCHIVE_FOLDER}) at "
                f"{self.path or 'cifar10 in any data folder'}, got nothing; "
                "state a path, or download: true"
            )
        return download_archive(ARCHIVE_URL, ARCHIVE_MD5, target, ARCHIVE_FOLDER)

    def _holds(self, folder: Path) -> bool:
        batch = folder / _BATCHES[self.split][0]
        return batch.is_file() or any(folder.glob(f"{self.split}-*.parquet"))


@dataclass(frozen=True)
class _Batch:
    images: NDArray[np.uint8]
    labels: list[int]
    names: list[str]


def _inner(path: Path) -> Path:
    inside = path / ARCHIVE_FOLDER
    return inside if inside.is_dir() else path


def _root_of(path: Path) -> Path:
    return path.parent if path.is_file() else path


def _load_batch(path: Path) -> _Batch:
    content: Any = load_arrays(path)
    if not isinstance(content, dict):
        raise SourceError(f"{path}: expected a dict, got {type(content).__name__}")
    images, labels = content.get("data"), content.get("labels")
    if (
        not isinstance(images, np.ndarray)
        or images.dtype != np.uint8
        or images.ndim != 2
        or images.shape[1] != _BYTES
        or not isinstance(labels, list)
        or len(labels) != len(images)
    ):
        raise SourceError(f"{path}: expected data (n, {_BYTES}) of uint8 and n labels")
    if not all(isinstance(label, int) and 0 <= label < len(CLASSES) for label in labels):
        raise SourceError(f"{path}: expected labels from 0 to {len(CLASSES) - 1}")
    names = [str(name) for name in content.get("filenames") or []]
    return _Batch(images, labels, names)
