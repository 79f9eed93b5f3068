"""The mean of several purifiers, and the line in which it is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from defender.noise import derive_seeds
from defender.purifiers import Average, GaussianNoise, Median, Resize, Sequence, Unsharp
from defender.purifiers.composition import averaged, is_composition
from tasks.errors import SpecError
from tests import cases, toy


def test_it_is_the_mean_of_what_each_makes_of_the_image() -> None:
    images, seeds = cases.images(), cases.seeds()
    noise, median = GaussianNoise(0.05), Median()
    first = noise(images, seeds=derive_seeds(seeds, "step 0"))
    second = median(images, seeds=derive_seeds(seeds, "step 1"))
    made = Average((noise, median)).parts(images, seeds=seeds)
    torch.testing.assert_close(made["purified"], (first + second) / 2)
    assert torch.equal(made["1: GaussianNoise"], first)
    assert torch.equal(made["2: Median"], second)


def test_another_size_is_brought_back() -> None:
    images, seeds = cases.images(), cases.seeds()
    half = Resize(0.5)
    small = half(images, seeds=derive_seeds(seeds, "step 0"))
    back = functional.interpolate(small, images.shape[2:], mode="bilinear", antialias=True)
    assert Average((half,)).keeps_size
    torch.testing.assert_close(Average((half,))(images, seeds=seeds), back.clamp(0, 1))


def test_plus_signs_within_parentheses_belong_to_parameters() -> None:
    assert averaged("jpeg(50) + median(3)") == ["jpeg(50) ", " median(3)"]
    assert averaged("learned(a+b) > jpeg(1e+1)") == ["learned(a+b) > jpeg(1e+1)"]
    assert is_composition("median + jpeg")
    assert not is_composition("median")


def test_a_line_makes_an_average_of_sequences(tmp_path: Path) -> None:
    bench = toy.bench(tmp_path, purifiers=["median(3) > unsharp(0.5) + gaussiannoise(0.02)"])
    expected = Average((Sequence((Median(3), Unsharp(amount=0.5))), GaussianNoise(0.02)))
    assert bench.purifiers == [expected]


@pytest.mark.parametrize("text", ["median(3) +", "+ median(3)", "median(3) ++ jpeg(50)"])
def test_what_is_missing_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(SpecError, match=r"purifiers\[0\]: .*expected a purifier"):
        toy.bench(tmp_path, purifiers=[text]).check()


def test_attacks_and_detectors_are_not_averaged(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"detectors\[0\]: expected one algorithm, got 2"):
        toy.bench(tmp_path, detectors=["gradientmask() + gradientmask()"]).check()
