"""Trainings of quality metrics on people's opinions: a table of scores beside a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open

from tasks.card_words import words_of
from tasks.model_card import exported, weights_path
from tasks.quality_evaluation import all_scores, correlation, pearson
from tasks.quality_models import load_metric
from tasks.spec_files import parse
from tasks.subject_specs import MetricSpec
from tasks.train_specs import QualityTrainSpec, train_spec_of
from tests.tasks.rated_pictures import draw, write_table
from tests.tasks.rated_training import ARCH, CPU, TABLE, content, trainer
from tests.tasks.trainings import check_resumed, finish


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a finished training."""
    folder = tmp_path_factory.mktemp("rated")
    finish(trainer(folder))
    return folder


def test_a_new_process_goes_on_and_makes_the_same_file(home: Path, tmp_path: Path) -> None:
    check_resumed(trainer, home, tmp_path, killed=1)


def test_the_file_is_a_metric_on_the_scale_of_the_scores(home: Path) -> None:
    training = trainer(home)
    path = weights_path(training)
    with safe_open(path, framework="pt") as file:
        stated = {name: json.loads(text) for name, text in file.metadata().items()}
        assert file.get_tensor("features.0.0.weight").dtype == torch.float16
    metric = load_metric(MetricSpec(name=f"linearity:{ARCH}", weights=str(path)), home, CPU)
    assert set(stated) == {"k", "b", "score_range"}
    assert metric.score_range == tuple(stated["score_range"])
    scores = all_scores(metric, training.data, CPU).double()
    residual = scores - training.data.labels
    # the least-squares line leaves residuals without a mean and without a slope; after four steps
    # the output hardly varies yet, so that k is large and float32 rounds k times the output
    rounding = abs(stated["b"]) * 2.0**-22 + 1e-6
    assert rounding < 0.05 * float(training.data.labels.std())
    assert float(residual.mean()) == pytest.approx(0, abs=rounding)
    assert float((residual * (scores - scores.mean())).mean()) == pytest.approx(0, abs=rounding)
    low, high = np.percentile(scores.numpy(), [1, 99])
    assert metric.score_range == pytest.approx((low, high), abs=0.01)


def test_the_card_says_what_was_measured(home: Path) -> None:
    training = trainer(home)
    card = exported(training)
    assert card is not None
    path = str(weights_path(training))
    metric = load_metric(MetricSpec(name=f"linearity:{ARCH}", weights=path), home, CPU)
    scores, labels = all_scores(metric, training.held_out, CPU), training.held_out.labels
    assert card["srocc"] == correlation(scores[:, None], labels[:, None])
    assert card["plcc"]["value"] == pytest.approx(np.corrcoef(scores, labels)[0, 1])
    assert card["rmse"] == pytest.approx(np.sqrt(np.mean((scores - labels).numpy() ** 2)))
    assert card["opinions"] == {
        "table": "scores.csv",
        "column": "MOS",
        "rows": 24,
        "scale": [float(training.data.labels.min()), float(training.data.labels.max())],
        "unrated": 0,
        "unknown": 0,
    }
    assert card["weights"]["digest"] == metric.digest
    assert card["held_out"]["images"] == 4
    assert [r["held_out"] for r in card["history"]] == [training.seen(1), training.seen(2)]
    words = (training.store.run("rated") / "card.md").read_text()
    for text in (
        "on people's opinions",
        "| SROCC on held-out images |",
        "column MOS of `scores.csv`, 24 rows",
        "| schedule | steps |",
        "| backbone rate | 0.1 |",
    ):
        assert text in words
    assert "passed over" not in words
    assert words_of(card).headline(card).startswith("SROCC")


@pytest.mark.parametrize(
    "change",
    [
        {"opinions": {**TABLE, "held_out": "validation"}},
        {"half": False},
        {"note": "other"},
        {"opinions": {**TABLE, "partial": True}},
    ],
)
def test_what_weights_do_not_depend_on_is_not_in_the_fingerprint(
    home: Path, change: dict[str, Any]
) -> None:
    assert trainer(home, **change).fingerprint == trainer(home).fingerprint
    assert exported(trainer(home, **change)) is None


@pytest.mark.parametrize(
    "change",
    [
        {"training": {"backbone_rate": 0.2}},
        {"training": {"decay": 0.5}},
        {"opinions": {**TABLE, "dataset": "validation"}, "batch": 4},
        {"model": "linearity:small"},
    ],
)
def test_everything_that_weights_depend_on_is(home: Path, change: dict[str, Any]) -> None:
    assert trainer(home, **change).fingerprint != trainer(home).fingerprint


def test_scores_are_part_of_what_is_learned_and_their_file_is_not(
    home: Path, tmp_path: Path
) -> None:
    text = (home / "scores.csv").read_text()
    (home / "same.csv").write_text(text.replace("\n", "\r\n"))
    columns = list(zip(*(line.split(",") for line in text.split()[1:]), strict=True))
    scores = [float(score) for score in columns[1]]
    pq.write_table(
        pa.table({"image_name": columns[0], "MOS": scores, "set": columns[2], "SD": scores}),
        home / "scores.parquet",
    )
    ours = trainer(home)
    for name in ("same.csv", "scores.parquet"):
        other = trainer(home, opinions={**TABLE, "path": name})
        assert other.fingerprint == ours.fingerprint
    first, second, *rest = text.split("\n")
    name, score, part = second.split(",")
    (home / "new.csv").write_text("\n".join([first, f"{name},{float(score) + 0.01},{part}", *rest]))
    other = trainer(home, opinions={**TABLE, "path": "new.csv"})
    assert other.fingerprint != ours.fingerprint
    assert other.held_out.digest == ours.held_out.digest


def test_the_specification_survives_json() -> None:
    spec = parse(QualityTrainSpec, content(), "spec")
    assert spec.held_out == spec.dataset
    assert train_spec_of(spec.model_dump_json()) == spec


def test_pearson_is_that_of_numpy() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 50))
    assert pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert np.isnan(pearson(x, np.ones(50)))


@pytest.mark.slow
def test_it_learns_what_people_say(tmp_path: Path) -> None:
    rows = draw(tmp_path / "pictures", 120, 64, seed=5)
    write_table(tmp_path / "scores.csv", rows)
    training = trainer(
        tmp_path,
        model="linearity:resnet18",
        dataset={"exclude": "*[05].png", "chunk_size": 64},
        held_out={"kind": "folder", "path": "pictures", "include": "*[05].png"},
        opinions={**TABLE, "split": None},
        training={
            "epochs": 3,
            "schedule": "one-cycle",
            "step_epochs": 10,
            "backbone_rate": 0.5,
            "average_decay": 0.0,
        },
        evaluate_every=0,
    )
    card = finish(training)
    losses = [record["loss"] for record in card["history"]]
    assert losses[-1] < 0.7 * losses[0]
    assert card["held_out"]["images"] == 24
    metric = load_metric(
        MetricSpec(name="linearity:resnet18", weights=str(weights_path(training))), tmp_path, CPU
    )
    scores = all_scores(metric, training.held_out, CPU)
    found = correlation(scores[:, None], training.held_out.labels[:, None])
    assert found == card["srocc"]
    assert found["ci_low"] > 0.3
    assert 0 < metric.score_range[0] < metric.score_range[1] < 6
