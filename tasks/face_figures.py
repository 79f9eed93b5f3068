"""Figures of face verification: pairs are formed here, of the embeddings that are stored."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defender.metrics.verification import (
    Pairs,
    Statistics,
    all_by_identity,
    det,
    frr_at,
    rates,
    threshold_at,
)
from tasks.columns import Columns, Split
from tasks.errors import SpecError
from tasks.faces import people
from tasks.nodes import Node
from tasks.survey import Survey
from tasks.workbench import Workbench

FARS = (1e-3, 1e-4)
"""False acceptance rates at which the share of accepted genuine pairs is given."""
DRAWS = 400
"""Bootstrap samples of an interval."""

Figure = tuple[str, float, float, float, int]
"""Metric, value, ends of its interval, and what it is a share or mean of."""


class FaceFigures:
    """What a verification system with a defence in front of it accepts.

    Only probes go through the defence; enrolled pictures are compared as they are. The threshold
    of each defence is that at which the stated share of clean pairs of two people passes, unless
    the specification fixes one for all.

    Args:
        bench: the run.
        columns: its per-image columns.
        split: which images count.

    Raises:
        SpecError: where the images do not show two people, or nobody twice.
    """

    def __init__(self, bench: Workbench, columns: Columns, split: Split) -> None:
        self.bench = bench
        self.columns = columns
        self.counted = split.counted
        self.people = people(bench, columns.table("ingest"))
        self._clean: dict[str, Pairs] = {}
        self._thresholds: dict[str, float] = {}
        known, times = np.unique(self.people[self.among], return_counts=True)
        if len(known) < 2 or times.max(initial=0) < 2:
            raise SpecError(
                "faces.identity: expected pictures of two people or more, and two of somebody, "
                f"got {len(known)} people on {int(self.among.sum())} pictures"
            )

    @cached_property
    def among(self) -> NDArray[np.bool_]:
        """Images that count and show somebody known."""
        return np.asarray(self.counted & (self.people >= 0), dtype=bool)

    def embeddings(self, node: str) -> NDArray[np.float32]:
        """The stored embeddings of a score node, of the images that count."""
        return self.columns.vectors(node, "embedding")[self.among]

    @cached_property
    def enrolled(self) -> NDArray[np.float32]:
        """Embeddings of the clean images as they are compared with."""
        return self.embeddings("score/none/none")

    def clean_pairs(self, purifier: str) -> Pairs:
        """All pairs of the clean images behind a purifier with those that are enrolled."""
        if purifier not in self._clean:
            probes = self.embeddings(f"score/none/{purifier}")
            self._clean[purifier] = Pairs.across(probes, self.enrolled, self.people[self.among])
        return self._clean[purifier]

    def threshold(self, purifier: str) -> float:
        """Similarity from which a pair is accepted behind a purifier."""
        if purifier not in self._thresholds:
            fixed = self.bench.spec.faces.threshold
            if fixed is None:
                fixed = threshold_at(self.clean_pairs(purifier), self.bench.spec.faces.far)
            self._thresholds[purifier] = fixed
        return self._thresholds[purifier]

    def figures(self, node: Node) -> Iterator[Figure]:
        """Far, frr, eer and similarity of a score node, with intervals by identity."""
        limit = self.threshold(node.purifier)
        if node.attack == "none":
            yield from self._clean_figures(self.clean_pairs(node.purifier), limit)
            return
        if "similarity" in self.columns.table(node.name).schema.names:
            yield from self._impersonation(node, limit)
        pairs = Pairs.genuine_across(
            self.embeddings(node.name), self.enrolled, self.people[self.among]
        )
        [between] = self._intervals(pairs, lambda some, w: [frr_at(some, limit, w)])
        yield "frr", frr_at(pairs, limit), *between, len(pairs.similarity)

    def _clean_figures(self, pairs: Pairs, limit: float) -> Iterator[Figure]:
        def statistics(given: Pairs, weights: NDArray[np.float64]) -> tuple[float, ...]:
            drawn = rates(given, weights)
            return (*drawn.at(limit), drawn.equal()[0])

        known = rates(pairs)
        far, frr = known.at(limit)
        of_far, of_frr, of_eer = self._intervals(pairs, statistics)
        genuine = int(pairs.same.sum())
        impostor = len(pairs.same) - genuine
        yield "far", far, *of_far, impostor
        yield "eer", known.equal()[0], *of_eer, impostor
        yield "frr", frr, *of_frr, genuine

    def _impersonation(self, node: Node, limit: float) -> Iterator[Figure]:
        similar = self.columns.column(node.name, "similarity")[self.among]
        passed = (similar.astype(np.float32) >= np.float32(limit)).astype(np.float64)
        whose = self.people[self.among]
        yield "far", float(passed.mean()), *self._clustered(passed, whose), len(passed)
        yield "similarity", float(similar.mean()), *self._clustered(similar, whose), len(similar)

    @staticmethod
    def systems_of(state: Survey) -> list[Node]:
        """The score nodes of clean images, one a defence."""
        return [node for node in state.plan if node.kind == "score" and node.attack == "none"]

    def systems(self) -> list[dict[str, Any]]:
        """For each defence on clean images: threshold, rates, and how they were counted."""
        found = []
        state = self.columns.state
        for node in self.systems_of(state):
            limit, pairs = self.threshold(node.purifier), self.clean_pairs(node.purifier)
            flattered = Pairs.genuine_across(
                self.embeddings(node.name),
                self.enrolled,
                self.people[self.among],
                self_pairs=True,
            )
            known = rates(pairs)
            of_far, of_frr = det(pairs)
            far, frr = known.at(limit)
            rate, at = known.equal()
            found.append(
                {
                    "purifier": node.purifier,
                    "threshold": limit,
                    "fixed": self.bench.spec.faces.threshold is not None,
                    "far": far,
                    "frr": frr,
                    "frr_with_self_pairs": frr_at(flattered, limit),
                    "eer": rate,
                    "eer_threshold": at,
                    "auc": known.area(),
                    "tpr_at_far": {f"{wanted:g}": known.tpr_at(wanted)[0] for wanted in FARS},
                    "genuine_pairs": int(pairs.same.sum()),
                    "impostor_pairs": int((~pairs.same).sum()),
                    "people": len(np.unique(self.people[self.among])),
                    "images": int(self.among.sum()),
                    "curve": {"far": of_far.tolist(), "frr": of_frr.tolist()},
                }
            )
        return found

    def _intervals(self, pairs: Pairs, statistics: Statistics) -> list[tuple[float, float]]:
        """95 % intervals over people of figures of pairs."""
        found = all_by_identity(pairs, statistics, draws=DRAWS, seed=self.bench.spec.seed)
        return found or [(math.nan, math.nan)]

    def _clustered(
        self, values: NDArray[np.float64], whose: NDArray[np.int64]
    ) -> tuple[float, float]:
        """95 % bootstrap interval of a mean, attackers drawn with all their images."""
        known, place = np.unique(whose, return_inverse=True)
        sums = np.bincount(place, values)
        counts = np.bincount(place)
        if len(known) < 2:
            return math.nan, math.nan
        generator = np.random.default_rng(self.bench.spec.seed)
        drawn = generator.integers(0, len(known), (DRAWS, len(known)))
        means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
        low, high = np.quantile(means, (0.025, 0.975))
        return float(low), float(high)
