"""Rules that folders and zips share: what counts as an image, what its label is, in which order."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from storage.errors import SourceError

Order = Literal["name", "hash"]
ORDERS = ("name", "hash")

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
        by_name: labels from a labels file by relative path; None where the first sub-folder of
            the path is the class.
    """

    classes: tuple[str, ...] | None
    by_name: dict[str, int] | None = None
    _index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index the classes."""
        index = {name: label for label, name in enumerate(self.classes or ())}
        object.__setattr__(self, "_index", index)

    def of(self, name: str) -> int | None:
        """Label of the item with this relative path, or None."""
        if self.by_name is not None:
            return self.by_name.get(name)
        folder, slash, _ = name.partition("/")
        return self._index[folder] if slash else None


def labels_from_folders(names: Iterable[str]) -> Labels:
    """Take the first folder of each path, sorted by name, as the classes."""
    folders = {name.partition("/")[0] for name in names if "/" in name}
    return Labels(tuple(sorted(folders)) or None)


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
