"""Trainings of face encoders: people, resumption, the exported file, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.encoders import load_encoder, make_network
from tasks.errors import ModelError, SpecError
from tasks.face_evaluation import compared, figures
from tasks.model_card import exported, in_words, weights_path
from tasks.models import read_state
from tasks.spec_files import parse
from tasks.subject_specs import EncoderSpec
from tasks.train_specs import FaceTrainSpec, kind_of, train_spec_of
from tasks.training import Trainer
from tests.merging import merged
from tests.tasks import trainings
from tests.tasks.trainings import check_resumed, finish

PEOPLE = ("ann", "bob", "cleo", "dan", "eve", "finn", "gil")
PICTURES = 6
SIDE = 16


def draw(folder: Path) -> None:
    """Pictures of people: everybody has a texture of their own, and every picture noise."""
    generator = np.random.default_rng(0)
    for person in PEOPLE:
        texture = generator.integers(60, 196, (4, 4)).repeat(5, axis=0).repeat(5, axis=1)
        (folder / person).mkdir(parents=True)
        for number in range(PICTURES):
            noise = generator.normal(0, 12, texture.shape)
            pixels = np.clip(texture + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / person / f"{number}.png")


def content(**changes: Any) -> dict[str, Any]:
    faces = {"kind": "folder", "path": "faces", "colour": "grey", "chunk_size": 16}
    base: dict[str, Any] = {
        "task": "face",
        "name": "tiny",
        "seed": 1,
        "dataset": {**faces, "exclude": "[efg]*"},
        "held_out": {**faces, "include": "[efg]*"},
        "model": {"name": "mobilefacenet", "side": SIDE, "flip": True},
        "training": {"epochs": 4, "peak_lr": 2e-3, "scale": 8, "margin": 0.1, "average_decay": 0.5},
        "batch": 12,
        "evaluate_every": 2,
        "half": True,
        "compute": {"threads": 1, "device": "cpu"},
    }
    return merged(base, changes)


def trainer(folder: Path, **changes: Any) -> Trainer:
    if not (folder / "faces").exists():
        draw(folder / "faces")
    return trainings.ready(trainings.begun(FaceTrainSpec, content(**changes), folder))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a finished training."""
    folder = tmp_path_factory.mktemp("faces")
    finish(trainer(folder))
    return folder


def test_training_learns_and_looks_at_people_never_seen(home: Path) -> None:
    training = trainer(home)
    card = exported(training)
    assert card is not None
    losses = [record["loss"] for record in card["history"]]
    assert losses[-1] < losses[0]
    assert [record["held_out"] is not None for record in card["history"]] == [False, True] * 2
    figures = card["verification"]
    assert card["people"] == 4
    assert (figures["people"], figures["images"]) == (3, 18)
    assert (figures["genuine"], figures["impostor"]) == (3 * 15, 3 * 36)
    assert set(figures["tar"]) == {"0.01"}
    # textures under noise are told apart by their pixels
    assert figures["pixels"] > 0.99
    low, high = figures["roc_auc"]["ci_low"], figures["roc_auc"]["ci_high"]
    assert low <= figures["roc_auc"]["value"] <= high
    text = in_words(card)
    assert "| ROC-AUC of pairs of 3 people never seen |" in text
    assert "16 x 16, normalisation imagenet, fit stretch, scale 1, mirror image added" in text


def test_the_file_is_an_encoder_without_its_head(home: Path) -> None:
    path = weights_path(trainer(home))
    state = read_state(path)
    wanted = make_network("mobilefacenet", SIDE).state_dict()
    assert set(state) == set(wanted)
    assert state["conv3.weight"].dtype == torch.float16
    card = exported(trainer(home))
    assert card is not None
    spec = EncoderSpec(name="mobilefacenet", side=SIDE, weights=str(path), flip=True)
    encoder = load_encoder(spec, home, torch.device("cpu"))
    assert encoder.digest == card["weights"]["digest"]


def test_a_new_process_goes_on_and_makes_the_same_file(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "faces", tmp_path / "faces")
    check_resumed(trainer, home, tmp_path, killed=2)


def test_a_training_may_start_from_weights(home: Path) -> None:
    start = str(weights_path(trainer(home)))
    fresh, further = trainer(home), trainer(home, name="further", model={"weights": start})
    assert fresh.fingerprint != further.fingerprint
    expected = read_state(Path(start))["conv3.weight"].float()
    assert torch.equal(further.task.network().state_dict()["conv3.weight"], expected)


def test_the_specification_survives_json() -> None:
    spec = parse(FaceTrainSpec, content(), "spec")
    assert train_spec_of(spec.model_dump_json()) == spec
    assert kind_of(content(), "spec") is FaceTrainSpec


def test_people_on_both_sides_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"held_out: expected people who are not in dataset, got 1"):
        trainer(tmp_path, held_out={"include": "[defg]*"})
    with pytest.raises(SpecError, match=r"held_out: expected two people or more .* of 1"):
        trainer(tmp_path, held_out={"include": "g*"})


def test_what_does_not_fit_is_named_as_in_the_specification(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model.name: expected one of .*, got 'vgg'"):
        trainer(tmp_path, model={"name": "vgg"})
    with pytest.raises(ModelError, match=r"model.side: side: expected a multiple of 16, got 20"):
        trainer(tmp_path, model={"side": 20})
    with pytest.raises(ModelError, match=r"model.weights: expected a file, got .*absent.pt"):
        trainer(tmp_path, model={"weights": "absent.pt"})
    with pytest.raises(SpecError, match=r"training.margin"):
        parse(FaceTrainSpec, content(training={"margin": -1}), "spec")


def plane() -> tuple[torch.Tensor, torch.Tensor]:
    """Two pictures of each of three people in the plane, and whom they show."""
    angles = torch.tensor([0.0, 0.1, 1.0, 1.6, 2.0, 2.3])
    return torch.stack([angles.cos(), angles.sin()], dim=1), torch.tensor([7, 7, 2, 2, 5, 5])


def test_figures_by_hand() -> None:
    found = figures(compared(*plane()), 6)
    # differences of angles 0.1, 0.6, 0.3 are genuine; impostor ones below 0.6: 0.4 (of 1.6 and 2.0)
    assert (found["people"], found["images"]) == (3, 6)
    assert (found["genuine"], found["impostor"]) == (3, 12)
    area = found["roc_auc"]
    assert area["value"] == pytest.approx(1 - 1 / 36)
    assert 0.5 < area["ci_low"] <= area["value"] <= area["ci_high"] <= 1.0
    # no rate can be told from twelve impostor pairs
    assert found["tar"] == {}


def test_more_images_than_are_compared_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.face_evaluation.MOST_IMAGES", 4)
    pairs = compared(*plane())
    assert (figures(pairs, 6)["images"], len(pairs.similarity)) == (4, 6)


def test_no_interval_where_nobody_is_an_impostor() -> None:
    area = figures(compared(torch.eye(2)[torch.tensor([0, 0, 1])], torch.zeros(3)), 3)["roc_auc"]
    assert all(np.isnan([area["value"], area["ci_low"], area["ci_high"]]))
