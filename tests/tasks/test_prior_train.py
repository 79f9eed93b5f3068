"""The training of a diffusion model, driven without Prefect on a few small images."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from defender.diffusion.sampling import sample
from defender.metrics import psnr
from defender.noise import derive_seeds, normal
from defender.prior_training import PriorTraining
from defender.purifiers import Median
from flows.train_progress import TrainProgress
from tasks import prior_evaluation
from tasks.card_words import words_of
from tasks.errors import ModelError, SpecError
from tasks.model_card import export, exported, weights_path
from tasks.prior_evaluation import SIGMAS, denoising_psnr
from tasks.priors import load_prior
from tasks.train_specs import PriorRecipeSpec, PriorTrainSpec
from tasks.training import Trainer
from tests import toy
from tests.defender.priors import PointPrior, of
from tests.merging import merged
from tests.tasks import trainings
from tests.tasks.trainings import check_resumed, finish

SHAPES = {"kind": "builtin:shapes", "chunk_size": 16}
FACTORY = "python:tests.defender.priors:tiny_network"
CPU = torch.device("cpu")


def content(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "task": "prior",
        "name": "tiny",
        "seed": 2,
        "dataset": {**SHAPES, "split": "train", "count": 40},
        "held_out": {**SHAPES, "split": "test", "count": 20},
        "model": FACTORY,
        "training": {"epochs": 3, "peak_lr": 3e-3, "average_decay": 0.8, "low_share": 0.5},
        "batch": 8,
        "evaluate_every": 2,
        "compute": {"threads": 1, "device": "cpu"},
    }
    return merged(base, changes)


def begun(folder: Path, **changes: Any) -> Trainer:
    return trainings.begun(PriorTrainSpec, content(**changes), folder)


def trainer(folder: Path, **changes: Any) -> Trainer:
    return trainings.ready(begun(folder, **changes))


@pytest.fixture(scope="module", autouse=True)
def few_calls() -> Iterator[None]:
    """Samples in three network calls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prior_evaluation, "GRID_CALLS", 3)
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a finished training."""
    folder = tmp_path_factory.mktemp("prior")
    finish(trainer(folder))
    return folder


def test_the_recipe_has_every_parameter_of_the_training() -> None:
    assert vars(PriorTraining()) == PriorRecipeSpec().model_dump()
    assert PriorRecipeSpec(low_steps=9).recipe() == PriorTraining(low_steps=9)


@pytest.mark.parametrize("killed", [1, 2])
def test_a_new_process_goes_on_to_the_same_bits(home: Path, tmp_path: Path, killed: int) -> None:
    card, known = check_resumed(trainer, home, tmp_path, killed)
    assert card["denoising"] == known["denoising"]
    folders = [trainer(one).store.run("tiny") for one in (tmp_path, home)]
    assert len({(folder / "samples.png").read_bytes() for folder in folders}) == 1


def test_it_learns_to_take_noise_out(tmp_path: Path) -> None:
    epochs = 20
    recipe = {"epochs": epochs, "peak_lr": 0.01}
    training = trainer(tmp_path, training=recipe, evaluate_every=epochs)
    records = [training.advance(epoch) for epoch in range(1, epochs + 1)]
    assert records[-1]["loss"] < 0.75 * records[0]["loss"]
    # noise of a quarter comes to 12.04 dB, and to 13.05 dB on these images where it is clamped
    assert records[-1]["psnr"] > 14


def test_nothing_is_made_twice(home: Path) -> None:
    again = begun(home)
    assert again.ingested()
    assert again.epochs_done() == 3
    assert exported(again) is not None
    assert exported(trainer(home, note="other")) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"low_share": 0.4}},
        {"schedule": {"steps": 500}},
        {"seed": 3},
        {"dataset": {"count": 32}},
    ],
    ids=["recipe", "noise", "seed", "images"],
)
def test_what_the_weights_depend_on_is_in_their_name(home: Path, changes: dict[str, Any]) -> None:
    assert trainer(home, **changes).fingerprint != trainer(home).fingerprint


def test_names_and_the_held_out_images_train_nothing_again(home: Path) -> None:
    other = {**SHAPES, "split": "test", "count": 10}
    changed = trainer(home, name="else", half=True, held_out=other, evaluate_every=1)
    assert changed.fingerprint == trainer(home).fingerprint


def test_the_figures_of_the_card_are_those_of_the_file(home: Path) -> None:
    training = trainer(home)
    card = exported(training)
    assert card is not None
    prior = load_prior(FACTORY, str(weights_path(training)), home, CPU, "model", (32, 32))
    assert prior.digest == card["weights"]["digest"]
    held_out = training.held_out
    pixels = [image for k in range(held_out.chunk_count) for image in held_out.chunk(k)]
    clean = torch.from_numpy(np.stack(pixels)).float() / 255
    noise = normal(derive_seeds(torch.arange(20), "noise"), (3, 32, 32))
    for level, sigma in zip(card["denoising"]["levels"], SIGMAS, strict=True):
        noisy = clean + sigma * noise
        step = prior.schedule.nearest(2 * sigma)
        kept = float(prior.schedule.abar[step]) ** 0.5
        with torch.no_grad():
            made = (prior.denoised(kept * (2 * noisy - 1), step) + 1) / 2
        assert level["step"] == step
        wanted = float(psnr(clean, made.clamp(0, 1)).mean())
        assert level["prior"] == pytest.approx(wanted, abs=1e-3)
        assert level["noisy"] == pytest.approx(
            float(psnr(clean, noisy.clamp(0, 1)).mean()), abs=1e-3
        )
        tried = [
            float(psnr(clean, Median(k)(noisy.clamp(0, 1), seeds=torch.arange(20))).mean())
            for k in (3, 5)
        ]
        assert level["filters"]["median"]["psnr"] == pytest.approx(max(tried), abs=1e-3)
    looked = [record["held_out"] for record in card["history"]]
    assert looked[:2] == [None, pytest.approx(looked[1])]
    assert looked[2] == pytest.approx(card["denoising"]["levels"][-1]["prior"], abs=1e-2)


def test_a_prior_that_knows_the_images_leaves_no_noise(home: Path) -> None:
    held_out = trainer(home).held_out

    class Known:
        count, chunk_count = held_out.count, 1

        def chunk(self, index: int) -> list[np.ndarray[Any, Any]]:
            return [np.full((3, 32, 32), 153, dtype=np.uint8)] * 20

    values = denoising_psnr(of(PointPrior(0.2), 32), Known(), 0.25)  # type: ignore[arg-type]
    assert len(values) == 20
    assert values.min() > 60


def test_samples_are_on_the_card(home: Path) -> None:
    training = trainer(home)
    card = exported(training)
    assert card is not None
    assert card["pictures"] == ["samples.png"]
    folder = training.store.run("tiny")
    grid = np.asarray(Image.open(io.BytesIO((folder / "samples.png").read_bytes())))
    assert grid.shape == (256, 256, 3)
    prior = load_prior(FACTORY, str(weights_path(training)), home, CPU, "model", (32, 32))
    made = sample(prior, torch.arange(8, 16), 3).mul(255).round().permute(0, 2, 3, 1).numpy()
    row = grid[32:64].reshape(32, 8, 32, 3).transpose(1, 0, 2, 3)
    assert np.abs(row.astype(float) - made).max() <= 1
    (folder / "samples.png").write_bytes(b"")
    assert exported(training) is None
    export(training)
    assert exported(training) is not None


def test_the_card_says_what_was_measured(home: Path) -> None:
    training = trainer(home)
    card = exported(training)
    assert card is not None
    folder = training.store.run("tiny")
    assert json.loads((folder / "card.json").read_text()) == card
    words = (folder / "card.md").read_text()
    level = card["denoising"]["levels"][1]
    for text in (
        "predicts the noise in images",
        "| noise | step | noisy | this | median | gaussian | non-local means | dct shrinkage |",
        f"| 0.1 | {level['step']} | {level['noisy']:.2f} | {level['prior']:.2f} |",
        "20 held-out images",
        "![samples.png](samples.png)",
        "| noise | NoiseSchedule(steps=1000, first=0.0001, last=0.02) |",
    ):
        assert text in words
    assert words_of(card).headline(card).endswith(" dB at noise 0.25")
    assert (folder / "curves.svg").read_text().count("<svg") == 1


def test_an_epoch_is_told_with_its_figure(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = trainer(home).advance(2)
    with TrainProgress() as progress:
        progress.epoch(record, 2)
    words = f"epoch 2/2: loss {record['loss']:.3f}, held-out PSNR {record['psnr']:.2f} dB\n"
    assert capsys.readouterr().err == words


def test_the_file_is_what_a_run_purifies_with(home: Path) -> None:
    training = trainer(home)
    card = exported(training)
    assert card is not None
    written = {
        "name": "DDRM",
        "prior": FACTORY,
        "weights": str(weights_path(training)),
        "prior_side": 32,
    }
    (purifier,) = toy.bench(home, purifiers=[written]).purifiers
    assert purifier.prior.digest == card["weights"]["digest"]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        (
            {"schedule": {"steps": 100}},
            SpecError,
            r"training\.low_steps: expected at most 100, the steps of the schedule, got 250",
        ),
        (
            {"dataset": {"colour": "grey"}, "held_out": {"colour": "grey"}},
            ModelError,
            r"model: python:.* cannot take images \(1, 32, 32\) of dataset: ",
        ),
        ({"model": "other"}, ModelError, r"model: expected one of small-prior, .*got 'other'"),
    ],
)
def test_mistakes_are_found_before_the_training(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        trainer(tmp_path, **changes)
