"""Images with people's opinions of them, to train and judge quality metrics on."""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from storage.images import Pixels
from storage.ledger import digest_of
from storage.scores import read_rows
from storage.sources.paths import places
from tasks.errors import SpecError
from tasks.quality_specs import OpinionsSpec
from tasks.specs import DatasetSpec
from tasks.tables import table_rows
from tasks.training_data import TrainingData
from tasks.verify_lists import name_places, refuse


@dataclass(frozen=True)
class Opinions:
    """A table of opinions, as it was read.

    Args:
        path: the file.
        names: images, each once.
        scores: mean score of each.
        sets: which set each belongs to; None where the table does not say.
    """

    path: Path
    names: list[str]
    scores: list[float]
    sets: list[str] | None


def read_opinions(spec: OpinionsSpec, folder: Path) -> Opinions:
    """Read a table of opinions, which is looked for where data sets are.

    Raises:
        SpecError: naming the field, the row and what was expected.
    """
    tried = places(spec.path, folder, os.environ)
    path = next((place for place in tried if place.is_file()), None)
    if path is None:
        listed = ", ".join(map(str, tried))
        raise SpecError(f"opinions.path: expected a table {spec.path!r}, got nothing at {listed}")
    needed = (spec.name, spec.score, *(() if spec.split is None else (spec.split,)))
    wrong, made = [], Opinions(path, [], [], None if spec.split is None else [])
    try:
        for where, row in table_rows(path, needed):
            score = _number(row[spec.score])
            if score is None:
                wrong.append(f"{row[spec.score]!r} ({where})")
                continue
            made.names.append(row[spec.name])
            made.scores.append(score)
            if made.sets is not None:
                made.sets.append(row[str(spec.split)])
    except SpecError as error:
        raise SpecError(f"opinions: {error}") from None
    refuse(
        wrong, f"opinions.score: {path}: expected finite numbers in {spec.score}, got {{}} others"
    )
    if not made.names:
        raise SpecError(f"opinions.path: {path}: expected scores, got none")
    twice = [name for name, count in Counter(made.names).items() if count > 1]
    refuse(twice, f"opinions.name: {path}: expected every image once, got {{}} more often")
    if made.sets is not None:
        known = sorted(set(made.sets))
        for field in ("dataset", "held_out"):
            if (value := getattr(spec, field)) not in known:
                listed = ", ".join(known[:10])
                raise SpecError(
                    f"opinions.{field}: expected a value of {spec.split}, such as {listed}; "
                    f"got {value!r}"
                )
    return made


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


class Rated(NamedTuple):
    """An image that is used: its place in its chunk, its id and its score."""

    place: int
    id: str
    score: float


