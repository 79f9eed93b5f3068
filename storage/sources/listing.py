"""Rules that folders and zips share: what counts as an image, what its label is, in which order."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from storage import imagenet
from storage.errors import SourceError
from storage.sources.items import require_choice

Order = Literal["name", "hash"]
ORDERS = ("name", "hash")
ClassFolder = Literal["top", "parent"]
CLASS_FOLDERS = ("top", "parent")
Numbering = Literal["folders", "imagenet"]
NUMBERINGS = ("folders", "imagenet")

SIDECARS = frozenset({".txt", ".csv", ".tsv", ".json", ".jsonl", ".md", ".xml", ".yaml", ".yml"})
SIDECAR_NAMES = frozenset({"thumbs.db", "desktop.ini", "license", "readme"})
IGNORED_FOLDERS = frozenset({"__MACOSX"})
MOST_CLASSES = 1_000_000


def is_item(name: str) -> bool:
    """Whether a relative path names an item; hidden files and known sidecars are none.

    Every other file is an item, so that a file that is no image is rejected with a reason
    instead of vanishing.
    """
    parts = name.split("/")
    if any(part.startswith(".") or part in IGNORED_FOLDERS for part in parts):
        return False
    last = parts[-1].lower()
    return last not in SIDECAR_NAMES and PurePosixPath(last).suffix not in SIDECARS


def ordered(names: Iterable[str], order: Order) -> list[str]:
    """Sort names by code point, or by the SHA-256 of each: a shuffle that never changes."""
    if order == "name":
        return sorted(names)
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())


@dataclass(frozen=True)
class Labels:
    """Labels of a dataset by relative path.

    Args:
        classes: names by label, or None.
        by_name: labels from a labels file by relative path; None where a folder is the class.
        class_folder: which folder of the path is the class: the first (``top``) or the one that
            holds the file (``parent``).
        by_folder: labels by name of the class's folder; None where a folder's place among the
            classes is its label.
    """

    classes: tuple[str, ...] | None
    by_name: dict[str, int] | None = None
    class_folder: ClassFolder = "top"
    by_folder: dict[str, int] | None = None
    _index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index the classes."""
        index = {name: label for label, name in enumerate(self.classes or ())}
        object.__setattr__(self, "_index", index if self.by_folder is None else self.by_folder)

    def of(self, name: str) -> int | None:
        """Label of the item with this relative path, or None."""
        if self.by_name is not None:
            return self.by_name.get(name)
        folder = class_of(name, self.class_folder)
        return None if folder is None else self._index[folder]


def class_of(name: str, class_folder: ClassFolder) -> str | None:
    """Folder of a relative path that names its class; None for a file in no folder."""
    folders = name.split("/")[:-1]
    if not folders:
        return None
    return folders[0] if class_folder == "top" else folders[-1]


def labels_from_folders(
    names: Iterable[str],
    class_folder: ClassFolder = "top",
    numbering: Numbering = "folders",
) -> Labels:
    """Take one folder of each path as its class.

    Args:
        names: relative paths of all items.
        class_folder: which folder of a path it is.
        numbering: labels are the places of the ``folders``, sorted by name, or the indices of
            ``imagenet``'s thousand classes, which the folders are then named by.

    Raises:
        SourceError: a folder that is no class of ImageNet where it should be.
    """
    folders = {folder for name in names if (folder := class_of(name, class_folder)) is not None}
    if numbering == "imagenet":
        by_folder = imagenet.label_mapping(folders)
        return Labels(imagenet.class_names(), class_folder=class_folder, by_folder=by_folder)
    return Labels(tuple(sorted(folders)) or None, class_folder=class_folder)


def check_numbering(labels: str, labels_csv: str | None) -> None:
    """Check what numbers the classes.

    Raises:
        ValueError: another word, or a labels file, which numbers them itself, beside it.
    """
    require_choice("labels", labels, NUMBERINGS)
    if labels != "folders" and labels_csv is not None:
        raise ValueError(f"labels: expected folders beside labels_csv, got {labels!r}")


def labels_from_csv(data: bytes, where: str, folder: str) -> Labels:
    """Read a labels file with the columns ``file``, ``label`` and, if there, ``name``.

    Args:
        data: the file, UTF-8, its first line naming the columns.
        where: what to call the file in messages.
        folder: folder of the labels file relative to the dataset, "" for the dataset itself;
            paths in it are relative to that folder.

    Raises:
        SourceError: where a column is missing or a label is not an integer of 0 or more.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{where}: expected UTF-8 text, got {error.reason}") from error
    try:
        return _labels(csv.DictReader(io.StringIO(text, newline="")), where, folder)
    except csv.Error as error:
        raise SourceError(f"{where}: expected a CSV file: {error}") from error


def _labels(reader: csv.DictReader[str], where: str, folder: str) -> Labels:
    columns = reader.fieldnames or []
    if "file" not in columns or "label" not in columns:
        raise SourceError(f"{where}: expected the columns file and label, got {list(columns)}")
    by_name: dict[str, int] = {}
    names: dict[int, str] = {}
    for row in reader:
        file, stated = (row["file"] or "").strip(), (row["label"] or "").strip()
        if not stated.isascii() or not stated.isdigit() or int(stated) >= MOST_CLASSES:
            raise SourceError(
                f"{where}, line {reader.line_num}: expected a label from 0 to "
                f"{MOST_CLASSES - 1:,}, got {stated!r}"
            )
        label = int(stated)
        path = PurePosixPath(folder, file.replace("\\", "/")).as_posix()
        if by_name.setdefault(path, label) != label:
            raise SourceError(f"{where}, line {reader.line_num}: {file} has two labels")
        if name := (row.get("name") or "").strip():
            names[label] = name
    if not names:
        return Labels(None, by_name)
    return Labels(tuple(names.get(i, str(i)) for i in range(max(by_name.values()) + 1)), by_name)
