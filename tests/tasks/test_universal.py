"""A fitting of a universal perturbation that is stopped goes on to the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from defender.attacks import UAP
from defender.objectives import RaiseScore
from defender.types import Objective
from defender.universal import Perturbation, UniversalTraining
from storage.images import Pixels
from tasks.batches import BatchRule
from tasks.errors import ModelError
from tasks.perturbation_files import load_perturbation, save_perturbation
from tasks.universal import (
    FILE,
    ShuffledImages,
    fit_perturbation,
)
from tests import cases, toy

EPOCHS = 4
RECIPE = UniversalTraining(epochs=EPOCHS, side=6)
CPU = torch.device("cpu")


def pictures() -> list[Pixels]:
    """Five colour images of one size, three of another, and two grey ones."""
    random = np.random.default_rng(4)
    shapes = [(3, 8, 8)] * 5 + [(3, 5, 11)] * 3 + [(1, 8, 8)] * 2
    return [random.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]


class Goals:
    """Makes objectives, and counts for how many images."""

    def __init__(self) -> None:
        self.images = 0

    def __call__(self, images: torch.Tensor, places: torch.Tensor) -> Objective:
        self.images += len(images)
        return RaiseScore(cases.SmoothQuality(images.shape[1]))


def fit(
    folder: Path, goals: Goals | None = None, listener: Any = None, **changes: Any
) -> Perturbation:
    """Fit in the store of a folder, as a new process would."""
    bench = toy.bench(folder, seed=changes.get("seed", 5))
    images = changes.get("images", pictures())
    batches = ShuffledImages(images, BatchRule(4), CPU, bench.spec.seed)
    made_from = {"images": "of the test", "metric": changes.get("metric", "smooth-quality")}
    recipe = changes.get("recipe", RECIPE)
    return fit_perturbation(bench, recipe, batches, goals or Goals(), listener, made_from=made_from)


def fitting(folder: Path) -> Path:
    (found,) = (folder / "store" / "data").iterdir()
    return found


def test_every_epoch_has_all_images_in_an_order_of_its_own() -> None:
    batches, images = ShuffledImages(pictures(), BatchRule(4), CPU, 1), pictures()
    orders = []
    for epoch in (0, 1, 0):
        order: list[int] = []
        for stacked, places in batches(epoch):
            assert len(stacked) <= 4
            for one, place in zip(stacked, places.tolist(), strict=True):
                expected = torch.from_numpy(images[place]).float() / 255
                torch.testing.assert_close(one, expected)
            order += places.tolist()
        assert sorted(order) == list(range(10))
        orders.append(order)
    assert orders[0] == orders[2] != orders[1]
    assert len(batches) == 10
    sizes = sorted(len(places) for _, places in batches(0))
    assert sizes == [1, 2, 3, 4]


def test_fits_saves_and_is_read_again(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    fitted = fit(tmp_path, listener=lambda *said: seen.append(said))
    assert fitted.values.shape == (3, 6, 6)
    assert 0.5 * 16 * 0.001 < fitted.values.abs().max() <= 1.1 * 16 * 0.001
    assert load_perturbation(fitting(tmp_path) / FILE) == fitted
    assert seen[-1] == ("universal", 40, 40)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    images = torch.from_numpy(np.stack(pictures()[:5])).float() / 255
    attacked = UAP(1.0, fitted)(images, Goals()(images, torch.arange(5)), seeds=cases.seeds(5))
    assert (cases.QUALITY(attacked) > cases.QUALITY(images)).all()


def test_a_finished_fitting_computes_nothing(tmp_path: Path) -> None:
    first, goals = fit(tmp_path), Goals()
    assert fit(tmp_path, goals) == first
    assert goals.images == 0


class Killed(BaseException):
    pass


@pytest.mark.parametrize("images", [3, 10, 13, 29, 39])
def test_goes_on_after_a_kill_to_the_same_bits(tmp_path: Path, images: int) -> None:
    def kill(stage: str, done: int, total: int) -> None:
        if done >= images:
            raise Killed

    whole = fit(tmp_path / "whole")
    with pytest.raises(Killed):
        fit(tmp_path / "killed", listener=kill)
    goals = Goals()
    assert fit(tmp_path / "killed", goals) == whole
    finished = (images - 1) // 10
    assert goals.images == 10 * (EPOCHS - finished)


def test_a_damaged_checkpoint_is_not_used(tmp_path: Path) -> None:
    def kill(stage: str, done: int, total: int) -> None:
        if done > 30:
            raise Killed

    whole = fit(tmp_path / "whole")
    with pytest.raises(Killed):
        fit(tmp_path / "killed", listener=kill)
    folder = fitting(tmp_path / "killed")
    path = folder / "checkpoints" / "epoch-000003.pt"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    goals = Goals()
    assert fit(tmp_path / "killed", goals) == whole
    assert goals.images == 20
    assert len(list((folder / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 6},
        {"metric": "another"},
        {"recipe": UniversalTraining(epochs=EPOCHS, side=6, step_size=0.002)},
    ],
    ids=str,
)
def test_what_it_depends_on_is_in_its_name(tmp_path: Path, changes: dict[str, Any]) -> None:
    fit(tmp_path)
    goals = Goals()
    fit(tmp_path, goals, **changes)
    assert goals.images == 10 * EPOCHS
    assert len(list((tmp_path / "store" / "data").iterdir())) == 2


def test_no_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batches: expected images in epoch 0, got none"):
        fit(tmp_path, images=[])


def test_what_is_no_file_of_a_perturbation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"weights: expected a file, got .*absent"):
        load_perturbation(tmp_path / "absent.safetensors")
    (tmp_path / "text").write_text("a perturbation")
    with pytest.raises(ModelError, match=r"weights: .*text is not safetensors"):
        load_perturbation(tmp_path / "text")
    save_file({"a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "two")
    with pytest.raises(ModelError, match=r"weights: .*two: expected one tensor, got 2"):
        load_perturbation(tmp_path / "two")
    save_file({"a": torch.zeros(4, 4)}, tmp_path / "flat")
    with pytest.raises(ModelError, match=r"weights: .*flat: values: expected \(c, height, width\)"):
        load_perturbation(tmp_path / "flat")


def test_a_file_keeps_the_digest(tmp_path: Path) -> None:
    perturbation = Perturbation(torch.rand(3, 4, 4) - 0.5)
    save_perturbation(tmp_path / "own" / "uap.safetensors", perturbation)
    loaded = load_perturbation(tmp_path / "own" / "uap.safetensors")
    assert loaded == perturbation
    assert repr(loaded) == repr(perturbation)
