"""A training of seconds on built-in images, driven without Prefect."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from tasks.model_card import weights_path
from tasks.spec_files import parse
from tasks.train_specs import TrainSpec
from tasks.training import Trainer
from tests.merging import merged
from tests.tasks import trainings

EPOCHS = 3
COUNT = 300
BATCH = 50


def content(**changes: Any) -> dict[str, Any]:
    """A specification over 300 images; a mapping changes the fields it names."""
    base: dict[str, Any] = {
        "name": "small",
        "seed": 3,
        "dataset": {
            "kind": "builtin:shapes",
            "split": "train",
            "count": COUNT,
            "chunk_size": 64,
        },
        "held_out": {"kind": "builtin:shapes", "count": 60, "chunk_size": 32},
        "model": "shapes-cnn",
        "training": {"epochs": EPOCHS, "peak_lr": 0.05, "padding": 2, "cutout": 4},
        "batch": BATCH,
        "compute": {"threads": 1, "device": "cpu"},
    }
    return merged(base, changes)


def write_spec(folder: Path, **changes: Any) -> Path:
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(content(**changes)))
    return path


def trainer(folder: Path, **changes: Any) -> Trainer:
    """A trainer on a store in ``folder``, as a new process would make it."""
    spec = parse(TrainSpec, content(**changes), "spec")
    return trainings.ready(Trainer(spec, folder, str(folder / "store")))


def finish(training: Trainer) -> bytes:
    """Train what is left, export, and return the bytes of the weights."""
    trainings.finish(training)
    return weights_path(training).read_bytes()


def main(folder: str) -> None:
    """Train in a process of its own that says on its output where it is."""
    training = trainer(Path(folder))
    training.listener = lambda stage, done, total: print(f"{stage} {done}", flush=True)
    for epoch in range(training.epochs_done() + 1, EPOCHS + 1):
        training.advance(epoch)
        print(f"epoch {epoch}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
