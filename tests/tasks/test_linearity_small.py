"""What the shipped metric of image quality is worth, on photographs it was not trained on."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest
import torch

from defender.distortions import TRAINED
from tasks.distorted_data import DistortedData
from tasks.quality_evaluation import correlation, scores_of
from tasks.quality_models import load_metric
from tasks.specs import DatasetSpec
from tasks.subject_specs import MetricSpec
from tasks.train_specs import QualityTrainSpec, load_train_spec

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/train-linearity.yaml"
PHOTOGRAPHS = 30


def card() -> str:
    return resources.files("tasks").joinpath("weights", "linearity-small.md").read_text()


def test_the_card_is_that_of_the_file_and_of_the_example() -> None:
    weights = resources.files("tasks").joinpath("weights", "linearity-small.safetensors")
    data = weights.read_bytes()
    assert len(data) < 10_000_000
    assert f"float16, {len(data):,} bytes" in card()
    spec = load_train_spec(EXAMPLE)
    assert isinstance(spec, QualityTrainSpec)
    assert spec.distortions == TRAINED
    assert f"| epochs | {spec.training.epochs} |" in card()
    assert f"| crop | {spec.training.crop} |" in card()
    assert f"exclude {spec.dataset.exclude}" in card()


@pytest.mark.slow
@pytest.mark.data
def test_it_ranks_held_out_photographs(data: Path, tmp_path: Path) -> None:
    spec = load_train_spec(EXAMPLE)
    held_out = {
        **spec.held_out.model_dump(),
        "path": str(data / "imagenet_samples.zip"),
        "limit": PHOTOGRAPHS,
    }
    versions = DistortedData(
        DatasetSpec(**held_out), tmp_path, str(tmp_path / "store"), "held_out", TRAINED
    )
    versions.ingest()
    assert versions.images == PHOTOGRAPHS
    metric = load_metric(MetricSpec(name="linearity-small"), tmp_path, torch.device("cpu"))
    scores = scores_of(metric, versions, torch.device("cpu"))
    # ranks among themselves, in the place of those among the training images
    labels = versions.labels.view_as(scores)
    found = correlation(scores, labels)
    assert found["value"] >= 0.9
    stated = re.search(r"held-out images, pristine and under blur.* \| (0\.\d+) ", card())
    assert stated
    assert found["value"] == pytest.approx(float(stated[1]), abs=0.03)
    by_level = scores[:, 1:].view(PHOTOGRAPHS, len(TRAINED), 5).mean(0)
    assert bool((by_level.diff(dim=1) < 0).all()), "worse at every level, on average"
