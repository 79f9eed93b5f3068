"""The training of a quality metric, driven without Prefect on a few photographs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from defender.distortions import LEVELS
from defender.models.linearity import Linearity
from defender.quality_labels import BEST, RankScale
from defender.quality_training import QualityTraining
from storage.ledger import digest_of
from tasks.card_words import words_of
from tasks.distorted_data import DistortedData
from tasks.errors import ModelError, SpecError
from tasks.model_card import exported, weights_path
from tasks.quality_evaluation import correlation, scores_of
from tasks.quality_models import load_metric
from tasks.quality_specs import QualityRecipeSpec
from tasks.quality_task import QualityTask
from tasks.specs import DatasetSpec
from tasks.subject_specs import MetricSpec
from tasks.train_specs import QualityTrainSpec, load_train_spec
from tasks.training import Trainer
from tests.tasks import trainings
from tests.tasks.trainings import check_resumed, finish

pytest.importorskip("skimage", reason="scikit-image is not installed")

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/train-linearity.yaml"
SIDE = 176
PHOTOS = {"kind": "builtin:photos", "resize": [SIDE, SIDE], "chunk_size": 2}


def content(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "task": "quality",
        "name": "tiny",
        "seed": 1,
        "dataset": {**PHOTOS, "include": "c[aeiou]*.png"},
        "held_out": {**PHOTOS, "include": "ch*.png"},
        "model": "linearity-small",
        "distortions": ["noise", "jpeg"],
        "unseen": ["banding"],
        "training": {"epochs": 2, "peak_lr": 1e-3, "crop": 64, "average_decay": 0.5},
        "batch": 8,
        "evaluate_every": 1,
        "half": True,
        "compute": {"threads": 1, "device": "cpu"},
    }
    for name, value in changes.items():
        old = base.get(name)
        base[name] = {**old, **value} if isinstance(old, dict) and "kind" not in value else value
    return base


def trainer(folder: Path, **changes: Any) -> Trainer:
    return trainings.ready(trainings.begun(QualityTrainSpec, content(**changes), folder))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a finished training."""
    folder = tmp_path_factory.mktemp("quality")
    finish(trainer(folder))
    return folder


def test_versions_are_the_image_and_five_levels_of_each_distortion(home: Path) -> None:
    data = trainer(home).data
    assert isinstance(data, DistortedData)
    names = data.rows["name"].to_pylist()
    assert names[:: data.versions] == ["camera.png", "coffee.png", "coins.png"]
    assert (data.versions, data.images, data.count, data.rejected) == (11, 3, 33, 0)
    assert data.rows["distortion"].to_pylist()[:11] == ["pristine"] + ["noise"] * 5 + ["jpeg"] * 5
    assert data.rows["level"].to_pylist()[:11] == [0, *LEVELS, *LEVELS]
    assert len(set(data.rows["id"].to_pylist())) == 33
    images = [image for index in range(data.chunk_count) for image in data.chunk(index)]
    assert all(image.shape == (3, SIDE, SIDE) for image in images)
    damage = [float(np.abs(images[i].astype(float) - images[0]).mean()) for i in range(11)]
    assert damage[0] == 0
    assert damage[:6] == sorted(damage[:6])
    assert damage[6:] == sorted(damage[6:])


def test_labels_are_on_the_scale_of_the_training_images(home: Path) -> None:
    task = trainer(home).task
    assert isinstance(task, QualityTask)
    assert isinstance(task.data, DistortedData)
    assert isinstance(task.held_out, DistortedData)
    rows = task.data.rows
    scale = RankScale.of(*(torch.tensor(rows[name].to_pylist()) for name in ("ms_ssim", "vif")))
    for data in (task.data, task.held_out):
        found = [torch.tensor(data.rows[name].to_pylist()) for name in ("ms_ssim", "vif")]
        torch.testing.assert_close(data.labels, scale.labels(*found), rtol=0, atol=0)
        by_image = data.labels.view(data.images, data.versions)
        assert bool((by_image[:, 0] == BEST).all())
        assert bool((by_image[:, 1:] < BEST).all())
        for kind in data.distortions:
            assert bool((by_image[:, data.of_kinds([kind], pristine=False)].diff(dim=1) < 0).all())
    assert float(task.data.labels.max()) == BEST


def test_distorted_images_do_not_depend_on_their_chunks(home: Path, tmp_path: Path) -> None:
    one = trainer(home).data
    spec = DatasetSpec(**{**PHOTOS, "include": "c[aeiou]*.png", "chunk_size": 3})
    other = DistortedData(spec, tmp_path, str(tmp_path / "s"), "dataset", ["noise", "jpeg"])
    other.ingest()
    images = [
        np.stack([image for index in range(data.chunk_count) for image in data.chunk(index)])
        for data in (one, other)
    ]
    assert np.array_equal(*images)
    assert isinstance(one, DistortedData)
    assert one.rows.equals(other.rows)


