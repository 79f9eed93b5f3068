"""The shipped classifier of X-rays, on the real test split behind each of its resizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from defender.models.scaled import Scaled
from tasks.evaluation import evaluate
from tasks.models import load_model
from tasks.subject_specs import ModelSpec
from tasks.train_specs import load_train_spec
from tasks.training_data import TrainingData

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "train-xray.yaml"
WEIGHTS = Path(__file__).resolve().parents[2] / "tasks" / "weights" / "xray-cnn.safetensors"


def test_the_weights_are_small() -> None:
    assert WEIGHTS.stat().st_size <= 5_000_000


@pytest.mark.slow
@pytest.mark.data
def test_accuracy_behind_each_resize(data: Path, tmp_path: Path) -> None:
    spec = load_train_spec(EXAMPLE, [f"held_out.path={data / 'chest_xray.zip'}"])
    images = TrainingData(spec.held_out, tmp_path, str(tmp_path / "store"), "held_out")
    images.ingest()
    model = load_model(ModelSpec(name="xray-cnn"), tmp_path, torch.device("cpu"))
    for pipeline in spec.pipelines:
        tally = evaluate(Scaled(model, pipeline), images, torch.device("cpu"))
        assert tally.images == (234, 390)
        assert tally.accuracy()["value"] >= 0.88, pipeline
        assert tally.balanced_accuracy()["value"] >= 0.85, pipeline
