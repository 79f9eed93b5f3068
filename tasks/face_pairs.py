"""Whose pictures are enrolled, and the pairs that every draw of a defence makes of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from defender.metrics.pairs import MOST_PAIRS, Floats, Pairs, Places
from tasks.columns import Columns
from tasks.faces import people
from tasks.redraw_figures import every_draw, every_vector
from tasks.targets import is_apart, person_in
from tasks.workbench import Workbench


@dataclass(frozen=True, eq=False)
class Drawn:
    """The same pairs behind every draw of a defence.

    Args:
        first: as the first draw has them.
        similarity: of each pair in each draw, float32 (draws, k).
    """

    first: Pairs
    similarity: Floats

    @classmethod
    def of(cls, drawn: Sequence[Pairs]) -> Drawn:
        """Pairs of one draw after another, all of the same pictures."""
        return cls(drawn[0], np.stack([pairs.similarity for pairs in drawn]))

    @classmethod
    def joined(cls, parts: Sequence[Drawn]) -> Drawn:
        """The pairs of several sets of pictures; none is made across them."""
        if len(parts) == 1:
            return parts[0]
        pairs = [part.first for part in parts]
        first = Pairs(
            np.concatenate([one.similarity for one in pairs]),
            np.concatenate([one.same for one in pairs]),
            np.concatenate([one.first for one in pairs]),
            np.concatenate([one.second for one in pairs]),
        )
        return cls(first, np.concatenate([part.similarity for part in parts], axis=1))

    @property
    def draws(self) -> int:
        """How often the defence was drawn."""
        return len(self.similarity)

    @cached_property
    def together(self) -> Pairs:
        """The pairs of all draws: rates of these are means over the draws."""
        if self.draws == 1:
            return self.first
        one, times = self.first, self.draws
        same, first, second = one.same, one.first, one.second
        return Pairs(
            self.similarity.reshape(-1),
            np.tile(same, times),
            np.tile(first, times),
            np.tile(second, times),
        )

    @cached_property
    def worst(self) -> Pairs:
        """Each pair in the draw that is worst for the system.

        Two people are accepted if any draw accepts them, one person is refused if any refuses.
        """
        low, high = self.similarity.min(axis=0), self.similarity.max(axis=0)
        return self._with(np.where(self.first.same, low, high))

    @cached_property
    def majority(self) -> Pairs:
        """Each pair in the draw that decides where more than half of them must accept."""
        place = self.draws - 1 - self.draws // 2
        return self._with(np.partition(self.similarity, place, axis=0)[place])

    def _with(self, similarity: Floats) -> Pairs:
        return Pairs(similarity, self.first.same, self.first.first, self.first.second)

    def kinds(self) -> Iterator[tuple[str, Pairs, int]]:
        """What figures are made of: the end of their name, the pairs, and draws that they are of.

        Those of the first draw come first; of one draw there is no more to say.
        """
        yield "", self.first, 0
        if self.draws > 1:
            yield "_mean", self.together, self.draws
            yield "_worst", self.worst, self.draws
            yield "_majority", self.majority, self.draws


class Persons:
    """Numbers of the people on the images of a run and on its victims' pictures.

    Args:
        bench: the run.
        columns: its per-image columns.
    """

    def __init__(self, bench: Workbench, columns: Columns) -> None:
        self.bench = bench
        rows = columns.table("ingest")
        self.own: Places = people(bench, rows)
        self._pattern = bench.spec.faces.identity
        keys = self._keys(rows["name"].to_pylist(), rows["label"].to_pylist(), None)
        known = zip(keys, self.own.tolist(), strict=True)
        self._numbers: dict[Hashable, int] = {key: one for key, one in known if one >= 0}

    def _keys(
        self, names: Sequence[str], labels: Sequence[int | None], pool: int | None
    ) -> list[Hashable]:
        """Who is on pictures: the person a name states, or a label of one data set.

        A picture of nobody known is its own person.
        """
        found: list[Hashable] = []
        for name, label in zip(names, labels, strict=True):
            person = label if self._pattern is None else person_in(self._pattern, name)
            if person is None:
                found.append((pool, name))
            else:
                found.append((pool, label) if self._pattern is None else person)
        return found

    def of(self, names: Sequence[str], labels: Sequence[int | None], pool: int | None) -> Places:
        """Numbers of the people on pictures, the same as of those on the run's images.

        Args:
            names: of the pictures.
            labels: of the pictures, in their own data set.
            pool: number of that data set; None for the run's own.
        """
        new = max(self._numbers.values(), default=-1) + 1
        found = []
        for key in self._keys(names, labels, pool):
            if key not in self._numbers:
                self._numbers[key], new = new, new + 1
            found.append(self._numbers[key])
        return np.array(found, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Gallery:
    """Pictures of one data set that are enrolled, and compared with each other.

    Args:
        people: whom each shows, (n,).
        enrolled: embeddings of the pictures as they are, (n, d).
        probes: gives their embeddings behind a defence, (draws, n, d).
        victims: they are those whom attackers impersonate, from a data set of their own.
    """

    people: Places
    enrolled: Floats
    probes: Callable[[str], Floats]
    victims: bool = False

    @property
    def tells(self) -> bool:
        """Whether there are pairs of one person and of two."""
        known, times = np.unique(self.people, return_counts=True)
        return len(known) > 1 and int(times.max()) > 1

    def pairs(self, purifier: str) -> Drawn:
        """All pairs of a purified picture with another one that is enrolled."""
        probes = self.probes(purifier)
        most = MOST_PAIRS // len(probes)
        found = [Pairs.across(one, self.enrolled, self.people, most=most) for one in probes]
        return Drawn.of(found)

    def self_pairs(self, purifier: str) -> Pairs:
        """The pairs of one person, those of a picture with itself among them."""
        found = []
        for probes in self.probes(purifier):
            pairs = Pairs.genuine_across(probes, self.enrolled, self.people, self_pairs=True)
            found.append(pairs)
        return Drawn.of(found).together


class Galleries:
    """The pictures that a run enrols, and what is compared with them.

    Args:
        bench: the run.
        columns: its per-image columns.
        counted: which of its images count, (n,).
    """

    def __init__(self, bench: Workbench, columns: Columns, counted: NDArray[np.bool_]) -> None:
        self.bench, self.columns = bench, columns
        self.persons = Persons(bench, columns)
        self.counted = counted
        self.among = np.asarray(counted & (self.persons.own >= 0), dtype=bool)

    @cached_property
    def own(self) -> Gallery:
        """The images of the run's data set."""
        return Gallery(
            self.persons.own[self.among],
            self.columns.vectors("score/none/none", "embedding")[self.among],
            lambda purifier: self.probes("none", purifier),
        )

    @cached_property
    def used(self) -> list[Gallery]:
        """Those that clean pairs are formed of.

        Victims from a data set of their own, where these tell people apart; the run's own images
        where it has no such victims, or an attacker impersonates somebody on them.
        """
        own, found = False, []
        for node in self.columns.state.plan:
            if node.kind == "attack" and "target" in node.inputs:
                if self.pool_of(node.position) is None:
                    own = True
                else:
                    found.append(node.inputs["target"])
        others = [gallery for name in dict.fromkeys(found) if (gallery := self._of(name)).tells]
        return others if others and not own else [self.own, *others]

    def pool_of(self, position: int) -> int | None:
        """Number of the data set that an attack's victims are from, None for the run's own."""
        pools = [pool for pool in self.bench.targets if is_apart(pool, self.bench.dataset)]
        pool = self.bench.targets[position]
        return next((i for i, one in enumerate(pools) if one is pool), None)

    def victims(self, target: str) -> Places:
        """Who is on the picture that each image of the run is to pass as, (n,)."""
        rows = self.columns.table(target)
        position = self.columns.state.plan.nodes[target].position
        named = rows["target_name"].to_pylist(), rows["target_label"].to_pylist()
        return self.persons.of(*named, self.pool_of(position))

    def probes(self, attack: str, purifier: str) -> Floats:
        """Embeddings of the run's images behind every draw of a defence, (draws, n, d)."""
        node = f"score/{attack}/{purifier}"
        return every_vector(self.columns, node, f"redraw/{attack}/{purifier}")[:, self.among]

    def similarities(self, attack: str, purifier: str) -> Floats:
        """Similarity of attacked images to the picture in question, (draws, n)."""
        node = self.columns.state.plan.nodes[f"score/{attack}/{purifier}"]
        found = every_draw(self.columns, node, "similarity")[:, self.among]
        return np.asarray(found, dtype=np.float32)

    def impersonations(self, attack: str, purifier: str) -> Drawn:
        """Each attacked image and whom it is to pass as: pairs of two people, in every draw."""
        target = self.columns.state.plan.nodes[f"attack/{attack}"].inputs["target"]
        similar = self.similarities(attack, purifier)
        whose, victims = self.persons.own[self.among], self.victims(target)[self.among]
        first = Pairs(similar[0], np.zeros(len(whose), dtype=bool), whose, victims)
        return Drawn(first, similar)

    def own_genuine(self, attack: str, purifier: str) -> Drawn:
        """Attacked images with the other enrolled ones of the attacker, in every draw."""
        probes, own = self.probes(attack, purifier), self.own
        most = MOST_PAIRS // len(probes)
        return Drawn.of(
            [Pairs.genuine_across(one, own.enrolled, own.people, most=most) for one in probes]
        )

    def _of(self, target: str) -> Gallery:
        """The victims' pictures of a stage, each once."""
        names = np.array(self.columns.table(target)["target_name"].to_pylist())
        places = np.flatnonzero(self.counted)
        _, first = np.unique(names[places], return_index=True)
        kept = np.sort(places[first])
        enrolled = self.columns.vectors(target, "embedding")[kept]

        def probes(purifier: str) -> Floats:
            if purifier == "none":
                return enrolled[None]
            again = target.replace("target/", "victims/", 1) + f"/{purifier}"
            return every_vector(self.columns, None, again)[:, kept]

        return Gallery(self.victims(target)[kept], enrolled, probes, victims=True)
