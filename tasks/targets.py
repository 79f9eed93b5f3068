"""Which picture an attacker hides in which image, independent of chunks, workers and order.

Every image ranks all pictures of a pool by a hash of the run's seed and both names, and takes the
first that can be used. A picture that comes to the pool changes the choice of few images only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from storage.errors import SourceError
from storage.images import Pixels
from storage.ledger import digest_of
from storage.sources import Item
from tasks.datasets import Dataset

DEPTH = 4
"""Pictures in an image's ranking that are tried until one can be used."""
LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in grey, as ITU-R BT.601 has them."""


class TargetPool:
    """The pictures that may be hidden, and the choice among them.

    Args:
        images: the dataset that is attacked.
        pool: the dataset of pictures; the same one to hide its images in each other.
        seed: seed of the run.
        other_class: choose among pictures with another label only.
        identity: regular expression whose group in a name stands for the label; none: labels are
            those of the dataset.
        in_order: each image gets the picture at its own place, and no other.
    """

    def __init__(
        self,
        images: Dataset,
        pool: Dataset,
        seed: int,
        *,
        other_class: bool,
        identity: str | None = None,
        in_order: bool = False,
    ) -> None:
        self._identity, self.in_order = identity, in_order
        self.images = images
        self.pool = pool
        self.seed = seed
        self.other_class = other_class
        self._digests: dict[int, str] = {}

    def identity(self) -> dict[str, Any]:
        """What the choice depends on besides the names of pictures and images."""
        more: dict[str, Any] = {} if self._identity is None else {"identity": self._identity}
        more |= {"in_order": True} if self.in_order else {}
        return {"pool": self.pool.identity()["source"], "other_class": self.other_class, **more}

    @cached_property
    def _items(self) -> list[Item]:
        return [item for chunk in self.pool.chunks for item in chunk.items]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {item.name: place for place, item in enumerate(self._items)}

    @cached_property
    def _keys(self) -> NDArray[np.uint64]:
        return np.array([_hash(item.name) for item in self._items], dtype=np.uint64)

    @cached_property
    def _labels(self) -> NDArray[np.int64]:
        return np.array([self._class_of(item) for item in self._items], dtype=np.int64)

    def _class_of(self, item: Item) -> int:
        """The label of a picture, or a number that stands for its person; -1 for none."""
        if self._identity is None:
            return -1 if item.label is None else item.label
        person = person_in(self._identity, item.name)
        return -1 if person is None else _hash(person) >> 1

    @cached_property
    def _order(self) -> dict[str, int]:
        """The place of each image of the dataset that is attacked."""
        items = (item for chunk in self.images.chunks for item in chunk.items)
        return {item.name: place for place, item in enumerate(items)}

    def candidates(self, item: Item) -> list[Item]:
        """The first pictures in the ranking of an image, the best one first.

        Raises:
            SourceError: where the pool has no picture for it.
        """
        if self.in_order:
            place = self._order[item.name]
            if place >= len(self._items):
                raise SourceError(
                    f"{item.name}: expected as many pictures as images, there are "
                    f"{len(self._items)} of {len(self._order)}"
                )
            return [self._items[place]]
        order = _mix(self._keys ^ np.uint64(_hash(f"{self.seed} target {item.name}")))
        allowed = np.ones(len(order), dtype=bool)
        if self.pool is self.images:
            allowed[self._places[item.name]] = False
        if self.other_class:
            own = self._class_of(item)
            if own < 0:
                raise SourceError(f"{item.name}: expected a label to choose another class by")
            allowed &= (self._labels != own) & (self._labels >= 0)
        places = np.flatnonzero(allowed)
        if not len(places):
            raise SourceError(f"{item.name}: expected a picture to hide, the pool has none for it")
        if len(places) > DEPTH:
            places = places[np.argpartition(order[places], DEPTH - 1)[:DEPTH]]
        first = places[np.argsort(order[places])]
        return [self._items[place] for place in first]

    def digest(self, index: int) -> str:
        """Digest of the choices for the images of a chunk, with the stamps of the pictures."""
        if index not in self._digests:
            chosen = []
            for item in self.images.items(index):
                ranked = self.candidates(item)
                chosen.append([item.name, [[other.name, other.stamp] for other in ranked]])
            self._digests[index] = digest_of(chosen)
        return self._digests[index]

    def read(self, index: int, names: Sequence[str]) -> tuple[list[Pixels], pa.Table]:
        """The pictures for the usable images of a chunk, at their own size.

        Args:
            index: number of the chunk.
            names: names of its usable images, in order.

        Returns:
            uint8 (c, h, w) for each image, and rows: name and label of the picture.

        Raises:
            SourceError: where none of an image's first choices can be used.
        """
        wanted = set(names)
        ranked = [self.candidates(i) for i in self.images.items(index) if i.name in wanted]
        found: list[tuple[Pixels, Item] | None] = [None] * len(ranked)
        for depth in range(DEPTH):
            left = [i for i, one in enumerate(found) if one is None and depth < len(ranked[i])]
            unique = {ranked[i][depth].name: ranked[i][depth] for i in left}
            usable = self._decode(list(unique.values()))
            for i in left:
                item = ranked[i][depth]
                if item.name in usable:
                    found[i] = (usable[item.name], item)
        for name, one in zip(names, found, strict=True):
            if one is None:
                raise SourceError(f"{name}: expected a usable picture to hide, found none")
        chosen = [one for one in found if one is not None]
        labels = [item.label for _, item in chosen]
        rows = pa.table(
            {
                "target_name": pa.array([item.name for _, item in chosen], pa.string()),
                "target_label": pa.array(labels, pa.int64()),
            }
        )
        return [pixels for pixels, _ in chosen], rows

    def _decode(self, items: list[Item]) -> dict[str, Pixels]:
        if not items:
            return {}
        result = self.images.ingest(items, self.pool.source)
        return dict(zip(result.rows["name"].to_pylist(), result.images, strict=True))


def is_apart(pool: TargetPool | None, images: Dataset) -> bool:
    """Whether pictures come from another data set than the images."""
    return pool is not None and pool.pool is not images


def person_in(pattern: str, name: str) -> str | None:
    """Who is on an image, from its name: what the group of a regular expression finds."""
    found = re.search(pattern, name)
    return None if found is None else found[1]


def like(picture: Pixels, channels: int) -> Pixels:
    """A picture (c, h, w) with the wanted number of channels: grey repeated, or luma of colour."""
    if picture.shape[0] == channels:
        return picture
    if picture.shape[0] == 3:
        grey = np.tensordot(LUMA, picture, axes=1).round()
        picture = grey.clip(0, 255).astype(np.uint8)[None]
    return np.repeat(picture[:1], channels, axis=0)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64: a bijection that scrambles all bits."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
