"""Pairs of embeddings of faces: how similar they are, and whom they show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]
Places = NDArray[np.int64]

MOST_PAIRS = 16_000_000
"""Impostor pairs that are kept, and likewise genuine ones: all pairs of 4,000 images."""
_ROWS = 512


def similarities(a: ArrayLike, b: ArrayLike) -> Floats:
    """Similarity (cos + 1) / 2 of embeddings, every one of ``a`` with every one of ``b``.

    Args:
        a: embeddings (n, d), of any length; one of length zero is half similar to everything.
        b: embeddings (m, d).

    Returns:
        float32 (n, m) in [0, 1].

    Raises:
        ValueError: embeddings of different width, or numbers that are not finite.
    """
    one, other = _normalised("a", a), _normalised("b", b)
    if one.shape[1] != other.shape[1]:
        raise ValueError(f"b: expected (m, {one.shape[1]}), got {other.shape}")
    return _similar(one @ other.T)


def paired_similarities(a: ArrayLike, b: ArrayLike) -> Floats:
    """Similarity (cos + 1) / 2 of the i-th embedding of ``a`` with the i-th of ``b``.

    Args:
        a: embeddings (n, d).
        b: embeddings (n, d).

    Returns:
        float32 (n,) in [0, 1].

    Raises:
        ValueError: different shapes, or numbers that are not finite.
    """
    one, other = _normalised("a", a), _normalised("b", b)
    if one.shape != other.shape:
        raise ValueError(f"b: expected {one.shape}, got {other.shape}")
    return _similar(np.einsum("nd,nd->n", one, other))


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of images: how similar they are, and whom they show.

    Args:
        similarity: (k,) in [0, 1].
        same: (k,) whether both show one person.
        first: (k,) person of the probe.
        second: (k,) person of the enrolled image.

    Raises:
        ValueError: columns of different lengths, or similarities that are NaN.
    """

    similarity: Floats
    same: NDArray[np.bool_]
    first: Places
    second: Places

    def __post_init__(self) -> None:
        for name, kind in (
            ("similarity", np.float32),
            ("same", np.bool_),
            ("first", np.int64),
            ("second", np.int64),
        ):
            column = np.asarray(getattr(self, name), dtype=kind)
            object.__setattr__(self, name, column)
            if column.shape != (len(self.similarity),):
                raise ValueError(f"{name}: expected ({len(self.similarity)},), got {column.shape}")
        if np.isnan(self.similarity).any():
            raise ValueError("similarity: expected numbers, got NaN")

    @classmethod
    def across(
        cls,
        probes: ArrayLike,
        enrolled: ArrayLike,
        people: ArrayLike,
        *,
        self_pairs: bool = False,
        most: int = MOST_PAIRS,
    ) -> Pairs:
        """All pairs (probe i, enrolled j) of one set of images.

        (i, j) and (j, i) are two pairs: the probe may be purified and the enrolled image not.

        Args:
            probes: embeddings (n, d).
            enrolled: embeddings (n, d) of the same images.
            people: ints (n,), whom each image shows.
            self_pairs: whether pairs i = j count, as in published figures; they flatter FRR.
            most: impostor pairs to keep, and likewise genuine ones. Of more, each is kept or not
                by a fixed key of its own, so that about this many stay; rates are unbiased, and
                no more than these and 512 rows are in memory at a time.

        Raises:
            ValueError: arrays that do not belong together, or numbers that are not finite.
        """
        return cls._formed(probes, enrolled, people, most, lambda i, j: (i != j) | self_pairs)

    @classmethod
    def genuine_across(
        cls,
        probes: ArrayLike,
        enrolled: ArrayLike,
        people: ArrayLike,
        *,
        self_pairs: bool = False,
        most: int = MOST_PAIRS,
    ) -> Pairs:
        """The pairs of :meth:`across` that show one person: all that FRR asks for.

        Args:
            probes: embeddings (n, d).
            enrolled: embeddings (n, d) of the same images.
            people: ints (n,), whom each image shows.
            self_pairs: whether pairs i = j count.
            most: as for :meth:`across`.

        Raises:
            ValueError: as for :meth:`across`.
        """
        labels = np.asarray(people, dtype=np.int64)
        return cls._formed(
            probes,
            enrolled,
            people,
            most,
            lambda i, j: ((i != j) | self_pairs) & (labels[i] == labels[j]),
        )

    @classmethod
    def among(cls, embeddings: ArrayLike, people: ArrayLike, *, most: int = MOST_PAIRS) -> Pairs:
        """All pairs of two images of one set, each once.

        Args:
            embeddings: (n, d).
            people: ints (n,), whom each image shows.
            most: as for :meth:`across`.

        Raises:
            ValueError: as for :meth:`across`.
        """
        return cls._formed(embeddings, embeddings, people, most, lambda i, j: i < j)

    @classmethod
    def _formed(
        cls,
        probes: ArrayLike,
        enrolled: ArrayLike,
        people: ArrayLike,
        most: int,
        counts: Callable[[Places, Places], NDArray[np.bool_]],
    ) -> Pairs:
        one, other = _normalised("probes", probes), _normalised("enrolled", enrolled)
        labels = np.asarray(people, dtype=np.int64)
        if one.shape != other.shape:
            raise ValueError(f"enrolled: expected {one.shape}, got {other.shape}")
        if labels.shape != (len(one),):
            raise ValueError(f"people: expected ({len(one)},), got {labels.shape}")
        images = np.bincount(np.unique(labels, return_inverse=True)[1])
        genuine = int((images**2).sum())
        share = {True: most / max(genuine, 1), False: most / max(len(one) ** 2 - genuine, 1)}
        parts = [
            _block(one, other, labels, start, counts, share) for start in range(0, len(one), _ROWS)
        ]
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        if not columns:
            return cls(*(np.empty(0, kind) for kind in (np.float32, bool, np.int64, np.int64)))
        similarity, i, j = columns
        return cls(similarity, labels[i] == labels[j], labels[i], labels[j])

    @property
    def genuine(self) -> Floats:
        """Similarities of pairs that show one person."""
        return self.similarity[self.same]

    @property
    def impostor(self) -> Floats:
        """Similarities of pairs that show two people."""
        return self.similarity[~self.same]

    @cached_property
    def levels(self) -> tuple[Floats, Places]:
        """The similarities that occur, ascending, and the place of each pair among them."""
        found, places = np.unique(self.similarity, return_inverse=True)
        return found, places.astype(np.int64).reshape(-1)

    def thinned(self, most: int) -> Pairs:
        """At most so many genuine and so many impostor pairs, at random, always the same."""
        kept = []
        for mask in (self.same, ~self.same):
            places = np.flatnonzero(mask)
            if len(places) > most:
                order = np.argpartition(_keys(places.astype(np.uint64)), most)[:most]
                places = np.sort(places[order])
            kept.append(places)
        if sum(map(len, kept)) == len(self.similarity):
            return self
        chosen = np.sort(np.concatenate(kept))
        return Pairs(
            self.similarity[chosen], self.same[chosen], self.first[chosen], self.second[chosen]
        )


