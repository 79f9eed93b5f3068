"""Strong purification of those images alone in which a first purifier finds much."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from defender.noise import derive_seeds
from defender.purifiers import Average, Gaussian, GaussianNoise, Median, NoiseGate, Resize
from tasks.errors import SpecError
from tests import cases, toy


def gate(low: float, high: float) -> NoiseGate:
    return NoiseGate((Median(), Gaussian(1.0)), low, high)


def test_the_change_by_the_first_decides_between_the_two() -> None:
    images, seeds = cases.images(), cases.seeds()
    first = Median()(images, seeds=seeds)
    second = Gaussian(1.0)(first, seeds=seeds)
    change = (images - first).square().mean(dim=(1, 2, 3)).sqrt()
    below, above = float(change.min()), float(change.max())
    assert 0 < below < above
    torch.testing.assert_close(gate(above, 1.0)(images, seeds=seeds), first)
    torch.testing.assert_close(gate(0.0, below)(images, seeds=seeds), second)
    made = gate(below, above).parts(images, seeds=seeds)
    share = ((change - below) / (above - below)).view(-1, 1, 1, 1)
    torch.testing.assert_close(made["purified"], first + share * (second - first))
    assert torch.equal(made["first"], first)


def test_steps_draw_from_seeds_of_their_own() -> None:
    images, seeds = cases.images(), cases.seeds()
    noisy = GaussianNoise(0.1)
    made = NoiseGate((noisy, noisy), 0.0, 1e-6)(images, seeds=seeds)
    first = noisy(images, seeds=derive_seeds(seeds, "step 0"))
    assert torch.equal(made, noisy(first, seeds=derive_seeds(seeds, "step 1")))


def test_an_image_that_nothing_changes_has_a_finite_gradient() -> None:
    images = torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
    made = gate(0.01, 0.02)(images, seeds=torch.zeros(1, dtype=torch.int64))
    (found,) = torch.autograd.grad(made.sum(), images)
    assert torch.isfinite(found).all()
    assert found.abs().sum() > 0


@pytest.mark.parametrize(
    ("steps", "low", "message"),
    [
        ((Median(),), 0.0, "steps: expected two purifiers, got 1"),
        ((Median(), Resize(0.5)), 0.0, "steps: expected purifiers that keep the size"),
        ((Median(), Median()), 0.5, "high: expected more than low"),
    ],
)
def test_what_makes_no_sense_is_refused(
    steps: tuple[object, ...], low: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        NoiseGate(steps, low, 0.5)


def test_a_specification_lists_the_two(tmp_path: Path) -> None:
    stated = {
        "name": "noise-gate",
        "steps": ["median(5)", "jpeg(50) + median(3)"],
        "low": "1/255",
        "high": "2/255",
    }
    made = toy.bench(tmp_path, purifiers=[stated]).purifiers[0]
    assert isinstance(made, NoiseGate)
    assert (made.steps[0], made.low, made.high) == (Median(5), 1 / 255, 2 / 255)
    assert isinstance(made.steps[1], Average)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("median", r"purifiers\[0\]\.steps: expected a list of purifiers, got 'median'"),
        (["median", "medium"], r"purifiers\[0\]\.steps\[1\]\.name: .*did you mean"),
        (["median", 3], r"purifiers\[0\]\.steps: "),
    ],
)
def test_a_mistake_within_is_named(tmp_path: Path, steps: object, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        toy.bench(tmp_path, purifiers=[{"name": "NoiseGate", "steps": steps}]).check()
