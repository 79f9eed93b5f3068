"""What every dataset source offers: a catalogue of items and a stream of their contents."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from storage.errors import SourceError

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
Content: TypeAlias = "bytes | NDArray[Any] | SourceError"


class Item(NamedTuple):
    """One entry of a dataset, known without its pixels having been decoded.

    Args:
        name: unique within the dataset; a relative path with forward slashes where there is one.
        label: index of the class, or None where the dataset states none.
        stamp: changes when the item's content may have changed.
        size_hint: bytes of the decoded image (channels x height x width), as its header says;
            0 where that is not known.
        place: where inside a container the item lies, for sources whose names do not say it.
    """

    name: str
    label: int | None
    stamp: str
    size_hint: int
    place: str = ""


class Source(Protocol):
    """A dataset that is listed and read in a stream and never loaded whole.

    Sources are frozen dataclasses whose fields are the options of the dataset. Several threads
    may call every method at once.
    """

    doc: ClassVar[str]
    kind: ClassVar[str]

    def identity(self) -> dict[str, JSON]:
        """Kind and options: what makes this dataset this one, without its content."""
        ...

    def items(self) -> Iterator[Item]:
        """List the items in the source's stated order.

        Raises:
            DatasetNotFound: where nothing lies at the source's path.
            SourceError: where the container as a whole cannot be read.
        """
        ...

    def read(self, items: Sequence[Item]) -> Iterator[Content]:
        """Yield the content of each item, in the order given.

        Args:
            items: any of those that ``items`` lists.

        Yields:
            Encoded bytes, or a decoded array (h, w) or (h, w, c), or the error that keeps this
            one item from being read.

        Raises:
            DatasetNotFound: where nothing lies at the source's path.
            SourceError: where the container as a whole cannot be read.
        """
        ...

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes by label, or None where the dataset has no names."""
        ...


def identity_of(source: Any, *, without: tuple[str, ...] = ()) -> dict[str, JSON]:
    """Kind and options of a source as JSON values; paths as they were given."""
    options: dict[str, JSON] = {
        field.name: _json(getattr(source, field.name))
        for field in dataclasses.fields(source)
        if field.name not in without
    }
    return {"kind": source.kind, **options}


def _json(value: Any) -> JSON:
    if isinstance(value, PurePath):
        return value.as_posix()
    if isinstance(value, tuple):
        return [_json(part) for part in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"expected an option that JSON can hold, got {value!r}")


def require_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Check an option with fixed choices.

    Raises:
        ValueError: where ``value`` is none of them.
    """
    if value not in choices:
        raise ValueError(f"{name}: expected {' or '.join(choices)}, got {value!r}")


def require_count(name: str, value: int, *, least: int = 0) -> None:
    """Check an option that counts.

    Raises:
        ValueError: where ``value`` is not an integer of at least ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")


def require_text(name: str, value: object, *, least: int = 0) -> None:
    """Check an option that is text.

    Raises:
        ValueError: where ``value`` is no text of at least ``least`` characters.
    """
    if not isinstance(value, str) or len(value) < least:
        raise ValueError(f"{name}: expected {'some ' if least else ''}text, got {value!r}")
