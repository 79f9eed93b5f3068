"""The training of a network that purifies, driven without Prefect on a few small images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from defender.metrics import psnr, ssim
from defender.norms import to_uint8
from defender.purifier_training import PurifierTraining
from defender.purifiers import Learned
from flows.train_progress import TrainProgress
from storage.images import read_images
from tasks.attacked_data import AttackedData
from tasks.card_words import words_of
from tasks.model_card import exported, weights_path
from tasks.purify_task import PurifyTask
from tasks.train_specs import PurifierRecipeSpec, PurifyTrainSpec, load_train_spec
from tasks.training import Trainer
from tests import cases, toy
from tests.tasks.purify_training import (
    ATTACKS,
    SHAPES,
    begun,
    content,
    make_metric,
    trainer,
)
from tests.tasks.trainings import check_resumed, finish


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a finished training."""
    folder = tmp_path_factory.mktemp("purify")
    finish(trainer(folder))
    return folder


def attacked(training: Trainer, field: str) -> AttackedData:
    data = getattr(training, field)
    assert isinstance(data, AttackedData)
    return data


def test_the_recipe_has_every_parameter_of_the_training() -> None:
    assert vars(PurifierTraining()) == PurifierRecipeSpec().model_dump()
    assert PurifierRecipeSpec(crop=9).recipe() == PurifierTraining(crop=9)


def test_images_and_what_attacks_made_are_those_of_a_run(home: Path) -> None:
    """An ordinary run over the same images finds them in the store and makes the rest."""
    data = attacked(trainer(home), "data")
    bench = toy.bench(
        home,
        seed=2,
        dataset={**SHAPES, "split": "train", "count": 40},
        model=None,
        metric=content()["metric"],
        attacks=[*ATTACKS, {**ATTACKS[0], "steps": 1, "label": "new"}],
        detectors=[],
        purifiers=[],
        compute={"device": "cpu"},
    )
    bench.store = data.bench.store
    state, made = toy.run(bench)
    assert {work.node.name for work in made if work.node.kind != "score"} == {"attack/new"}
    for index in range(3):
        stacks = data.chunk(index)
        names = ("ingest", "attack/ifgsm", "attack/jpeg")
        stored = [read_images(bench.store.images(state.done[(n, index)].ref)) for n in names]
        assert len(stacks) == len(stored[0])
        for stack, *versions in zip(stacks, *stored, strict=True):
            assert stack.shape == (3, 3, 32, 32)
            assert np.array_equal(stack, np.stack(versions))
            assert (stack[0] != stack[1]).any()


def test_a_pair_is_one_place_of_an_image_and_of_one_of_its_versions() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(0, 100, (200, 1, 3, 9, 8), generator=generator, dtype=torch.uint8)
    versions = torch.cat([clean, clean + 50, clean + 100], dim=1)
    drawn = PurifierTraining(crop=5, clean=0.25).pairs(versions, generator)
    one, other = (part * 255 for part in drawn)
    assert one.shape == other.shape == (200, 3, 5, 5)
    moved = (other - one).flatten(1).round()
    assert bool((moved == moved[:, :1]).all())
    counts = {int(value): int((moved[:, 0] == value).sum()) for value in moved[:, 0].unique()}
    assert counts.keys() == {0, 50, 100}
    assert 30 < counts[0] < 70
    assert abs(counts[50] - counts[100]) < 50
    wholly = PurifierTraining(crop=0, flip=False, clean=0.0).pairs(versions, generator)
    assert torch.equal(wholly[0] * 255, clean[:, 0].float())
    assert bool((wholly[1] != wholly[0]).all())


def test_the_loss_is_the_squared_error_and_the_lack_of_likeness() -> None:
    clean, made = cases.images(), cases.images().flip(0)
    error = ((made - clean) ** 2).mean()
    assert float(PurifierTraining().loss(clean, made)) == pytest.approx(float(error))
    both = PurifierTraining(ssim_weight=0.5).loss(clean, made.requires_grad_())
    likeness = float(ssim(clean, made.detach()).mean())
    assert float(both.detach()) == pytest.approx(float(error) + 0.5 * (1 - likeness), rel=1e-5)
    (gradient,) = torch.autograd.grad(both, made)
    assert gradient.abs().sum() > 0


