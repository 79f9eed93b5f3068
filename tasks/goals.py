"""What an attack of a run is for, and what of its result is stored."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from defender.ensembles import Ensemble
from defender.noise import derive_seeds
from defender.norms import quantise_within
from defender.objectives import Classify, Defended, Misclassify, RaiseScore
from defender.objectives_face import Dodge, Impersonate
from tasks.errors import ModelError
from tasks.workbench import Workbench


def goal(
    bench: Workbench,
    position: int,
    images: Tensor,
    labels: Tensor,
    seeds: Tensor,
    enrolled: Tensor | None = None,
    threshold: float | None = None,
    drawn: Tensor | None = None,
) -> Any:
    """The objective of an attack on a batch, seen through a purifier where the attack knows one.

    Args:
        bench: the run.
        position: index of the attack in the specification.
        images: clean images (b, c, h, w) in [0, 1].
        labels: true labels, int64 (b,), -1 where there is none.
        seeds: int64 (b,).
        enrolled: embeddings (b, d) of the pictures that an attack on a face encoder is about.
        threshold: similarity from which that encoder's system accepts, where it is known.
        drawn: int64 (b,), the seeds with which the purifier will purify, where they are known.

    Raises:
        ModelError: for a label or target that the model has no output for.
    """
    spec = bench.spec.attacks[position]
    if bench.has_metric:
        metric: Any = bench.metric
        objective: Any = RaiseScore(metric, images if metric.needs_reference else None)
    elif bench.has_encoder:
        objective = _verification(bench, position, enrolled, threshold)
    else:
        objective = _classes(bench, position, images, labels)
    if spec.through is None:
        return objective
    purifier = bench.purifiers[bench.purifier_position(spec.through)]
    return Defended(
        objective,
        purifier,
        draws=spec.draws,
        seeds=derive_seeds(seeds, "through") if drawn is None else drawn,
        backward=spec.backward,
        known=drawn is not None,
    )


def _verification(
    bench: Workbench, position: int, enrolled: Tensor | None, threshold: float | None
) -> Impersonate | Dodge:
    if enrolled is None:
        raise ModelError(f"attacks[{position}]: expected enrolled pictures, got none")
    aim = Impersonate if bench.spec.attacks[position].aim == "impersonate" else Dodge
    return aim(bench.encoder, enrolled, threshold)


def _classes(bench: Workbench, position: int, images: Tensor, labels: Tensor) -> Any:
    spec = bench.spec.attacks[position]
    if spec.surrogates is None:
        return _class(bench, position, bench.model, images, labels)
    models = [bench.others[label] for label in spec.surrogates]
    goals = [_class(bench, position, model, images, labels) for model in models]
    return goals[0] if len(goals) == 1 else Ensemble(tuple(goals))


def _class(
    bench: Workbench, position: int, model: Any, images: Tensor, labels: Tensor
) -> Classify | Misclassify:
    spec = bench.spec.attacks[position]
    classes = bench.classes(images, model)
    check_labels(labels, classes, repr(model))
    if spec.target is not None:
        if spec.target >= classes:
            raise ModelError(
                f"attacks[{position}].target: expected a class below {classes}, got {spec.target}"
            )
        return Classify(model, torch.full_like(labels, spec.target))
    if bool((labels < 0).any()):
        with torch.no_grad():
            labels = torch.where(labels < 0, model(images).argmax(1), labels)
    return Misclassify(model, labels)


def check_labels(labels: Tensor, classes: int, model: str) -> None:
    """Refuse labels that the model has no output for.

    Raises:
        ModelError: naming the label and the number of outputs.
    """
    if int(labels.max()) >= classes:
        raise ModelError(
            f"{model} has {classes} outputs, but the dataset holds label "
            f"{int(labels.max())}; expected labels below {classes}"
        )


def stored(algorithm: Any, images: Tensor, objective: Any, seeds: Tensor) -> Tensor:
    """Attack images and round the result to 8 bits within the attack's budget.

    Args:
        algorithm: the attack.
        images: clean images (b, c, h, w) in [0, 1].
        objective: what the attack raises.
        seeds: int64 (b,).

    Returns:
        uint8 (b, c, h, w).
    """
    norm = algorithm.budget if algorithm.budget in ("linf", "l2") else None
    attacked = algorithm(images, objective, seeds=seeds)
    epsilon = getattr(algorithm, "epsilon", None)
    return quantise_within(attacked, images, norm=norm, epsilon=epsilon)