class RatedData(TrainingData):
    """The images of a data set that people have scored, all or those of one set.

    Args:
        spec: which images.
        folder: folder against which the paths in it are resolved.
        store: URL of the store.
        field: name of the data set in the specification, for error messages.
        opinions: the table.
        rules: what the specification says of it.
        apart_from: the data to learn from, where these are held out; none: it is these.

    Raises:
        SpecError, StorageError: where the data set cannot be listed; the text names the field.
    """

    _derived: ClassVar[tuple[str, ...]] = (*TrainingData._derived, "rated")

    def __init__(
        self,
        spec: DatasetSpec,
        folder: Path,
        store: str,
        field: str,
        opinions: Opinions,
        rules: OpinionsSpec,
        apart_from: RatedData | None = None,
    ) -> None:
        super().__init__(spec, folder, store, field)
        self.opinions = opinions
        self.rules = rules
        self.apart_from = apart_from

    @cached_property
    def listed(self) -> list[str]:
        """Names of all source items, usable or not."""
        dataset = self.bench.dataset
        return [item.name for index in range(self.chunk_count) for item in dataset.items(index)]

    @cached_property
    def found(self) -> dict[str, int]:
        """Row in the table of each image that is in it, whatever its set.

        Raises:
            SpecError: where a row means several images, or an image has several rows.
        """
        names, path = self.opinions.names, self.opinions.path
        where = name_places(names, self.listed)
        several = [name for name, place in zip(names, where, strict=True) if place == -2]
        refuse(several, f"opinions.name: {path}: {{}} names mean several images of {self.field}")
        times = Counter(place for place in where if place >= 0)
        twice = [self.listed[place] for place, count in times.items() if count > 1]
        refuse(twice, f"opinions.name: {path}: {{}} images of {self.field} have several scores")
        return {self.listed[place]: row for row, place in enumerate(where) if place >= 0}

    @cached_property
    def wanted(self) -> dict[str, int]:
        """Row in the table of each image that is used."""
        sets = self.opinions.sets
        if sets is None:
            return self.found
        mine = self.rules.dataset if self.apart_from is None else self.rules.held_out
        return {name: row for name, row in self.found.items() if sets[row] == mine}

    @property
    def unrated(self) -> list[str]:
        """Names of the images without a score."""
        return [name for name in self.listed if name not in self.found]

    @cached_property
    def unknown(self) -> list[str]:
        """Names in the table whose image is in neither data set, nor where they are taken from."""
        both = [self] if self.apart_from is None else [self, self.apart_from]
        rows = {row for data in both for row in data.found.values()}
        left = [name for row, name in enumerate(self.opinions.names) if row not in rows]
        for source in {repr(data.bench.dataset.source): data for data in both}.values():
            if left:
                # patterns and limits leave images out that are there all the same
                there = [item.name for item in source.bench.dataset.source.items()]
                known = name_places(left, there)
                left = [name for name, place in zip(left, known, strict=True) if place == -1]
        return left

    def check(self) -> None:
        """Check everything that can be checked before images are decoded.

        Raises:
            SpecError, StorageError: saying what is wrong and where.
        """
        super().check()
        strict, table = not self.rules.partial, self.opinions.path
        if strict:
            refuse(
                self.unrated,
                f"opinions: expected a score in {table} for every image of {self.field} (or "
                f"partial: true), got none for {{}} of {len(self.listed)}",
            )
        scores = {self.opinions.scores[row] for row in self.wanted.values()}
        if len(scores) < 2:
            got = f"{next(iter(scores)):g} for all of" if scores else "none for"
            raise SpecError(
                f"opinions.score: expected scores that differ, got {got} "
                f"{len(self.wanted)} images of {self.field}"
            )
        if self.apart_from is None:
            return
        taken = set(self.apart_from.wanted.values())
        refuse(
            [name for name, row in self.wanted.items() if row in taken],
            "held_out: expected images that are not in dataset, got {} of them",
        )
        if strict:
            refuse(
                self.unknown,
                f"opinions.name: {table}: expected images of dataset or held_out (or partial: "
                f"true), got {{}} other names of {len(self.opinions.names)}",
            )

    @cached_property
    def rated(self) -> list[list[Rated]]:
        """The images that are used, by chunk."""
        chunks: list[list[Rated]] = []
        for mark in self.marks:
            chunks.append([])
            if mark.images:
                rows = read_rows(self.bench.store.rows(self._ref(mark)))
                columns = (rows[name].to_pylist() for name in ("id", "name"))
                for place, (key, name) in enumerate(zip(*columns, strict=True)):
                    if (row := self.wanted.get(name)) is not None:
                        chunks[-1].append(Rated(place, key, self.opinions.scores[row]))
        return chunks

    @property
    def counts(self) -> list[int]:
        """Number of images of each chunk that are used."""
        return [len(chunk) for chunk in self.rated]

    @property
    def rejected(self) -> int:
        """Number of source items that could not be used, with a score or without."""
        return self.bench.dataset.count - sum(mark.images for mark in self.marks)

    @cached_property
    def digest(self) -> str:
        """Digest of what all images that are used are, and of their scores."""
        return digest_of([[[image.id, image.score] for image in chunk] for chunk in self.rated])

    @cached_property
    def labels(self) -> Tensor:
        """Scores of all images that are used, float32 (n,)."""
        scores = [image.score for chunk in self.rated for image in chunk]
        return torch.tensor(scores, dtype=torch.float32)

    def chunk(self, index: int) -> list[Pixels]:
        """The images of a chunk that are used, uint8 :attr:`item_shape` each."""
        chosen = self.rated[index]
        if not chosen:
            return []
        images = super().chunk(index)
        return [images[image.place] for image in chosen]
