"""What a training of a network that purifies refuses, and when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.errors import ModelError, SpecError
from tasks.spec_files import parse
from tasks.train_specs import PurifyTrainSpec
from tests.tasks.purify_training import ATTACKS, begun, content, trainer


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the images of a training."""
    folder = tmp_path_factory.mktemp("purify")
    trainer(folder)
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attacks": []}, "attacks: .* at least 1 item"),
        ({"metric": None}, "metric, classifier: expected one of the two, got neither"),
        ({"classifier": {"name": "shapes-cnn"}}, "expected one of the two, got both"),
        ({"training": {"crops": 3}}, r"training.crops: unknown field \(did you mean crop\?\)"),
        ({"training": {"clean": 1.0}}, "training.clean: .* got 1.0"),
        ({"attack": ATTACKS}, r"attack: unknown field \(did you mean attacks\?\)"),
    ],
)
def test_mistakes_in_the_specification_name_the_field(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse(PurifyTrainSpec, content(**changes), "spec")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model": "fnc"}, ModelError, r"model: expected one of fcn, .*denoiser, python.*'fnc'"),
        ({"metric": "smooth"}, ModelError, "metric.name: expected one of"),
        (
            {"metric": None, "classifier": {"name": "shapes"}},
            ModelError,
            "classifier.name: expected one of",
        ),
        ({"attacks": ["IFGMS"]}, SpecError, r"attacks\[0\].name: .*did you mean IFGSM\?"),
        (
            {"attacks": [{**ATTACKS[0], "step": 2}]},
            SpecError,
            r"attacks\[0\].step: unknown parameter of IFGSM",
        ),
        (
            {"attacks": [{**ATTACKS[0], "through": "jpeg"}]},
            SpecError,
            "attacks.through: expected the label of a purifier, got 'jpeg'",
        ),
    ],
)
def test_mistakes_show_before_images_are_decoded(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        begun(tmp_path, **changes).check()


def test_attacks_of_one_label_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"attacks\[1\].label: expected a label of its own"):
        begun(tmp_path, attacks=[ATTACKS[0], ATTACKS[0]])


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"training": {"crop": 33}}, SpecError, "training.crop: expected at most 32, .* got 33"),
        (
            {"training": {"crop": 8, "ssim_weight": 1.0}},
            SpecError,
            "training.ssim_weight: expected 0 for images of 8 pixels",
        ),
        (
            {"model": "python:tests.tasks.purify_training:shrinking"},
            ModelError,
            r"model: python:.*shrinking cannot purify images \(3, 32, 32\): network: expected",
        ),
        ({"batch": 41}, SpecError, "batch: expected at most 40"),
    ],
)
def test_images_that_do_not_suit_are_refused(
    home: Path, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        trainer(home, **changes)


def test_images_of_other_channels_are_refused(home: Path) -> None:
    held_out = {**content()["held_out"], "colour": "grey"}
    training = begun(home, held_out=held_out, attacks=ATTACKS[1:])
    training.ingest("dataset")
    training.ingest("held_out")
    with pytest.raises(SpecError, match=r"held_out\.colour: expected images of 3 channels, got 1"):
        training.check_images()
