from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from tasks.classifier_task import ClassifierTask
from tasks.model_card import export, exported, weights_path
from tasks.models import load_model
from tasks.subject_specs import ModelSpec
from tasks.training import Trainer
from tasks.training_tasks import Card
from tests.tasks import small_training as small


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a finished training."""
    folder = tmp_path_factory.mktemp("card")
    small.finish(small.trainer(folder, evaluate_every=2))
    return folder


def training(home: Path, **changes: object) -> Trainer:
    return small.trainer(home, evaluate_every=2, **changes)


@pytest.fixture
def card(home: Path) -> Card:
    return export(training(home))


def test_the_weights_load_as_any_model_does(home: Path, card: Card) -> None:
    trainer = training(home)
    spec = ModelSpec(name="shapes-cnn", weights=str(weights_path(trainer)))
    model = load_model(spec, home, torch.device("cpu"))
    assert repr(model) == f"shapes-cnn@{card['weights']['digest'][:12]}"
    assert isinstance(trainer.task, ClassifierTask)
    (seen,) = trainer.task.evaluate(model, trainer.device)
    accuracy = card["held_out_accuracy"]
    assert (accuracy["correct"], accuracy["n"]) == (seen.right, seen.n)
    assert seen.n == 60
    assert accuracy["ci_low"] <= accuracy["value"] == seen.right / seen.n <= accuracy["ci_high"]


def test_the_weights_are_the_average_under_the_names_of_the_network(home: Path) -> None:
    trainer = training(home)
    export(trainer)
    tensors = load(weights_path(trainer).read_bytes())
    state, _ = trainer.final_state()
    assert set(tensors) == set(trainer.task.network().state_dict())
    for name, value in tensors.items():
        torch.testing.assert_close(value, state.average[f"network.{name}"], rtol=0, atol=0)


def test_half_precision_is_half_the_size_and_needs_no_training(home: Path) -> None:
    plain = export(training(home))
    trainer = training(home, half=True, name="half")
    assert trainer.epochs_done() == small.EPOCHS
    card = export(trainer)
    assert card["weights"]["type"] == "float16"
    assert card["weights"]["bytes"] < 0.6 * plain["weights"]["bytes"]
    kinds = {v.dtype for v in load(weights_path(trainer).read_bytes()).values()}
    assert kinds == {torch.float16, torch.int64}
    assert abs(card["held_out_accuracy"]["value"] - plain["held_out_accuracy"]["value"]) < 0.05


def test_the_same_state_gives_the_same_files(home: Path, card: Card) -> None:
    trainer = training(home)
    folder = trainer.store.run("small")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert export(training(home)) == card
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert set(before) == {
        "small.safetensors",
        "card.json",
        "card.md",
        "curves.svg",
        "training.json",
    }


def test_the_card_says_what_was_done(home: Path, card: Card) -> None:
    folder = training(home).store.run("small")
    assert json.loads((folder / "card.json").read_text()) == card
    assert card["parameters"] == 29066
    assert card["dataset"]["images"] == 300
    assert card["dataset"]["rejected"] == 0
    assert len(card["dataset"]["digest"]) == 64
    assert card["seconds"]["train"] > 0
    assert [record["epoch"] for record in card["history"]] == [1, 2, 3]
    assert [record["held_out"] is None for record in card["history"]] == [True, False, False]
    words = (folder / "card.md").read_text()
    for text in ("# small", "29,066", "300 images of 3 x 32 x 32", "95 % interval", "peak lr"):
        assert text in words
    assert card["weights"]["sha256"] in words
    assert (folder / "curves.svg").read_text().count("<svg") == 1


@pytest.mark.parametrize("name", ["small.safetensors", "card.json", "curves.svg", "training.json"])
def test_damaged_outputs_do_not_count(home: Path, card: Card, name: str) -> None:
    trainer = training(home)
    assert exported(trainer) == card
    path = trainer.store.run("small") / name
    path.write_bytes(path.read_bytes()[:-2] + b"??")
    assert exported(trainer) is None
    path.unlink()
    assert exported(trainer) is None
    export(trainer)
    assert exported(trainer) == card


def test_other_wishes_are_other_outputs(home: Path, card: Card) -> None:
    assert exported(training(home)) == card
    assert exported(training(home, half=True)) is None
    other = {"kind": "builtin:shapes", "count": 50, "chunk_size": 32}
    assert exported(training(home, held_out=other)) is None
    assert exported(training(home, compute={"threads": 2})) == card


def test_the_card_has_the_figures_behind_each_pipeline(home: Path) -> None:
    resizes = [{"algorithm": name, "target": "16x16"} for name in ("nearest", "area")]
    trainer = small.trainer(
        home, name="resized", pipeline=resizes, note="Chosen beforehand.", training={"epochs": 1}
    )
    small.finish(trainer)
    card = export(trainer)
    first, second = card["held_out_behind"]
    assert (first["pipeline"], second["pipeline"]) == (
        "opencv nearest 16x16",
        "opencv area 16x16",
    )
    assert card["held_out_accuracy"] == first["accuracy"]
    for figures in (first, second):
        balanced = figures["balanced_accuracy"]
        # six images of each of the ten classes, so the mean of the recalls is the accuracy
        assert balanced["value"] == pytest.approx(figures["accuracy"]["value"])
        assert balanced["value"] == pytest.approx(sum(balanced["recalls"].values()) / 10)
    assert exported(trainer) == card
    words = (trainer.store.run("resized") / "card.md").read_text()
    for text in ("held-out images, opencv nearest 16x16", "opencv area", "Chosen beforehand."):
        assert text in words
