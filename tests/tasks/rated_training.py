"""Trainings of seconds on pictures with opinions, driven without Prefect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tasks.rated_data import RatedData
from tasks.train_specs import QualityTrainSpec
from tasks.training import Trainer
from tests.merging import merged
from tests.tasks import trainings
from tests.tasks.rated_pictures import draw, write_table

CPU = torch.device("cpu")
ARCH = "mobilenet_v3_small"
COUNT, SIDE = 24, 32
TABLE = {"path": "scores.csv", "name": "image_name", "score": "MOS", "split": "set"}
SETS = ("training", "training", "training", "test", "training", "validation")


def content(**changes: Any) -> dict[str, Any]:
    """A specification over the pictures of :func:`prepare`; mappings change single fields."""
    base: dict[str, Any] = {
        "task": "quality",
        "name": "rated",
        "seed": 1,
        "dataset": {"kind": "folder", "path": "pictures", "chunk_size": 10},
        "model": f"linearity:{ARCH}",
        "opinions": TABLE,
        "training": {
            "epochs": 2,
            "peak_lr": 1e-3,
            "backbone_rate": 0.1,
            "schedule": "steps",
            "step_epochs": 1,
            "average_decay": 0.5,
        },
        "batch": 8,
        "evaluate_every": 1,
        "half": True,
        "compute": {"threads": 1, "device": "cpu"},
    }
    return merged(base, changes)


def prepare(folder: Path) -> Path:
    """Pictures and a table with a column of sets, unless they are there."""
    if not (folder / "pictures").exists():
        rows = draw(folder / "pictures", COUNT, SIDE)
        split = [(*row, SETS[number % len(SETS)]) for number, row in enumerate(rows)]
        write_table(folder / "scores.csv", split, ("image_name", "MOS", "set"))
    return folder


def trainer(folder: Path, **changes: Any) -> Trainer:
    """A training that is ready to begin, as a new process would make it."""
    return trainings.ready(trainings.begun(QualityTrainSpec, content(**changes), prepare(folder)))


def rated(training: Trainer, *, held_out: bool = False) -> RatedData:
    """The images to learn from, or the held-out ones."""
    data = training.held_out if held_out else training.data
    assert isinstance(data, RatedData)
    return data


def begun(folder: Path, **changes: Any) -> Trainer:
    """A training of which nothing has been decoded, in a folder as it is."""
    return trainings.begun(QualityTrainSpec, content(**changes), folder)