def test_the_loss_falls_below_that_of_doing_nothing(tmp_path: Path) -> None:
    training = trainer(tmp_path, training={"epochs": 12, "clean": 0.0}, evaluate_every=0)
    card = finish(training)
    losses = [record["loss"] for record in card["history"]]
    assert losses[-1] < 0.8 * losses[0]
    mean = card["figures"]["mean"]
    assert mean["after"]["psnr"] > mean["before"]["psnr"] + 0.5
    assert mean["after"]["gain"] < mean["before"]["gain"]


@pytest.mark.parametrize("killed", [1, 2])
def test_a_new_process_goes_on_to_the_same_bits(home: Path, tmp_path: Path, killed: int) -> None:
    card, known = check_resumed(trainer, home, tmp_path, killed)
    assert card["figures"] == known["figures"]


def test_a_kill_between_attacks_loses_nothing(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(stage: str, done: int, total: int) -> None:
        assert (stage, total) == ("dataset", 9)
        if done == 5:
            raise Killed

    first = begun(tmp_path)
    first.listener = kill
    with pytest.raises(Killed):
        first.ingest("dataset")
    seen: list[int] = []
    second = begun(tmp_path)
    assert not second.ingested()
    second.listener = lambda stage, done, total: seen.append(done)
    second.ingest("dataset")
    # what was under way beside it may have been finished too
    assert seen[0] >= 6
    assert seen[-1] == 9
    whole = trainer(tmp_path / "whole")
    assert second.data.digest == whole.data.digest


def test_nothing_is_made_twice(home: Path) -> None:
    again = begun(home)
    assert again.ingested()
    assert again.epochs_done() == 3
    assert exported(again) is not None
    assert exported(trainer(home, note="other")) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"attacks": ATTACKS[:1]},
        {"attacks": [{**ATTACKS[0], "epsilon": "8/255"}, ATTACKS[1]]},
        {"model": "fcn"},
        {"training": {"clean": 0.5}},
        {"seed": 3},
    ],
    ids=["fewer", "weaker", "model", "recipe", "seed"],
)
def test_what_the_weights_depend_on_is_in_their_name(home: Path, changes: dict[str, Any]) -> None:
    assert trainer(home, **changes).fingerprint != trainer(home).fingerprint


def test_names_and_the_held_out_images_train_nothing_again(home: Path) -> None:
    other = {"kind": "builtin:shapes", "split": "test", "count": 10, "chunk_size": 16}
    changed = trainer(home, name="else", half=True, held_out=other, evaluate_every=1)
    assert changed.fingerprint == trainer(home).fingerprint


def test_the_figures_of_the_card_are_those_of_the_images(home: Path) -> None:
    training = trainer(home)
    card = exported(training)
    assert card is not None
    network = training.task.network()
    network.load_state_dict(load_file(weights_path(training)))
    purifier, metric = Learned(network.eval()), make_metric()
    columns: dict[str, dict[str, list[float]]] = {}

    def note(where: str, clean: torch.Tensor, image: torch.Tensor) -> None:
        column = columns.setdefault(where, {"psnr": [], "ssim": [], "gain": []})
        column["psnr"].append(float(psnr(clean, image)))
        column["ssim"].append(float(ssim(clean, image)))
        before = float(metric(clean))
        column["gain"].append(abs(float(metric(image)) - before) / abs(before))

    for clean, made in attacked(training, "held_out").clean_and_attacked():
        for label, image in zip(("clean", "ifgsm", "jpeg"), (clean, *made.split(1)), strict=True):
            with torch.no_grad():
                found = purifier(image, seeds=torch.zeros(1, dtype=torch.int64))
                note(f"{label} after", clean, to_uint8(found).float() / 255)
                note(f"{label} before", clean, image)
    figures = card["figures"]
    for label, one in {"clean": figures["clean"], **figures["attacks"]}.items():
        for when in ("before", "after"):
            if (label, when) == ("clean", "before"):
                continue
            for name in ("psnr", "ssim", "gain"):
                figure = one[when][name]
                wanted = np.mean(columns[f"{label} {when}"][name])
                assert figure["value"] == pytest.approx(wanted, rel=2e-4), (label, when, name)
                assert figure["n"] == 20
                assert figure["ci_low"] <= figure["value"] <= figure["ci_high"]
    values = [figures["attacks"][label]["after"]["gain"]["value"] for label in ("ifgsm", "jpeg")]
    assert figures["mean"]["after"]["gain"] == pytest.approx(np.mean(values))
    looked = [record["held_out"] for record in card["history"]]
    assert looked[0] is None
    assert looked[2] == pytest.approx(figures["mean"]["after"]["ssim"], abs=2e-3)


