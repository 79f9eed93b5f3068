from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from defender.scaling import Pipeline
from defender.training import ClassifierTraining
from tasks.errors import SpecError
from tasks.spec_files import parse
from tasks.train_specs import RecipeSpec, TrainSpec, load_train_spec
from tests.tasks import small_training as small

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_the_recipe_has_every_parameter_of_the_training() -> None:
    declared = {f.name: f.default for f in dataclasses.fields(ClassifierTraining)}
    assert declared == RecipeSpec().model_dump()
    assert RecipeSpec(epochs=3).recipe() == ClassifierTraining(epochs=3)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"name": "data"}, "name: expected another name"),
        ({"name": "a/b"}, "name: "),
        ({"seed": -1}, "seed: .* got -1"),
        ({"batch": 0}, "batch: .* got 0"),
        ({"bach": 1}, r"bach: unknown field \(did you mean batch\?\)"),
        ({"training": {"epochs": 0}}, "training.epochs: .* got 0"),
        ({"training": {"peek_lr": 1}}, r"training.peek_lr: unknown field \(did you mean peak_lr"),
        ({"training": {"momentum": 1.0}}, "training.momentum: .* got 1.0"),
        ({"training": {"precision": "fp8"}}, "training.precision: .* got 'fp8'"),
        ({"training": {"class_weights": "some"}}, "training.class_weights: .* got 'some'"),
        ({"training": {"rotation": -1}}, "training.rotation: .* got -1"),
        ({"pipeline": [{"target": "8x8"}, {"target": "9x9"}]}, "pipeline: expected pipelines of"),
        ({"pipeline": {"algorithm": "bicubic", "target": "8x8"}}, "pipeline.*algorithm: expected"),
        ({"compute": {"threads": 0}}, "compute.threads: .* got 0"),
        ({"compute": {"treads": 1}}, "compute.treads: unknown field .*; expected one of device"),
        ({"out": "a/b.safetensors"}, "out: expected a file name that ends in .safetensors"),
        ({"out": "weights.pt"}, "out: expected a file name"),
        ({"model": {"name": "shapes-cnn", "weights": "w.pt"}}, "model.weights: unknown field"),
        ({"model": {"name": "shapes-cnn", "std": [0.1, 0.0, 1.0]}}, "model.std: expected numbers"),
        ({"held_out": {"kind": "zip", "limit": 0}}, "held_out.limit: .* got 0"),
        ({"held_out": None}, "held_out: "),
    ],
)
def test_every_mistake_names_its_field(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(SpecError, match=expected):
        parse(TrainSpec, small.content(**change), "spec")


def test_a_missing_field_is_named() -> None:
    content = small.content()
    del content["held_out"]
    with pytest.raises(SpecError, match="spec: held_out: expected a value, got nothing"):
        parse(TrainSpec, content, "spec")


def test_assignments_change_the_file(tmp_path: Path) -> None:
    path = small.write_spec(tmp_path)
    spec = load_train_spec(path, ["training.epochs=7", "half=true", "dataset.limit=20"])
    assert (spec.training.epochs, spec.half, spec.dataset.limit) == (7, True, 20)
    with pytest.raises(SpecError, match="expected a specification file"):
        load_train_spec(tmp_path / "no.yaml")


def test_one_pipeline_or_several() -> None:
    resize = {"algorithm": "area", "target": "8x8"}
    one = parse(TrainSpec, small.content(pipeline=resize), "s")
    assert one == parse(TrainSpec, small.content(pipeline=[resize]), "s")
    assert one.pipelines == (Pipeline("opencv", "area", target=(8, 8)),)
    assert parse(TrainSpec, small.content(), "s").pipelines == ()


def test_later_parameters_rename_no_older_recipe() -> None:
    """The text is part of the fingerprint of trainings whose checkpoints are in stores."""
    assert repr(RecipeSpec(epochs=30, precision="bf16").recipe()) == (
        "ClassifierTraining(epochs=30, peak_lr=0.2, momentum=0.9, weight_decay=0.0005, "
        "bias_rate=1.0, label_smoothing=0.1, warmup=0.2, padding=4, flip=True, cutout=8, "
        "average_decay=0.998, precision='bf16')"
    )
    assert repr(RecipeSpec(zoom=0.1, class_weights="balanced").recipe()).endswith(
        "precision='fp32', zoom=0.1, class_weights='balanced')"
    )


def test_file_name_of_the_weights() -> None:
    assert parse(TrainSpec, small.content(), "s").weights_name == "small.safetensors"
    named = parse(TrainSpec, small.content(out="w.safetensors"), "s")
    assert named.weights_name == "w.safetensors"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("train-*.yaml")), ids=lambda p: p.name)
def test_examples_are_valid(path: Path) -> None:
    spec = load_train_spec(path)
    assert spec.weights_name == f"{spec.name}.safetensors"
