"""What a sweep measures of one purifier: its line, as on the leaderboard of a run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defender.metrics.rates import mean_interval
from tasks.columns import Columns
from tasks.counted import counted
from tasks.leaderboard import Estimate, Standing, grouped, purifiers, standings
from tasks.survey import Survey
from tasks.sweep_specs import CLEAN, OF_MODEL, lower_is_better

Column = NDArray[np.float64]


def measure(state: Survey, purifier: str) -> Standing:
    """Figures of one purifier in a finished run: by attack, by group, and their means.

    Args:
        state: a run on a metric or a model.
        purifier: its label; ``"none"`` for images that were not purified.
    """
    columns = Columns(state)
    if state.bench.has_metric:
        (one,) = standings(state, columns, only=purifier)
        return one
    return _of_model(state, columns, purifier)


def value_of(standing: Standing, name: str) -> float:
    """An objective's value: the mean over the attacks, or that on clean images."""
    if name.startswith(CLEAN):
        return standing.attacks["none"][name.removeprefix(CLEAN)]
    found = standing.mean.get(name)
    return math.nan if found is None else found.value


def feasible(standing: Standing, constraints: dict[str, float]) -> bool:
    """Whether a purifier keeps all bounds."""
    return all(violation(standing, name, bound) <= 0 for name, bound in constraints.items())


def violation(standing: Standing, name: str, bound: float) -> float:
    """By how much a figure misses a bound, 0 or less where it keeps it.

    A bound is an upper one of what is better lower, and a lower one of what is better higher.
    """
    excess = value_of(standing, name) - bound
    return excess if lower_is_better(name) else -excess


def _of_model(state: Survey, columns: Columns, purifier: str) -> Standing:
    among = counted(columns)
    labels = columns.column("ingest", "label")[among]
    clean = columns.column("score/none/none", "prediction")[among]
    hits: dict[str, dict[str, Column]] = {}
    for node in state.plan:
        if node.kind == "score" and node.purifier == purifier:
            found = columns.column(node.name, "prediction")[among]
            hits[node.attack] = {
                "accuracy": np.where(labels >= 0, found == labels, math.nan),
                "label_recovery": (found == clean).astype(np.float64),
            }
    attacks = {
        attack: {name: _mean(values) for name, values in own.items()}
        for attack, own in hits.items()
    }
    known: Any = "none" if purifier == "none" else purifiers(state)[purifier].knowledge
    hostile = [own for attack, own in hits.items() if attack != "none"]
    mean = {}
    for name in OF_MODEL if hostile else ():
        values = np.stack([own[name] for own in hostile]).mean(0)
        low, high = mean_interval(values, seed=state.bench.spec.seed)
        mean[name] = Estimate(_mean(values), low, high)
    return Standing(purifier, known, attacks, grouped(state, attacks), mean)


def _mean(values: Column) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan
