"""A folder of image files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from storage.errors import DatasetNotFound, SourceError
from storage.sources.headers import size_hint
from storage.sources.items import JSON, Content, Item, identity_of, require_choice, require_text
from storage.sources.listing import (
    CLASS_FOLDERS,
    ORDERS,
    ClassFolder,
    Labels,
    Numbering,
    Order,
    check_numbering,
    is_item,
    labels_from_csv,
    labels_from_folders,
    ordered,
)


@dataclass(frozen=True)
class Folder:
    """Image files in a folder; its sub-folders, sorted by name, are the classes.

    Items are all files at any depth except hidden files and known sidecars, named by their path
    relative to the folder. Files directly in the folder have no label. Links to folders are not
    followed.

    Args:
        path: the folder.
        split: a folder inside it, such as ``chest_xray/test``, that is taken instead.
        labels_csv: a CSV file, relative to the folder, with the columns ``file``, ``label`` and
            optionally ``name``; it replaces the labels by sub-folder.
        order: ``name`` (sorted by path) or ``hash`` (a fixed shuffle, so that the first N items
            are of all classes).
        class_folder: which folder of a path is its class: the first one (``top``), or the one that
            holds the file (``parent``), for sets such as ``train/CAT`` beside ``test/CAT``.
        labels: what numbers the classes: the ``folders``' own order, or their places among the
            thousand of ``imagenet``, whose numbers or names the folders then bear.
    """

    kind: ClassVar[str] = "folder"
    doc: ClassVar[str] = "image files in a folder, with class sub-folders or a labels file"

    path: Path
    split: str = ""
    labels_csv: str | None = None
    order: Order = "name"
    class_folder: ClassFolder = "top"
    labels: Numbering = "folders"

    def __post_init__(self) -> None:
        """Accept the path as text and check the options."""
        object.__setattr__(self, "path", Path(self.path))
        require_text("split", self.split)
        if self.labels_csv is not None:
            require_text("labels_csv", self.labels_csv, least=1)
        require_choice("order", self.order, ORDERS)
        require_choice("class_folder", self.class_folder, CLASS_FOLDERS)
        check_numbering(self.labels, self.labels_csv)

    @property
    def root(self) -> Path:
        """The folder whose sub-folders are the classes."""
        return self.path / self.split.strip("/")

    def identity(self) -> dict[str, JSON]:
        """Kind and options."""
        return identity_of(self, without=("labels",) if self.labels == "folders" else ())

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the sub-folders, those that the labels file states, or those of ImageNet."""
        return self._labels(self._names()).classes

    def items(self) -> Iterator[Item]:
        """List the files; the stamp is size and modification time.

        Raises:
            DatasetNotFound: where there is no such folder.
            SourceError: where the labels file cannot be used.
        """
        names = self._names()
        labels = self._labels(names)
        for name in ordered(names, self.order):
            path = self.root / name
            yield Item(name, labels.of(name), file_stamp(path), file_hint(path))

    def read(self, items: Sequence[Item]) -> Iterator[Content]:
        """Yield the bytes of the files.

        Raises:
            DatasetNotFound: where there is no such folder.
        """
        self._require()
        for item in items:
            yield read_file(self.root / item.name)

    def _require(self) -> None:
        if not self.root.is_dir():
            found = "a file" if self.root.exists() else "nothing"
            raise DatasetNotFound(f"expected a folder of images at {self.root}, got {found}")

    def _names(self) -> list[str]:
        self._require()
        names: list[str] = []
        for folder, folders, files in os.walk(self.root, onerror=_refuse):
            folders[:] = [name for name in folders if is_item(f"{name}/x")]
            relative = Path(folder).relative_to(self.root).as_posix()
            prefix = "" if relative == "." else f"{relative}/"
            names.extend(_text(f"{prefix}{name}") for name in files if is_item(name))
        return names

    def _labels(self, names: Sequence[str]) -> Labels:
        if self.labels_csv is None:
            return labels_from_folders(names, self.class_folder, self.labels)
        path = self.root / self.labels_csv
        try:
            data = path.read_bytes()
        except OSError as error:
            raise SourceError(f"expected a labels file at {path}: {error.strerror}") from error
        parent = PurePosixPath(self.labels_csv).parent.as_posix()
        return labels_from_csv(data, str(path), "" if parent == "." else parent)


def _refuse(error: OSError) -> None:
    """Stop at a sub-folder that cannot be listed: its images must not vanish silently."""
    raise SourceError(f"cannot list {error.filename}: {error.strerror}") from error


def _text(name: str) -> str:
    """A name that is not UTF-8 with its bytes escaped; such a file is then not found."""
    return name.encode("utf-8", "backslashreplace").decode()


def file_stamp(path: Path) -> str:
    """Size and modification time of a file, and whether it may be read; it is not opened."""
    try:
        status = path.stat()
    except OSError as error:
        return f"unreadable: {error.strerror}"
    readable = stat.S_ISREG(status.st_mode) and os.access(path, os.R_OK)
    return f"{status.st_size}-{status.st_mtime_ns}{'' if readable else ' unreadable'}"


def file_hint(path: Path) -> int:
    """Bytes of the decoded image by its header, or 0 where there is none to be read."""
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return 0
        with path.open("rb") as stream:
            return size_hint(stream)
    except OSError:
        return 0


def read_file(path: Path) -> bytes | SourceError:
    """Read a file, or say why this one cannot be read.

    Raises:
        OSError: where the fault may pass, such as an input/output error.
    """
    try:
        if path.exists() and not path.is_file():
            return SourceError("cannot be read: it is not a regular file")
        return path.read_bytes()
    except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
        return SourceError(f"cannot be read: {error.strerror}")