def test_a_new_process_goes_on_and_makes_the_same_file(home: Path, tmp_path: Path) -> None:
    check_resumed(trainer, home, tmp_path, killed=1)


def test_nothing_is_made_twice(home: Path) -> None:
    again = trainer(home)
    assert again.ingested()
    assert again.epochs_done() == 2
    card = exported(again)
    assert card is not None
    assert exported(trainer(home, note="other")) is None


def test_the_file_is_a_metric_on_the_scale_of_the_labels(home: Path) -> None:
    training = trainer(home)
    path = weights_path(training)
    with safe_open(path, framework="pt") as file:
        stated = {name: json.loads(text) for name, text in file.metadata().items()}
        assert file.get_tensor("features.0.weight").dtype == torch.float16
    assert path.stat().st_size < 4_000_000
    metric = load_metric(
        MetricSpec(name="linearity-small", weights=str(path)), home, torch.device("cpu")
    )
    assert metric.score_range == tuple(stated["score_range"])
    assert isinstance(training.data, DistortedData)
    scores = scores_of(metric, training.data, torch.device("cpu")).flatten().double()
    labels = training.data.labels.double()
    # the least-squares line leaves residuals without a mean and without a slope
    assert float((scores - labels).mean()) == pytest.approx(0, abs=1e-3)
    slope = ((scores - scores.mean()) * labels).sum() / (scores - scores.mean()).square().sum()
    assert float(slope) == pytest.approx(1, abs=1e-3)
    low, high = np.percentile(scores.numpy(), [1, 99])
    assert metric.score_range == pytest.approx((low, high), abs=0.01)


def test_the_card_says_what_was_measured(home: Path) -> None:
    training = trainer(home)
    card = exported(training)
    assert card is not None
    metric = load_metric(
        MetricSpec(name="linearity-small", weights=str(weights_path(training))),
        home,
        torch.device("cpu"),
    )
    data = training.held_out
    assert isinstance(data, DistortedData)
    scores = scores_of(metric, data, torch.device("cpu"))
    labels = data.labels.view_as(scores)
    assert scores.shape == (1, 16)
    assert card["srocc"]["trained"] == correlation(scores[:, :11], labels[:, :11])
    unseen = torch.cat([scores[:, :1], scores[:, 11:]], 1)
    expected = correlation(unseen, torch.cat([labels[:, :1], labels[:, 11:]], 1))
    assert card["srocc"]["unseen"] == expected
    assert card["srocc"]["by_kind"].keys() == {"noise", "jpeg", "banding"}
    assert card["srocc"]["by_kind"]["jpeg"] == correlation(scores[:, 6:11], labels[:, 6:11])
    assert card["clean"] == {"images": 1, "mean": float(scores[0, 0]), "std": 0.0}
    assert card["weights"]["digest"] == metric.digest
    assert [record["held_out"] for record in card["history"]] == [
        training.seen(1),
        training.seen(2),
    ]
    words = (training.store.run("tiny") / "card.md").read_text()
    for text in (
        "metric of image quality",
        "3 images of 3 x 176 x 176 in 33 versions",
        "include ch*.png",
        "banding alone (not trained on)",
        "No person has rated these images",
        "| distortions | noise, jpeg |",
    ):
        assert text in words
    assert words_of(card).headline(card).startswith("SROCC")
    assert "SROCC" in (training.store.run("tiny") / "curves.svg").read_text()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"distortions": ["noise"]},
        {"distortions": ["jpeg", "noise"]},
        {"training": {"crop": 96}},
        {"training": {"level_weight": 0.2}},
        {"training": {"backbone_rate": 0.1}},
        {"training": {"schedule": "steps"}},
        {"training": {"schedule": "steps", "step_epochs": 1}},
        {"training": {"schedule": "steps", "decay": 0.5}},
        {"batch": 11},
    ],
)
def test_everything_that_weights_depend_on_is_in_the_fingerprint(
    home: Path, change: dict[str, Any]
) -> None:
    assert trainer(home, **change).fingerprint != trainer(home).fingerprint


