"""What a trained network that purifies is worth, by the figures of an ordinary run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from defender.metrics import ssim
from defender.purifiers import Learned
from tasks.attacked_data import AttackedData, run_fields
from tasks.specs import PurifierSpec, Spec, label_of
from tasks.summary import Summary
from tasks.survey import Survey, survey
from tasks.train_specs import PurifyTrainSpec
from tasks.without_prefect import compute_left
from tasks.workbench import Workbench

LABEL = "learned"
LIKENESS = ("psnr", "ssim")
"""Figures that compare an image with the clean one."""


def judge(spec: PurifyTrainSpec, folder: Path, store: str, weights: Path) -> dict[str, Any]:
    """Purify the held-out images, attacked or not, and score them as a run does.

    Args:
        spec: the training.
        folder: folder against which the paths in it are resolved.
        store: URL of the store, which keeps the images.
        weights: the exported weights.

    Returns:
        ``digest`` of the network, ``subject``, what was attacked, ``measures``, the names of the
        figures, and these before and after purification: of clean images (``clean``), by attack
        (``attacks``) and their mean over attacks (``mean``). A figure has a value, an interval
        and a number of images; the value is None where no image has one.

    Raises:
        SpecError, ModelError, StorageError: saying what is wrong.
    """
    subject = ("gain",) if spec.classifier is None else ("accuracy",)
    stated = {"name": "Learned", "network": spec.model, "weights": str(weights), "label": LABEL}
    # in a run, an attack may say which purifiers are tried on it
    free = {"purifiers": None, "detectors": None}
    fields = run_fields(spec) | {
        "attacks": tuple(attack.model_copy(update=free) for attack in spec.attacks),
        "purifiers": (PurifierSpec.model_validate(stated),),
        "metrics": (*LIKENESS, *subject),
    }
    run = Spec(name="training", dataset=spec.held_out, **fields)
    bench = Workbench(run, folder, store)
    bench.catalogue(keep=True)
    state = survey(bench)
    compute_left(state)
    return {
        "digest": bench.purifiers[0].network.digest,
        "subject": repr(bench.metric if spec.classifier is None else bench.model),
        "measures": [*LIKENESS, *subject],
        **_figures(state),
    }


def _figures(state: Survey) -> dict[str, Any]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in Summary(state).rows():
        figure = {name: row[name] for name in ("value", "ci_low", "ci_high", "n")}
        found.setdefault((row["attack"], row["purifier"]), {})[row["metric"]] = figure

    def both(attack: str) -> dict[str, Any]:
        # nothing is told of clean images that nobody purified, but what a classifier says of them
        return {"before": found.get((attack, "none"), {}), "after": found[attack, LABEL]}

    attacks = {label: both(label) for label in map(label_of, state.bench.spec.attacks)}
    mean = {when: _mean([one[when] for one in attacks.values()]) for when in ("before", "after")}
    return {"clean": both("none"), "attacks": attacks, "mean": mean}


def _mean(parts: list[dict[str, Any]]) -> dict[str, float | None]:
    means: dict[str, float | None] = {}
    for name in parts[0]:
        values = [part[name]["value"] for part in parts if part[name]["value"] is not None]
        means[name] = sum(values) / len(values) if values else None
    return means


@torch.inference_mode()
def likeness_of(purifier: Learned, data: AttackedData) -> tuple[float, int]:
    """Mean SSIM of purified images to the clean ones, and of how many.

    Args:
        purifier: takes images on the CPU.
        data: images with what the attacks made of them, ingested.
    """
    total, n = 0.0, 0
    for clean, attacked in data.clean_and_attacked():
        seeds = torch.zeros(len(attacked), dtype=torch.int64)
        made = purifier(attacked, seeds=seeds)
        total += float(ssim(clean.expand_as(made), made).sum())
        n += len(made)
    return total / n, n
