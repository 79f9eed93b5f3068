"""Small trainings of networks that purify, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from tasks.train_specs import PurifyTrainSpec
from tasks.training import Trainer
from tests import cases
from tests.merging import merged
from tests.tasks import trainings

SHAPES = {"kind": "builtin:shapes", "chunk_size": 16}
ATTACKS = [
    {"name": "IFGSM", "epsilon": "16/255", "step_size": "8/255", "steps": 3, "label": "ifgsm"},
    {"name": "Corruption", "kind": "jpeg", "quality": 30, "label": "jpeg"},
]


def make_metric() -> nn.Module:
    return cases.SmoothQuality()


def shrinking() -> nn.Module:
    return nn.Conv2d(3, 3, 3)


def content(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "task": "purify",
        "name": "tiny",
        "seed": 2,
        "dataset": {**SHAPES, "split": "train", "count": 40},
        "held_out": {**SHAPES, "split": "test", "count": 20},
        "metric": "python:tests.tasks.purify_training:make_metric",
        "attacks": ATTACKS,
        "model": "residual-fcn",
        "training": {"epochs": 3, "peak_lr": 3e-3, "crop": 24, "average_decay": 0.8},
        "batch": 8,
        "evaluate_every": 2,
        "compute": {"threads": 1, "device": "cpu"},
    }
    return merged(base, changes)


def begun(folder: Path, **changes: Any) -> Trainer:
    return trainings.begun(PurifyTrainSpec, content(**changes), folder)


def trainer(folder: Path, **changes: Any) -> Trainer:
    return trainings.ready(begun(folder, **changes))
