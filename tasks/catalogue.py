"""What a specification can name, with parameters, ranges, knowledge and papers."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from defender.detectors import DETECTORS
from defender.metrics import METRICS
from defender.types import range_text
from storage.sources import SOURCES
from tasks.building import parameter_fields
from tasks.defences import PURIFIER_KINDS
from tasks.models import MODELS, OTHER_MODELS
from tasks.precomputed import ATTACK_KINDS
from tasks.priors import ARCHITECTURES, OTHER_PRIORS, PRIORS
from tasks.quality_models import OTHER_METRICS, QUALITY_MODELS

ALGORITHMS: dict[str, dict[str, type[Any]]] = {
    "attacks": ATTACK_KINDS,
    "detectors": DETECTORS,
    "purifiers": PURIFIER_KINDS,
}
NAMED = ("models", "quality-metrics", "encoders", "priors")
KINDS = ("datasets", *NAMED, *ALGORITHMS, "metrics")


def entries(what: str) -> list[dict[str, Any]]:
    """Every registered thing of a kind as plain values.

    Raises:
        ValueError: for a kind that does not exist.
    """
    if what in ALGORITHMS:
        return [_algorithm(name, kind) for name, kind in sorted(ALGORITHMS[what].items())]
    if what == "datasets":
        return [_dataset(name, kind) for name, kind in SOURCES.items()]
    if what in NAMED:
        return [{"name": name, "doc": doc} for name, doc in _named(what).items()]
    if what == "metrics":
        return [dataclasses.asdict(metric) for metric in METRICS.values()]
    raise ValueError(f"expected one of {', '.join(KINDS)}, got {what!r}")


def _named(what: str) -> dict[str, str]:
    """Networks and what there is to say of them, by name."""
    if what == "models":
        return {**{name: model.doc for name, model in MODELS.items()}, **OTHER_MODELS}
    if what == "quality-metrics":
        return {**{name: model.doc for name, model in QUALITY_MODELS.items()}, **OTHER_METRICS}
    if what == "encoders":
        from tasks.encoders import ENCODERS, OTHER_ENCODERS

        return {**{name: known.doc for name, known in ENCODERS.items()}, **OTHER_ENCODERS}
    shipped = {name: f"{prior.doc}; ships" for name, prior in PRIORS.items()}
    files = {name: f"{known.doc}; give its weights" for name, known in ARCHITECTURES.items()}
    return {**shipped, **files, **OTHER_PRIORS}


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is dataclasses.MISSING:
        return "required"
    return list(field.default) if isinstance(field.default, tuple) else field.default


def _algorithm(name: str, kind: type[Any]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": name,
        "doc": (inspect.getdoc(kind) or "").split("\n", 1)[0],
        "parameters": [
            {
                "name": field.name,
                "default": _default(field),
                "range": range_text(field),
                "unit": field.metadata["unit"],
                "doc": field.metadata["doc"],
            }
            for field in parameter_fields(kind).values()
        ],
        "paper": kind.paper,
    }
    for trait in ("threat", "budget", "knowledge", "keeps_size"):
        value = getattr(kind, trait, None)
        if isinstance(value, str | bool):
            entry[trait] = value
        elif isinstance(value, property):
            entry[trait] = "depends on its parameters"
    return entry


def _dataset(name: str, kind: type[Any]) -> dict[str, Any]:
    return {
        "name": name,
        "doc": kind.doc,
        "parameters": [
            {"name": field.name, "default": _default(field) if field.name != "path" else "required"}
            for field in dataclasses.fields(kind)
        ],
    }
