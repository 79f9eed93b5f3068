"""The leaderboard of a run on a quality metric: Gain, Quality and SRCC by purifier and attack."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from defender.metrics.quality import relative_gain, srcc
from defender.metrics.rates import mean_interval
from tasks.columns import Columns
from tasks.counted import counted
from tasks.survey import Survey

Column = NDArray[np.float64]
Point = tuple[float, float]
"""Gain and quality."""
MEASURES = ("gain", "quality", "srcc")
GROUPS = {
    "AdvCF": "color",
    "Zhang": "zhang",
    "FGSM": "fgsm",
    "IFGSM": "fgsm",
    "MIFGSM": "fgsm",
    "AMIFGSM": "fgsm",
    "PGD": "fgsm",
    "Korhonen": "korhonen",
    "MADC": "madc",
    "SSAH": "ssah",
    "UAP": "universal",
    "NES": "query",
    "Square": "query",
}
"""Group of each attack, by its registered name; others are groups of their own."""
FOLDERS = {"adv-cf": "color", "amifgsm": "fgsm", "ifgsm": "fgsm", "mifgsm": "fgsm"}
"""Group of attacks that were made elsewhere, by the name of their folder."""
DRAWS = 500
"""Bootstrap samples of images for intervals of rank correlations."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float | None]:
        """Plain numbers, None where there is none."""
        return {name: value if math.isfinite(value) else None for name, value in vars(self).items()}


@dataclass(frozen=True)
class Scored:
    """Scores of one purifier: of its outputs, and their likeness to the clean images.

    Args:
        scores: (n,) by attack; ``"none"`` for clean images.
        likeness: the same.
    """

    scores: dict[str, Column]
    likeness: dict[str, Column]


@dataclass
class Standing:
    """One purifier's line of the leaderboard.

    Args:
        purifier: its label.
        knowledge: what it is told.
        attacks: gain, quality and SRCC under each attack; ``"none"`` for clean images.
        groups: their means over the attacks of a group; ``"clean"`` for clean images.
        mean: their means over all attacks.
        difference: the means less those of the baseline, over the same images.
        front: no other deployable purifier has both a lower mean gain and a higher mean quality.
    """

    purifier: str
    knowledge: str
    attacks: dict[str, dict[str, float]]
    groups: dict[str, dict[str, float]]
    mean: dict[str, Estimate]
    difference: dict[str, Estimate] = field(default_factory=dict)
    front: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""

        def plain(figures: dict[str, dict[str, float]]) -> dict[str, Any]:
            return {
                name: {k: v if math.isfinite(v) else None for k, v in values.items()}
                for name, values in figures.items()
            }

        return {
            "purifier": self.purifier,
            "knowledge": self.knowledge,
            "attacks": plain(self.attacks),
            "groups": plain(self.groups),
            "mean": {name: one.as_dict() for name, one in self.mean.items()},
            "difference": {name: one.as_dict() for name, one in self.difference.items()},
            "front": self.front,
        }


def standing_of(stored: dict[str, Any]) -> Standing:
    """The line of a leaderboard that :meth:`Standing.as_dict` described."""

    def real(values: dict[str, float | None]) -> dict[str, float]:
        return {name: math.nan if value is None else value for name, value in values.items()}

    def estimates(part: dict[str, Any]) -> dict[str, Estimate]:
        return {name: Estimate(**real(one)) for name, one in part.items()}

    return Standing(
        purifier=stored["purifier"],
        knowledge=stored["knowledge"],
        attacks={name: real(one) for name, one in stored["attacks"].items()},
        groups={name: real(one) for name, one in stored["groups"].items()},
        mean=estimates(stored["mean"]),
        difference=estimates(stored["difference"]),
        front=stored["front"],
    )


def figures(clean: Column, scores: Column, likeness: Column) -> dict[str, float]:
    """Gain, quality and SRCC under one attack."""
    gains = relative_gain(clean, scores)
    return {
        "gain": _mean(gains),
        "quality": _mean(likeness),
        "srcc": srcc(scores, clean),
    }


def _mean(values: Column) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan


class Means:
    """Means over attacks with intervals over images, also of differences.

    Args:
        clean: scores (n,) of the clean images.
        seed: seed of the bootstrap.
    """

    def __init__(self, clean: Column, seed: int) -> None:
        self.clean = clean
        self.seed = seed
        self.picks = np.random.default_rng(seed).integers(0, len(clean), (DRAWS, len(clean)))

    def of(self, scored: Scored, baseline: Scored | None = None) -> dict[str, Estimate]:
        """Estimates by measure; with a baseline, of the differences from it.

        Attacks that either of the two was not tried on do not count.
        """
        attacks = [name for name in scored.scores if name != "none"]
        if baseline is not None:
            attacks = [name for name in attacks if name in baseline.scores]
        if not attacks:
            return {}
        columns = {
            "gain": self._gains(scored, attacks),
            "quality": np.stack([scored.likeness[a] for a in attacks]).mean(0),
        }
        if baseline is not None:
            columns["gain"] = columns["gain"] - self._gains(baseline, attacks)
            columns["quality"] -= np.stack([baseline.likeness[a] for a in attacks]).mean(0)
        found = {}
        for name, values in columns.items():
            finite = values[np.isfinite(values)]
            low, high = mean_interval(finite, seed=self.seed)
            found[name] = Estimate(_mean(values), low, high)
        found["srcc"] = self._srcc(scored, baseline, attacks)
        return found

    def _gains(self, scored: Scored, attacks: list[str]) -> Column:
        found: Column = np.stack(
            [relative_gain(self.clean, scored.scores[a]) for a in attacks]
        ).mean(0)
        return found

    def _srcc(self, scored: Scored, baseline: Scored | None, attacks: list[str]) -> Estimate:
        value = float(np.mean([srcc(scored.scores[a], self.clean) for a in attacks]))
        draws = self._drawn(scored, attacks)
        if baseline is not None:
            value -= float(np.mean([srcc(baseline.scores[a], self.clean) for a in attacks]))
            draws = draws - self._drawn(baseline, attacks)
        draws = draws[np.isfinite(draws)]
        if not len(draws) or not math.isfinite(value):
            return Estimate(value, math.nan, math.nan)
        low, high = np.quantile(draws, [0.025, 0.975])
        return Estimate(value, float(low), float(high))

    def _drawn(self, scored: Scored, attacks: list[str]) -> Column:
        """Mean rank correlation over attacks, (draws,)."""
        ranks = _ranks(self.clean[self.picks])
        found = []
        for attack in attacks:
            own = _ranks(scored.scores[attack][self.picks])
            power = np.sqrt((ranks**2).sum(1) * (own**2).sum(1))
            with np.errstate(invalid="ignore", divide="ignore"):
                found.append((ranks * own).sum(1) / power)
        mean: Column = np.mean(found, axis=0)
        return mean


def _ranks(values: Column) -> Column:
    ranks: Column = np.asarray(scipy.stats.rankdata(values, axis=1), dtype=np.float64)
    ranks -= ranks.mean(axis=1, keepdims=True)
    return ranks


def group_of(state: Survey, attack: str) -> str:
    """The group of an attack of a run."""
    node = state.plan.nodes[f"attack/{attack}"]
    algorithm = state.bench.attacks[node.position]
    folder = getattr(algorithm, "folder", None)
    if isinstance(folder, str):
        return FOLDERS.get(folder, folder.split("-", 1)[0])
    return GROUPS.get(type(algorithm).__name__, attack)


def grouped(state: Survey, attacks: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Means of figures by attack over the attacks of each group; ``"clean"`` for clean images."""
    members: dict[str, list[dict[str, float]]] = {}
    for attack, figures_ in attacks.items():
        group = "clean" if attack == "none" else group_of(state, attack)
        members.setdefault(group, []).append(figures_)
    return {
        group: {name: float(np.mean([one[name] for one in found])) for name in found[0]}
        for group, found in members.items()
    }


def standings(state: Survey, columns: Columns, only: str | None = None) -> list[Standing]:
    """The leaderboard of a finished run, lowest mean gain first; empty without a quality metric.

    The baseline of differences is the one that the specification names, else the purifier that
    halves both sides, where the run has it.

    Args:
        state: the run.
        columns: its per-image columns.
        only: label of the one purifier that is wanted; None for all.
    """
    nodes = [node for node in state.plan if node.kind == "score"]
    if not state.bench.has_metric or "quality" not in state.bench.spec.metrics:
        return []
    among = counted(columns)
    clean = columns.column("score/none/none", "score").astype(np.float64)[among]
    scored: dict[str, Scored] = {}
    for node in nodes:
        if only not in (None, node.purifier):
            continue
        own = scored.setdefault(node.purifier, Scored({}, {}))
        own.scores[node.attack] = columns.column(node.name, "score").astype(np.float64)[among]
        own.likeness[node.attack] = columns.column(node.name, "likeness")[among]
    base = next((scored[label] for label in scored if label == baseline_label(state)), None)
    means = Means(clean, state.bench.spec.seed)
    made = [_standing(state, means, name, one, base) for name, one in scored.items()]
    usable = [one for one in made if one.knowledge != "reference" and one.mean]
    points = [(one.mean["gain"].value, one.mean["quality"].value) for one in usable]
    for one, point in zip(usable, points, strict=True):
        one.front = on_front(point, points)
    return sorted(made, key=lambda one: one.mean["gain"].value if one.mean else math.inf)


def baseline_label(state: Survey) -> str | None:
    """Label of the purifier that others are compared with, None where the run has none."""
    if state.bench.spec.baseline is not None:
        return state.bench.spec.baseline
    for label, purifier in purifiers(state).items():
        if type(purifier).__name__ == "Resize" and getattr(purifier, "scale", None) == 0.5:
            return label
    return None


def purifiers(state: Survey) -> dict[str, Any]:
    """The purifiers of a run by label."""
    found = {}
    for node in state.plan:
        if node.kind == "purify":
            found[node.purifier] = state.bench.purifiers[node.position]
    return found


def _standing(
    state: Survey, means: Means, purifier: str, scored: Scored, base: Scored | None
) -> Standing:
    attacks = {
        attack: figures(means.clean, scores, scored.likeness[attack])
        for attack, scores in scored.scores.items()
    }
    groups = grouped(state, attacks)
    known = "none" if purifier == "none" else purifiers(state)[purifier].knowledge
    difference = {} if base is None or base is scored else means.of(scored, base)
    return Standing(purifier, known, attacks, groups, means.of(scored), difference)


def on_front(point: Point, others: Iterable[Point]) -> bool:
    """Whether no other is at least as good in gain and quality, and better in one of them."""
    gain, quality = point
    return not any(
        lower <= gain and higher >= quality and (lower < gain or higher > quality)
        for lower, higher in others
    )
