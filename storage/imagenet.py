"""The thousand classes of ImageNet: WordNet number, index and name of each, and folders of them.

A classifier with 1000 outputs numbers its classes by the sorted WordNet numbers ("wnids") of
all thousand. A set that holds some of them in folders, such as Imagenette with ten, has to be
numbered the same way: the places of its own folders, 0 to 9, are other classes, and only tench is
0 in both.

Source: O. Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", 2015,
doi 10.1007/s11263-015-0816-y, for the classes of 2012 and their order; names as torchvision's
weights state them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib import resources

from storage.errors import SourceError

CLASS_COUNT = 1000

AMBIGUOUS = frozenset({"cardigan", "crane", "maillot"})
"""Names that lists of the classes give to two of them: a dog and a garment, a bird and a machine,
a bathing suit twice."""

_WNID = re.compile(r"(n\d{8})(?:[ _-]+(.+))?")


@cache
def classes() -> tuple[tuple[str, str], ...]:
    """WordNet number and name of each class, in the order of the indices."""
    text = resources.files("storage").joinpath("imagenet_classes.tsv").read_text("utf-8")
    found = tuple(_pair(line) for line in text.splitlines())
    if len(found) != CLASS_COUNT:
        raise SourceError(f"expected {CLASS_COUNT} classes of ImageNet, got {len(found)}")
    return found


def _pair(line: str) -> tuple[str, str]:
    wnid, _, name = line.partition("\t")
    return wnid, name


def class_names() -> tuple[str, ...]:
    """Names of all classes by index."""
    return tuple(name for _, name in classes())


def class_name(index: int) -> str:
    """Name of a class, such as ``tench`` of 0.

    Raises:
        ValueError: an index that is not from 0 to 999.
    """
    return classes()[_checked(index)][1]


def class_wnid(index: int) -> str:
    """WordNet number of a class, such as ``n01440764`` of 0.

    Raises:
        ValueError: an index that is not from 0 to 999.
    """
    return classes()[_checked(index)][0]


def wnid_index(wnid: str) -> int:
    """Index of the class with a WordNet number.

    Raises:
        ValueError: text that is none of the thousand.
    """
    index = _by_wnid().get(wnid)
    if index is None:
        raise ValueError(f"wnid: expected one of ImageNet's, such as n01440764, got {wnid!r}")
    return index


def label_mapping(folder_names: Iterable[str]) -> dict[str, int]:
    """Index of the class that each folder stands for.

    A folder is called by the WordNet number (``n01440764``), by number and name
    (``n01440764_tench``), or by the name (``golf_ball``; case, spaces, hyphens, underscores and
    apostrophes do not matter).

    Args:
        folder_names: names of folders, any of the thousand, in any order.

    Returns:
        An index from 0 to 999 by folder name.

    Raises:
        SourceError: naming every folder that is none of the classes, or may be two of them.
    """
    found: dict[str, int] = {}
    unknown: list[str] = []
    for folder in sorted(set(folder_names)):
        index = _index_of(folder)
        if index is None:
            unknown.append(folder)
        else:
            found[folder] = index
    if unknown:
        more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
        raise SourceError(
            "expected folders named by classes of ImageNet, such as n01440764 or tench, got "
            f"{', '.join(map(repr, unknown[:10]))}{more}"
        )
    return found


def _index_of(folder: str) -> int | None:
    matched = _WNID.fullmatch(folder)
    if matched is None:
        name = _plain(folder)
        return None if name in AMBIGUOUS else _by_name().get(name)
    index = _by_wnid().get(matched[1])
    if index is None or matched[2] is None:
        return index
    # lists of names differ in a few words, so that only a name of another class is refused
    meant = _by_name().get(_plain(matched[2]), index)
    return index if meant == index or _plain(matched[2]) in AMBIGUOUS else None


def _checked(index: int) -> int:
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < CLASS_COUNT:
        raise ValueError(f"index: expected 0 to {CLASS_COUNT - 1}, got {index!r}")
    return index


def _plain(name: str) -> str:
    """A name in small letters, its words set apart by single spaces."""
    return " ".join(re.sub(r"[\s_-]+", " ", name.replace("'", "")).casefold().split())


@cache
def _by_wnid() -> dict[str, int]:
    return {wnid: index for index, (wnid, _) in enumerate(classes())}


@cache
def _by_name() -> dict[str, int]:
    return {_plain(name): index for index, (_, name) in enumerate(classes())}