def _block(
    probes: Floats,
    enrolled: Floats,
    labels: Places,
    start: int,
    counts: Callable[[Places, Places], NDArray[np.bool_]],
    share: dict[bool, float],
) -> tuple[Floats, Places, Places]:
    """Similarity, probe and enrolled image of the pairs of some probes that are kept."""
    rows = np.arange(start, min(start + _ROWS, len(probes)))
    found = _similar(probes[rows] @ enrolled.T)
    columns = np.arange(len(enrolled))
    kept = counts(rows[:, None], columns)
    same = labels[rows, None] == labels
    if min(share.values()) < 1:
        key = _keys((rows[:, None] * len(enrolled) + columns).astype(np.uint64))
        uniform = (key >> np.uint64(11)).astype(np.float64) * 2.0**-53
        kept &= uniform < np.where(same, share[True], share[False])
    i, j = np.nonzero(kept)
    return found[kept], rows[i], columns[j]


def _keys(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64 of each word: as good as random, and always the same."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _normalised(name: str, embeddings: ArrayLike) -> Floats:
    array = np.asarray(embeddings, dtype=np.float32)
    if array.ndim != 2:
        raise ValueError(f"{name}: expected (n, d), got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinite ones")
    length = np.linalg.norm(array.astype(np.float64), axis=1, keepdims=True)
    scaled: Floats = (array / np.where(length > 0, length, 1)).astype(np.float32)
    return scaled


def _similar(cosines: Floats) -> Floats:
    similar: Floats = np.clip((cosines + np.float32(1)) / np.float32(2), 0, 1).astype(np.float32)
    return similar
