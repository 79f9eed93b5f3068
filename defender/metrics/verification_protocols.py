"""Published protocols of face verification: ten folds (LFW) and templates (IJB)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from defender.metrics.pairs import Floats, Pairs, Places, paired_similarities

DISTANCES: NDArray[np.float64] = np.arange(400) / 100
"""Thresholds of the ten-fold protocol: squared distances of embeddings of length one."""

_PAIRS_AT_ONCE = 65_536


@dataclass(frozen=True)
class FoldAccuracy:
    """What the ten-fold protocol came to.

    Args:
        mean: mean accuracy of the folds.
        std: their standard deviation (of these folds, not estimated for others), as published.
        accuracies: accuracy of each fold.
        thresholds: similarity (cos + 1) / 2 that each fold was judged by, found on the others.
        pairs: pairs of each fold.
    """

    mean: float
    std: float
    accuracies: tuple[float, ...]
    thresholds: tuple[float, ...]
    pairs: tuple[int, ...]


def folds_in_order(count: int, folds: int = 10) -> Places:
    """The fold of each pair of a list that names none: as many parts of equal length, in order.

    Args:
        count: pairs.
        folds: parts; where they cannot be equal, the first ones have a pair more.

    Returns:
        int64 (count,), 0 to folds - 1.

    Raises:
        ValueError: fewer than two folds, or fewer pairs than folds.
    """
    if folds < 2 or count < folds:
        raise ValueError(f"folds: expected 2 to {count} for {count} pairs, got {folds}")
    sizes = [count // folds + (part < count % folds) for part in range(folds)]
    return np.repeat(np.arange(folds, dtype=np.int64), sizes)


def ten_fold(similarity: ArrayLike, same: ArrayLike, folds: ArrayLike) -> FoldAccuracy:
    """Accuracy of each fold at the threshold that is best on all others (LFW, ``restricted``).

    A pair is taken for one person where the squared distance 4 (1 - similarity) is below the
    threshold; thresholds are 0 to 4 in steps of 0.01, and of equally good ones the smallest counts.

    Args:
        similarity: (k,) similarity (cos + 1) / 2 of each pair.
        same: (k,) whether both show one person.
        folds: ints (k,), the fold of each pair; two different ones at least, usually ten.

    Raises:
        ValueError: columns of different lengths, fewer than two folds, or NaN.

    Source: G. Huang, M. Ramesh, T. Berg, E. Learned-Miller, "Labeled Faces in the Wild", 2007,
    Technical Report 07-49; thresholds and tie as in davidsandberg/facenet and
    deepinsight/insightface.
    Differs: none.
    """
    similar = np.asarray(similarity, dtype=np.float64)
    truth, parts = np.asarray(same, dtype=bool), np.asarray(folds)
    for name, column in (("same", truth), ("folds", parts)):
        if column.shape != similar.shape or similar.ndim != 1:
            raise ValueError(f"{name}: expected {similar.shape}, got {column.shape}")
    if np.isnan(similar).any():
        raise ValueError("similarity: expected numbers, got NaN")
    known = np.unique(parts)
    if len(known) < 2:
        raise ValueError(f"folds: expected two different ones or more, got {len(known)}")
    distances = 4 * (1 - similar)
    correct = np.stack([_correct(distances[parts == k], truth[parts == k]) for k in known])
    pairs = np.array([(parts == k).sum() for k in known])
    best = np.argmax(correct.sum(axis=0) - correct, axis=1)
    accuracies = correct[np.arange(len(known)), best] / pairs
    return FoldAccuracy(
        float(accuracies.mean()),
        float(accuracies.std()),
        tuple(accuracies.tolist()),
        tuple((1 - DISTANCES[best] / 4).tolist()),
        tuple(pairs.tolist()),
    )


def _correct(distances: NDArray[np.float64], same: NDArray[np.bool_]) -> Places:
    """Number of pairs that are judged rightly at each threshold."""
    accepted = np.searchsorted(np.sort(distances[same]), DISTANCES, side="left")
    wrong = np.searchsorted(np.sort(distances[~same]), DISTANCES, side="left")
    right: Places = accepted + np.count_nonzero(~same) - wrong
    return right


@dataclass(frozen=True, eq=False)
class Templates:
    """One embedding for each set of pictures of a person.

    Args:
        names: (t,) identifiers, ascending.
        embeddings: float32 (t, d) of length one.
        people: int64 (t,), whom each template shows.
    """

    names: NDArray[np.int64]
    embeddings: Floats
    people: Places

    @classmethod
    def of(
        cls, embeddings: ArrayLike, template: ArrayLike, media: ArrayLike, people: ArrayLike
    ) -> Templates:
        """The mean of the means of media, of length one.

        Pictures of one medium (the frames of a video) count together as much as one picture.

        Args:
            embeddings: (n, d) of pictures; each is brought to length one first.
            template: ints (n,), the template that each picture belongs to. A picture of several
                templates has several rows.
            media: ints (n,), the medium that each picture is from.
            people: ints (n,), whom it shows.

        Raises:
            ValueError: columns of different lengths, a template of two people, or embeddings that
                cancel out.

        Source: B. Maze et al., "IARPA Janus Benchmark-C: Face Dataset and Protocol", 2018,
        DOI 10.1109/ICB2018.2018.00033; media pooling as in deepinsight/insightface.
        Differs: none; pictures are not weighted by how well a face was found on them.
        """
        single = np.asarray(embeddings, dtype=np.float64)
        columns = [np.asarray(one, dtype=np.int64) for one in (template, media, people)]
        for name, column in zip(("template", "media", "people"), columns, strict=True):
            if single.ndim != 2 or column.shape != single.shape[:1]:
                raise ValueError(f"{name}: expected {single.shape[:1]}, got {column.shape}")
        owners, shots, persons = columns
        units = _unit(single, "embeddings")
        keys, place = np.unique(np.stack([owners, shots], axis=1), axis=0, return_inverse=True)
        pooled = _means(units, place.reshape(-1), len(keys))
        names, place = np.unique(keys[:, 0], return_inverse=True)
        merged = _unit(_means(pooled, place.reshape(-1), len(names)), "template")
        at = np.searchsorted(names, owners)
        whose = np.empty(len(names), dtype=np.int64)
        whose[at] = persons
        mixed = np.unique(owners[whose[at] != persons])
        if len(mixed):
            raise ValueError(f"template: expected one person each, {mixed[0]} shows several")
        return cls(names, merged.astype(np.float32), whose)

    def pairs(self, first: ArrayLike, second: ArrayLike, other: Templates | None = None) -> Pairs:
        """The pairs of a list of templates.

        Args:
            first: ints (k,), the probe of each pair.
            second: ints (k,), the enrolled template.
            other: where the enrolled templates are looked up; none: here. Probes may be purified
                and enrolled ones not.

        Raises:
            ValueError: for a template that there is not.
        """
        enrolled = self if other is None else other
        i, j = self.places("first", first), enrolled.places("second", second)
        if i.shape != j.shape:
            raise ValueError(f"second: expected {i.shape}, got {j.shape}")
        similarity = np.empty(len(i), dtype=np.float32)
        for start in range(0, len(i), _PAIRS_AT_ONCE):
            part = slice(start, start + _PAIRS_AT_ONCE)
            similarity[part] = paired_similarities(
                self.embeddings[i[part]], enrolled.embeddings[j[part]]
            )
        people = self.people[i], enrolled.people[j]
        return Pairs(similarity, people[0] == people[1], *people)

    def places(self, field: str, wanted: ArrayLike) -> Places:
        """Where templates are in the columns.

        Args:
            field: what is looked up, for messages.
            wanted: ints (k,), identifiers.

        Raises:
            ValueError: naming the first that there is not.
        """
        sought = np.asarray(wanted, dtype=np.int64)
        place = np.minimum(np.searchsorted(self.names, sought), len(self.names) - 1)
        absent = sought[self.names[place] != sought]
        if len(absent):
            raise ValueError(f"{field}: expected templates that are there, got {absent[0]}")
        return place.astype(np.int64)


def _means(values: NDArray[np.float64], place: Places, count: int) -> NDArray[np.float64]:
    """Mean of the rows of each of ``count`` groups."""
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(count))
    sums: NDArray[np.float64] = np.add.reduceat(values[order], starts, axis=0)
    return sums / np.bincount(place, minlength=count)[:, None]


def _unit(values: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    length = np.linalg.norm(values, axis=1, keepdims=True)
    if not (length > 0).all():
        raise ValueError(f"{name}: expected embeddings of some length, got zero or NaN")
    scaled: NDArray[np.float64] = values / length
    return scaled