def test_the_card_says_what_was_measured(home: Path) -> None:
    training = trainer(home)
    card = exported(training)
    assert card is not None
    folder = training.store.run("tiny")
    assert json.loads((folder / "card.json").read_text()) == card
    words = (folder / "card.md").read_text()
    after = card["figures"]["attacks"]["ifgsm"]["after"]
    for text in (
        "takes attacks off images",
        "| PSNR, dB before | after | SSIM before | after | gain before | after |",
        f"| {after['ssim']['value']:.4f} |",
        "| nobody attacked | - | ",
        "no held-out image chose anything",
        "| attacks | ifgsm, jpeg |",
        "40 images of 3 x 32 x 32",
    ):
        assert text in words
    assert words_of(card).headline(card).startswith("PSNR, dB ")
    assert (folder / "curves.svg").read_text().count("<svg") == 1


def test_the_file_is_what_a_run_purifies_with(home: Path) -> None:
    training = trainer(home)
    card = exported(training)
    assert card is not None
    written = {"name": "Learned", "network": "residual-fcn", "weights": str(weights_path(training))}
    (purifier,) = toy.bench(home, purifiers=[written]).purifiers
    assert purifier.network.digest == card["weights"]["digest"]


def test_a_classifier_can_be_what_is_attacked(tmp_path: Path) -> None:
    training = trainer(
        tmp_path,
        metric=None,
        classifier={"name": "shapes-cnn"},
        attacks=[{**ATTACKS[0], "purifiers": []}],
        training={"epochs": 1},
    )
    figures = finish(training)["figures"]
    assert figures["measures"] == ["psnr", "ssim", "accuracy"]
    assert figures["clean"]["before"]["accuracy"]["value"] > 0.9
    assert figures["attacks"]["ifgsm"]["before"]["accuracy"]["value"] < 0.5
    words = (training.store.run("tiny") / "card.md").read_text()
    assert "whose class `shapes-cnn@" in words


def test_progress_shows_small_losses(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainProgress() as progress:
        progress.epoch({"epoch": 1, "loss": 0.000345, "ssim": 0.91234}, 1)
    assert capsys.readouterr().err == "epoch 1/1: loss 3.45e-04, held-out SSIM 0.9123\n"


def test_half_precision_and_grey_images(tmp_path: Path) -> None:
    grey = {"colour": "grey"}
    training = trainer(
        tmp_path,
        model="fcn",
        half=True,
        dataset={**content()["dataset"], **grey},
        held_out={**content()["held_out"], **grey},
        metric="python:tests.tasks.test_purify_train:grey_metric",
        training={"epochs": 1, "ssim_weight": 0.1},
        attacks=ATTACKS[1:],
    )
    finish(training)
    state = load_file(weights_path(training))
    assert {value.dtype for value in state.values()} == {torch.float16}
    assert state["layers.0.weight"].shape == (64, 1, 3, 3)


def grey_metric() -> nn.Module:
    return cases.SmoothQuality(1)


def test_a_file_says_which_kind_of_training_it_is(tmp_path: Path) -> None:
    path = tmp_path / "purify.yaml"
    path.write_text(json.dumps(content()))
    spec = load_train_spec(path, ["training.epochs=7"])
    assert isinstance(spec, PurifyTrainSpec)
    assert spec.training.epochs == 7
    assert isinstance(Trainer(spec, tmp_path, str(tmp_path / "s")).task, PurifyTask)
