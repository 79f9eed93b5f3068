"""Figures of face verification: pairs are formed here, of the embeddings that are stored."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defender.metrics.verification import Pairs, Rates, det, far_at, frr_at, rates, threshold_at
from tasks.columns import Columns, Split
from tasks.errors import SpecError
from tasks.face_intervals import Figure, Interval, over_people, rate
from tasks.face_pairs import Drawn, Galleries
from tasks.nodes import Node
from tasks.survey import Survey
from tasks.verify_figures import told, tpr_row
from tasks.workbench import Workbench

FARS = (1e-2, 1e-3, 1e-4)
"""False acceptance rates at which the share of accepted genuine pairs is given, where there are
impostor pairs enough to tell them."""

Weights = NDArray[np.float64] | None


class FaceFigures:
    """What a verification system with a defence in front of it accepts.

    Only probes go through the defence; enrolled pictures are compared as they are. The threshold
    of each defence is that at which the stated share of clean pairs of two people passes, all
    draws of a random one taken together, unless the specification fixes one for all.

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
        self.galleries = Galleries(bench, columns, split.counted)
        self.people = self.galleries.persons.own
        self._clean: dict[str, Drawn] = {}
        self._thresholds: dict[str, float] = {}
        self._intervals: dict[tuple[str, str], list[Interval]] = {}
        if not any(gallery.tells for gallery in self.galleries.used):
            known = len(np.unique(self.people[self.among]))
            raise SpecError(
                "faces.identity: expected pictures of two people or more, and two of somebody, "
                f"got {known} people on {int(self.among.sum())} pictures"
            )

    @property
    def among(self) -> NDArray[np.bool_]:
        """Images that count and show somebody known."""
        return self.galleries.among

    def clean(self, purifier: str) -> Drawn:
        """All pairs of a clean picture behind a purifier with those that are enrolled."""
        if purifier not in self._clean:
            parts = [gallery.pairs(purifier) for gallery in self.galleries.used]
            self._clean[purifier] = Drawn.joined(parts)
        return self._clean[purifier]

    def threshold(self, purifier: str) -> float:
        """Similarity from which a pair is accepted behind a purifier."""
        if purifier not in self._thresholds:
            fixed = self.bench.spec.faces.threshold
            if fixed is None:
                fixed = threshold_at(self.clean(purifier).together, self.bench.spec.faces.far)
            self._thresholds[purifier] = fixed
        return self._thresholds[purifier]

    def figures(self, node: Node) -> Iterator[Figure]:
        """Far, frr, eer and similarity of a score node, of one draw and over all."""
        limit = self.threshold(node.purifier)
        if node.attack == "none":
            yield from self._clean_figures(node.purifier, limit)
            return
        if "similarity" in self.columns.table(node.name).schema.names:
            yield from self._impersonation(node, limit)
        drawn = self.galleries.own_genuine(node.attack, node.purifier)
        n = len(drawn.first.similarity)
        for end, pairs, draws in drawn.kinds():
            [between] = self._over_people(pairs, lambda some, w: [frr_at(some, limit, w)])
            yield rate(f"frr{end}", frr_at(pairs, limit), between, n, draws)

    def _clean_figures(self, purifier: str, limit: float) -> Iterator[Figure]:
        drawn = self.clean(purifier)
        genuine = int(drawn.first.same.sum())
        impostor = len(drawn.first.same) - genuine
        for end, pairs, draws in drawn.kinds():
            far, frr = far_at(pairs, limit), frr_at(pairs, limit)
            if end in ("", "_mean"):
                of_far, of_frr, of_eer, *_ = self._clean_intervals(purifier, end)
                value = rates(pairs).equal()[0]
                yield Figure(f"eer{end}", value, *of_eer, impostor, draws)
            else:
                of_far, of_frr = self._over_people(
                    pairs, lambda some, w: [far_at(some, limit, w), frr_at(some, limit, w)]
                )
            yield rate(f"far{end}", far, of_far, impostor, draws)
            yield rate(f"frr{end}", frr, of_frr, genuine, draws)

    def _clean_intervals(self, purifier: str, end: str) -> list[Interval]:
        """Intervals of FAR, FRR, EER and of TPR at each rate that can be told."""
        if (purifier, end) not in self._intervals:
            drawn, limit = self.clean(purifier), self.threshold(purifier)
            fars = told(FARS, int((~drawn.first.same).sum()))

            def numbers(of: Rates) -> list[float]:
                return [*of.at(limit), of.equal()[0], *(of.tpr_at(far)[0] for far in fars)]

            pairs = drawn.together if end else drawn.first
            found = self._over_people(pairs, lambda some, w: numbers(rates(some, w)))
            self._intervals[purifier, end] = found
        return self._intervals[purifier, end]

    def _impersonation(self, node: Node, limit: float) -> Iterator[Figure]:
        drawn = self.galleries.impersonations(node.attack, node.purifier)
        n = len(drawn.first.similarity)
        for end, pairs, draws in drawn.kinds():
            [between] = self._over_people(pairs, lambda some, w: [far_at(some, limit, w)])
            yield rate(f"far{end}", far_at(pairs, limit), between, n, draws)
        [between] = self._over_people(drawn.first, lambda some, w: [_mean(some.similarity, w)])
        yield Figure("similarity", float(drawn.first.similarity.mean()), *between, n)

    @cached_property
    def _systems(self) -> list[Node]:
        state: Survey = self.columns.state
        return [node for node in state.plan if node.kind == "score" and node.attack == "none"]

    def systems(self) -> list[dict[str, Any]]:
        """For each defence on clean images: threshold, rates, and how they were counted.

        Rates of a random defence are means over its draws.
        """
        return [self._system(node.purifier) for node in self._systems]

    def _system(self, purifier: str) -> dict[str, Any]:
        limit, drawn, used = self.threshold(purifier), self.clean(purifier), self.galleries.used
        pairs = drawn.together
        genuine = int(drawn.first.same.sum())
        impostors = len(drawn.first.same) - genuine
        known = rates(pairs)
        of_far, of_frr = det(pairs)
        rate_, at = known.equal()
        fars = told(FARS, impostors)
        intervals = self._clean_intervals(purifier, "_mean" if drawn.draws > 1 else "")[3:]
        return {
            "purifier": purifier,
            "draws": drawn.draws,
            "threshold": limit,
            "fixed": self.bench.spec.faces.threshold is not None,
            "of": "victims" if all(one.victims for one in used) else "images",
            "far": far_at(pairs, limit),
            "frr": frr_at(pairs, limit),
            "frr_with_self_pairs": self._with_self_pairs(purifier, limit),
            "eer": rate_,
            "eer_threshold": at,
            "auc": known.area(),
            "tpr_at_far": [
                tpr_row(far, known.tpr_at(far), between, genuine, impostors)
                for far, between in zip(fars, intervals, strict=True)
            ],
            "genuine_pairs": genuine,
            "impostor_pairs": impostors,
            "people": len(np.unique(np.concatenate([one.people for one in used]))),
            "images": sum(len(one.people) for one in used),
            "curve": {"far": of_far.tolist(), "frr": of_frr.tolist()},
        }

    def _with_self_pairs(self, purifier: str, limit: float) -> float:
        pairs = [gallery.self_pairs(purifier) for gallery in self.galleries.used]
        refused = sum(int((one.similarity < limit).sum()) for one in pairs)
        return refused / sum(len(one.similarity) for one in pairs)

    def _over_people(self, pairs: Pairs, statistics: Any) -> list[Interval]:
        return over_people(pairs, statistics, self.bench.spec.seed)


def _mean(values: Sequence[float] | NDArray[np.float32], weights: Weights) -> float:
    if weights is None:
        return float(np.mean(values))
    total = float(weights.sum())
    return float(np.dot(values, weights) / total) if total else math.nan
