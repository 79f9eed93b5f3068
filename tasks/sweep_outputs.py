"""What a finished sweep leaves under ``<store>/<name>/``: every trial, the front, a page."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from scipy import stats

from storage.files import write_atomic
from storage.ledger import digest_of
from tasks.leaderboard import Standing
from tasks.outputs import begin_outputs, end_outputs, finished, write_json
from tasks.survey import Survey
from tasks.sweep_figures import feasible, value_of
from tasks.sweep_specs import lower_is_better
from tasks.sweep_study import Tried
from tasks.sweeping import Sweep

RULES = 1
"""Version of what the outputs hold; raising it rewrites them."""
SUMMARY, PAGE = "sweep.json", "sweep.html"
LEAST = 5
"""Trials of a template from which a rank correlation is worth a look."""

Page = Callable[[dict[str, Any]], str]


def made_from(sweep: Sweep, tried: Sequence[Tried]) -> dict[str, Any]:
    """What the outputs are made from besides the run without any trial."""
    trials = [[one.candidate.text, one.standing.as_dict()] for one in tried]
    search = sweep.spec.sweep.model_dump(mode="json")
    return {"sweep": RULES, "search": search, "trials": digest_of(trials)}


def written(sweep: Sweep, base: Survey, tried: Sequence[Tried]) -> dict[str, Any] | None:
    """The summary, where the outputs are there, whole, and made from these trials; else None."""
    if not finished(base, made_from(sweep, tried)):
        return None
    content: dict[str, Any] = json.loads((sweep.folder / SUMMARY).read_bytes())
    return content


def write_sweep(
    sweep: Sweep, base: Survey, baselines: Sequence[Standing], tried: Sequence[Tried], page: Page
) -> dict[str, Any]:
    """Write the outputs of a finished sweep; the index comes last.

    Args:
        sweep: the sweep.
        base: its run without any trial.
        baselines: figures without a purifier, and of the specification's own purifiers.
        tried: every finished trial.
        page: makes the page from the summary.

    Returns:
        The summary, as ``sweep.json`` holds it.

    Raises:
        StoreError: where the store cannot be written.
    """
    names = (SUMMARY, PAGE)
    begin_outputs(sweep.folder, names)
    content = describe(sweep, base, baselines, tried)
    write_json(sweep.folder / SUMMARY, content)
    write_atomic(sweep.folder / PAGE, page(content).encode())
    end_outputs(base, names, made_from(sweep, tried))
    return content


def describe(
    sweep: Sweep, base: Survey, baselines: Sequence[Standing], tried: Sequence[Tried]
) -> dict[str, Any]:
    """Every trial with its figures, and which of them are on the front."""
    spec, bench = sweep.spec, sweep.bench
    on_front = front(tried, spec.objectives, spec.sweep.constraints)
    subject: Any = bench.subject
    stated = spec.model or spec.metric
    return {
        "name": spec.name,
        "version": version("image-defender"),
        "dataset": {
            "kind": spec.dataset.kind,
            "digest": digest_of([base.done[("ingest", i)].content for i in range(base.chunks)]),
            "images": sum(base.done[("ingest", i)].images for i in range(base.chunks)),
        },
        "model": {
            "name": "" if stated is None else stated.name,
            "digest": getattr(subject, "digest", ""),
        },
        "device": bench.device.type,
        "attacks": [node.attack for node in base.plan if node.kind == "attack"],
        "objectives": [
            {"name": name, "better": "lower" if lower_is_better(name) else "higher"}
            for name in spec.objectives
        ],
        "constraints": spec.sweep.constraints,
        "baselines": [
            {"purifier": one.purifier, **_figures(one, spec.objectives)} for one in baselines
        ],
        "trials": [
            {
                "trial": i + 1,
                "purifier": one.candidate.text,
                "template": one.candidate.template,
                "parameters": dict(one.candidate.parameters),
                **_figures(one.standing, spec.objectives),
                "feasible": feasible(one.standing, spec.sweep.constraints),
                "front": i in on_front,
            }
            for i, one in enumerate(tried)
        ],
        "front": [i + 1 for i in on_front],
        "correlations": correlations(tried, spec.objectives),
        "spec": spec.model_dump(mode="json", exclude={"detectors", "metrics", "examples"}),
    }


def _figures(standing: Standing, objectives: Sequence[str]) -> dict[str, Any]:
    found = standing.as_dict()
    values = {name: value_of(standing, name) for name in objectives}
    return {
        "objectives": {k: v if math.isfinite(v) else None for k, v in values.items()},
        **{name: found[name] for name in ("mean", "groups", "attacks", "knowledge")},
    }


def front(
    tried: Sequence[Tried], objectives: Sequence[str], constraints: dict[str, float]
) -> list[int]:
    """Places of the purifiers that no other is better than, best first objective first.

    Another is better that is no worse in any objective and better in one. Those that break a
    constraint or lack a value do not count.
    """
    signs = [1.0 if lower_is_better(name) else -1.0 for name in objectives]
    costs: dict[int, list[float]] = {}
    for i, one in enumerate(tried):
        values = [s * value_of(one.standing, n) for s, n in zip(signs, objectives, strict=True)]
        finite = all(map(math.isfinite, values))
        if finite and feasible(one.standing, constraints):
            costs[i] = values
    best = [i for i, own in costs.items() if not any(_better(o, own) for o in costs.values())]
    return sorted(best, key=lambda i: costs[i])


def _better(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and list(one) != list(other)


def correlations(
    tried: Sequence[Tried], objectives: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Spearman's rank correlation of numeric parameters with objectives, template by template.

    Parameters with fewer than three values, and templates with fewer than five different
    purifiers, are left out.
    """
    members: dict[str, list[Tried]] = {}
    for one in tried:
        members.setdefault(one.candidate.template, []).append(one)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for template, own in members.items():
        if len(own) < LEAST:
            continue
        for name in own[0].candidate.parameters:
            values = [one.candidate.parameters[name] for one in own]
            if len(set(values)) < 3 or any(isinstance(v, str | bool) for v in values):
                continue
            ranks = {}
            for objective in objectives:
                reached = [value_of(one.standing, objective) for one in own]
                if len(set(reached)) > 1 and np.isfinite(reached).all():
                    ranks[objective] = round(float(stats.spearmanr(values, reached).statistic), 4)
            if ranks:
                found.setdefault(template, {})[name] = ranks
    return found
