"""Lists of face verification: which images, or which templates, are compared with each other."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.errors import SpecError
from tasks.tables import csv_rows, text_of

Whole = NDArray[np.int64]

SAME = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
"""How a file may say whether a pair shows one person."""
LISTED = 10
"""Names that a message lists."""


class Names:
    """Texts as numbers in the order in which they first came."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def number(self, text: str) -> int:
        """The number of a text, a new one if it is new."""
        return self._places.setdefault(text, len(self._places))

    def known(self, text: str) -> int:
        """The number of a text, -1 if it never came."""
        return self._places.get(text, -1)


@dataclass
class PairList:
    """What is compared with what.

    Args:
        path: the file.
        digest: of its bytes.
        names: images or templates, each once.
        first: (k,) number of the probe's name.
        second: (k,) number of the enrolled one's.
        same: (k,) whether they show one person; -1 where the file does not say.
        folds: (k,) fold of each pair, or None where the file names none.
        lines: (k,) line of the file.
    """

    path: Path
    digest: str
    names: Names = field(default_factory=Names)
    first: Whole = field(default_factory=lambda: np.empty(0, np.int64))
    second: Whole = field(default_factory=lambda: np.empty(0, np.int64))
    same: Whole = field(default_factory=lambda: np.empty(0, np.int64))
    folds: Whole | None = None
    lines: Whole = field(default_factory=lambda: np.empty(0, np.int64))

    def where(self, place: int) -> str:
        """The file and line of a pair."""
        return f"{self.path} line {self.lines[place]}"


@dataclass
class TemplateList:
    """Which images make up which templates.

    Args:
        names: image of each row.
        template, media, people: number of each row's template, medium and person.
        templates: names of the templates, by number.
        digest: of the files' bytes.
    """

    names: list[str]
    template: Whole
    media: Whole
    people: Whole
    templates: Names
    digest: str


def read_pairs(path: Path, protocol: str) -> PairList:
    """Read the pairs of a protocol.

    Args:
        path: a CSV file whose first line names the columns ``name_a``, ``name_b``, ``same`` and,
            if there, ``fold`` (of ``ijb``: ``template_a``, ``template_b`` and, if there,
            ``same``), or for ``lfw`` the classic ``pairs.txt``.
        protocol: ``pairs``, ``lfw`` or ``ijb``.

    Raises:
        SpecError: naming the line and what was expected.
    """
    data = _read(path)
    made = PairList(path, hashlib.sha256(data).hexdigest())
    if path.suffix == ".txt":
        if protocol != "lfw":
            raise SpecError(f"{path}: expected a CSV file for protocol {protocol}, got {path.name}")
        rows = _classic(text_of(path, data).splitlines(), path)
    elif protocol == "ijb":
        rows = csv_rows(path, data, ("template_a", "template_b"), ("same",))
    else:
        rows = csv_rows(path, data, ("name_a", "name_b", "same"), ("fold",))
    columns = [array("q") for _ in range(5)]
    for line, row in rows:
        where = f"{path} line {line}"
        one, other = list(row.values())[:2]
        values = (
            made.names.number(one),
            made.names.number(other),
            _same(row["same"], where) if "same" in row else -1,
            _whole(row["fold"], where) if "fold" in row else -1,
            line,
        )
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    if not columns[0]:
        raise SpecError(f"{path}: expected pairs, got none")
    made.first, made.second, made.same, folds, made.lines = (
        np.frombuffer(column, dtype=np.int64) for column in columns
    )
    made.folds = folds if (folds >= 0).all() else None
    return made


def read_templates(paths: Sequence[Path]) -> TemplateList:
    """Read the templates of one or several CSV files.

    The first line of each names the columns ``name``, ``template``, ``media`` and ``person``.

    Raises:
        SpecError: naming the line and what was expected.
    """
    numbers = [Names() for _ in range(3)]
    columns = [array("q") for _ in range(3)]
    names: list[str] = []
    digest = hashlib.sha256()
    owners: dict[int, int] = {}
    for path in paths:
        data = _read(path)
        digest.update(hashlib.sha256(data).digest())
        for line, row in csv_rows(path, data, ("name", "template", "media", "person"), ()):
            name, *rest = row.values()
            names.append(name)
            values = [known.number(text) for known, text in zip(numbers, rest, strict=True)]
            if owners.setdefault(values[0], values[2]) != values[2]:
                raise SpecError(
                    f"{path} line {line}: person: expected one person a template, got "
                    f"{row['person']!r} as well in template {row['template']!r}"
                )
            for column, value in zip(columns, values, strict=True):
                column.append(value)
    if not names:
        listed = ", ".join(map(str, paths)) or "no file"
        raise SpecError(f"--templates: expected the templates of the pairs, got none in {listed}")
    template, media, people = (np.frombuffer(column, dtype=np.int64) for column in columns)
    return TemplateList(names, template, media, people, numbers[0], digest.hexdigest())


def find_names(wanted: Iterable[str], there: Sequence[str], source: str) -> Whole:
    """Where images are in a dataset.

    A name is that of the dataset, or the end of it from a folder on, with or without its ending:
    ``s1/2`` finds ``att_faces/s1/2.pgm``.

    Args:
        wanted: names as a list has them, each once.
        there: names of the dataset's images.
        source: the file, for messages.

    Returns:
        int64, place of each wanted name among those of the dataset.

    Raises:
        SpecError: listing the names that are not there, or that mean several images.
    """
    written = list(wanted)
    places = name_places(written, there)
    for code, fault in ((-1, "that are not in the dataset"), (-2, "that mean several images")):
        refuse(
            [name for name, place in zip(written, places, strict=True) if place == code],
            f"{source}: {{}} of {len(places)} names {fault}",
        )
    return np.array(places, dtype=np.int64)


def name_places(written: Sequence[str], there: Sequence[str]) -> list[int]:
    """Where images are in a dataset, by the rules of :func:`find_names`.

    Returns:
        Place of each name among those of the dataset, -1 where it is not there, -2 where it means
        several images.
    """
    keys = [name.replace("\\", "/").removeprefix("./") for name in written]
    exact: dict[str, int] = {}
    ends = dict.fromkeys(keys, -1)
    for place, name in enumerate(there):
        exact[name] = place
        parts = name.split("/")
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            for key in dict.fromkeys((end, _stem(end))):
                if key in ends:
                    ends[key] = place if ends[key] == -1 else -2
    return [exact.get(key, ends[key]) for key in keys]


def refuse(wrong: Sequence[str], fault: str) -> None:
    """Refuse a list because of some names, if there are any.

    Args:
        wrong: the names.
        fault: what is wrong with them, with ``{}`` for their number.

    Raises:
        SpecError: listing them.
    """
    if wrong:
        more = f" and {len(wrong) - LISTED} more" if len(wrong) > LISTED else ""
        raise SpecError(f"{fault.format(len(wrong))}: {', '.join(wrong[:LISTED])}{more}")


def _stem(name: str) -> str:
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.rsplit('.', 1)[0]}" if folder else file.rsplit(".", 1)[0]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SpecError(
            f"expected a file of pairs or templates at {path}: {error.strerror}"
        ) from None


def _classic(lines: Sequence[str], path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The pairs of LFW's own file: sets of as many genuine pairs as impostor pairs."""
    head = lines[0].split() if lines else []
    if not head or len(head) > 2 or not all(part.isdecimal() for part in head):
        got = lines[0] if lines else "nothing"
        raise SpecError(
            f"{path} line 1: expected the number of folds and of pairs, as in '10 300', got {got!r}"
        )
    each = 2 * int(head[-1])
    count = 0
    for line, text in enumerate(lines[1:], start=2):
        parts = text.split()
        if not parts:
            continue
        where = f"{path} line {line}"
        if len(parts) not in (3, 4):
            raise SpecError(
                f"{where}: expected 'name 1 2' or 'name 1 other 2', got {text.strip()!r}"
            )
        same = len(parts) == 3
        name, one, other, two = (parts[0], parts[1], parts[0], parts[2]) if same else parts
        yield (
            line,
            {
                "name_a": _numbered(name, one, where),
                "name_b": _numbered(other, two, where),
                "same": "1" if same else "0",
                **({"fold": str(count // max(each, 1))} if len(head) == 2 else {}),
            },
        )
        count += 1
    expected = each * (int(head[0]) if len(head) == 2 else 1)
    if count != expected:
        raise SpecError(f"{path}: expected {expected} pairs, as line 1 says, got {count}")


def _numbered(name: str, number: str, where: str) -> str:
    return f"{name}/{name}_{_whole(number, where):04d}"


def _same(text: str, where: str) -> int:
    found = SAME.get(text.lower())
    if found is None:
        raise SpecError(f"{where}: same: expected 0 or 1, got {text!r}")
    return int(found)


def _whole(text: str, where: str) -> int:
    if not text.isdecimal():
        raise SpecError(f"{where}: expected a whole number, got {text!r}")
    return int(text)