@pytest.mark.parametrize("change", [{"unseen": []}, {"half": False}, {"evaluate_every": 0}])
def test_what_weights_do_not_depend_on_is_not(home: Path, change: dict[str, Any]) -> None:
    assert trainer(home, **change).fingerprint == trainer(home).fingerprint


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"distortions": ["noize"]}, r"distortions: .* got 'noize' \(did you mean noise\?\)"),
        ({"distortions": []}, "distortions: "),
        ({"unseen": ["jpeg"]}, "expected every name once, got jpeg twice"),
        (
            {"model": "linearity"},
            "model: expected one of linearity-small, linearity:mobilenet_v2, .*got 'linearity'",
        ),
        (
            {"model": "linearity:resnet19"},
            r"model: expected one of .*, linearity:resnet18, .* \(did you mean linearity:resnet18",
        ),
        ({"training": {"schedule": "cosine"}}, "training.schedule: .* got 'cosine'"),
        ({"training": {"step_epochs": 3}}, "step_epochs: expected schedule: steps beside it, got"),
        ({"initial": "resnet18.pth"}, "initial: expected none beside linearity-small"),
        ({"training": {"crop": 177}}, "training.crop: expected at most 176"),
        ({"training": {"q": 0.5}}, "training.q: .* got 0.5"),
        ({"batch": 34}, "batch: expected at most 33"),
        ({"pipeline": []}, "pipeline: unknown field"),
        ({"dataset": {**PHOTOS, "resize": [160, 200]}}, "dataset.resize: expected .* above 160"),
        ({"held_out": {**PHOTOS, "limit": 4, "resize": None}}, "held_out.resize: expected images"),
        ({"dataset": {"kind": "zip", "path": "no.zip"}}, "dataset: expected a dataset 'no.zip'"),
    ],
)
def test_mistakes_are_named_before_training(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    from storage.errors import StorageError

    with pytest.raises((SpecError, ModelError, StorageError), match=expected):
        trainer(tmp_path, **change)


def test_later_parameters_rename_no_older_training(tmp_path: Path) -> None:
    """The shipped metric's recipe, on a stand-in for its images: what its fingerprint is made of.

    The digest was taken before the recipe had any of its later parameters.
    """
    spec = load_train_spec(EXAMPLE)
    assert isinstance(spec, QualityTrainSpec)
    request = digest_of(spec.model_dump(mode="json", exclude={"compute"}))
    assert request == "3de86a4cc50eaef66015ec6f6cf6505b59cb8a54cb33c39cfa436f9ee210ce13"
    training = trainings.begun(
        QualityTrainSpec,
        content(
            training=spec.training.model_dump(),
            distortions=list(spec.distortions),
            batch=spec.batch,
            seed=spec.seed,
        ),
        tmp_path,
    )
    training.data._marks = []
    training.data.__dict__.update(digest="0" * 64, shape=(3, 299, 299))
    config = training.config
    layers = {name: config.pop(name) for name in ("layers", "shapes")}
    assert config == {
        "kind": "train",
        "rules": 1,
        "recipe": "QualityTraining(epochs=10, peak_lr=0.002, warmup=0.15, weight_decay=0.02, "
        "crop=160, flip=True, p=1.0, q=2.0, level_weight=0.1, average_decay=0.998, "
        "precision='bf16')",
        "network": "linearity-small",
        "images": "0" * 64,
        "seed": 0,
        "batch": 64,
        "window": None,
        "device": "cpu",
        "task": "quality",
        "labels": 1,
    }
    assert set(layers["shapes"]) == set(Linearity("small").state_dict())
    assert layers["layers"] == repr(Linearity("small"))


def test_the_recipe_has_every_parameter_of_the_training() -> None:
    declared = {f.name: f.default for f in dataclasses.fields(QualityTraining)}
    spec = QualityRecipeSpec(schedule="steps")
    assert declared == {**spec.model_dump(), "schedule": "one-cycle"}
    assert QualityRecipeSpec().recipe() == QualityTraining()
    assert repr(QualityRecipeSpec(backbone_rate=0.1).recipe()).endswith(
        "precision='fp32', backbone_rate=0.1)"
    )


def test_intervals_are_over_images_and_not_over_versions() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(30, 20, generator=generator)
    # the versions of two images in three are ranked as they should be, those of others backwards
    scores = torch.where(torch.arange(30)[:, None] % 3 > 0, labels, -labels)
    grouped = correlation(scores, labels)
    apart = correlation(scores.reshape(600, 1), labels.reshape(600, 1))
    assert grouped["value"] == apart["value"]
    assert (grouped["images"], grouped["versions"]) == (30, 600)
    assert grouped["ci_low"] < grouped["value"] < grouped["ci_high"]
    width, independent = (c["ci_high"] - c["ci_low"] for c in (grouped, apart))
    assert width > 2 * independent
    constant = correlation(torch.ones(3, 4), labels[:3, :4])
    assert constant["value"] is constant["ci_low"] is constant["ci_high"] is None
