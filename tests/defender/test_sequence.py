"""Purifiers in sequence, and the line in which they are written."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from defender.noise import derive_seeds
from defender.purifiers import (
    PURIFIERS,
    GaussianNoise,
    Median,
    RandomCrop,
    SelectiveMedian,
    SeparateCorrectCombine,
    Sequence,
    Unsharp,
)
from defender.purifiers.composition import is_composition, parse_composition
from defender.types import Purifier
from tests import cases


def test_each_step_works_on_what_the_one_before_it_made() -> None:
    images, seeds = cases.images(), cases.seeds()
    noise, crop = GaussianNoise(0.05), RandomCrop(9)
    expected = noise(images, seeds=derive_seeds(seeds, "step 0"))
    expected = crop(expected, seeds=derive_seeds(seeds, "step 1"))
    assert torch.equal(Sequence((noise, crop))(images, seeds=seeds), expected)
    other = Sequence((crop, noise))(images, seeds=seeds)
    assert not torch.equal(other, expected)


def test_two_steps_of_a_kind_draw_independently() -> None:
    grey = torch.full((1, 3, 40, 40), 0.5)
    once = GaussianNoise(0.05)(grey, seeds=derive_seeds(cases.seeds(1), "step 0")) - 0.5
    twice = Sequence((GaussianNoise(0.05), GaussianNoise(0.05)))(grey, seeds=cases.seeds(1)) - 0.5
    second = twice - once
    assert second.std().item() == pytest.approx(0.05, rel=0.05)
    assert torch.corrcoef(torch.stack([once.flatten(), second.flatten()]))[0, 1].abs() < 0.05


def test_traits_follow_from_the_steps() -> None:
    median, unsharp = Median(), Unsharp()
    pipeline = SelectiveMedian(cases.PIPELINE)
    model = SeparateCorrectCombine(cases.MODEL, steps=2)
    told = SeparateCorrectCombine(cases.MODEL, variant="reference", steps=2)
    assert Sequence((median, unsharp)).knowledge == "blind"
    assert Sequence((pipeline, median)).knowledge == "pipeline"
    assert Sequence((median, model, pipeline)).knowledge == "model"
    assert Sequence((told, model)).knowledge == "reference"
    assert Sequence((median, unsharp)).keeps_size
    assert not Sequence((median, RandomCrop(8))).keeps_size
    assert isinstance(Sequence((median,)), Purifier)


def test_the_version_grows_with_that_of_any_step(monkeypatch: pytest.MonkeyPatch) -> None:
    sequence = Sequence((Median(), Unsharp(), Median()))
    assert sequence.version == 1
    monkeypatch.setattr(Unsharp, "version", 3)
    assert sequence.version == 3
    monkeypatch.setattr(Median, "version", 2)
    assert sequence.version == 5


def test_parts_show_what_each_step_made() -> None:
    images, seeds = cases.images(), cases.seeds()
    sequence = Sequence((Median(), Unsharp(), Median()))
    purified = sequence(images, seeds=seeds)
    shown = sequence.parts(images, seeds=seeds)
    assert list(shown) == ["after 1: Median", "after 2: Unsharp", "purified"]
    assert torch.equal(shown["after 1: Median"], Median()(images, seeds=seeds))
    assert torch.equal(shown["purified"], purified)


def test_sequences_of_nothing_or_of_other_things_are_refused() -> None:
    with pytest.raises(ValueError, match="steps: expected at least one purifier, got none"):
        Sequence(())
    with pytest.raises(TypeError, match="steps: expected purifiers, got 'median'"):
        Sequence(("median",))
    with pytest.raises(TypeError, match="steps: expected purifiers, got <class"):
        Sequence((Median,))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("median(3)", [("Median", {"window": 3})]),
        (
            "median(3) > unsharp(1)",
            [("Median", {"window": 3}), ("Unsharp", {"amount": 1})],
        ),
        ("jpeg(quality=50)", [("JPEG", {"quality": 50})]),
        ("JPEG()>Flip", [("JPEG", {}), ("Flip", {})]),
        ("resize(0.5)", [("Resize", {"scale": 0.5})]),
        ("gaussian-noise( 8/255 )", [("GaussianNoise", {"sigma": 8 / 255})]),
        (
            "non_local means(.04, 5, window = 11)",
            [("NonLocalMeans", dict(h=0.04, patch=5, window=11))],
        ),
        ("Median(5, symmetric)", [("Median", {"window": 5, "padding": "symmetric"})]),
        ("median(symmetric, 5)", [("Median", {"window": 5, "padding": "symmetric"})]),
        (
            "DifferentiableJPEG(70, cubic, 4:4:4)",
            [("DifferentiableJPEG", dict(quality=70, rounding="cubic", subsampling="4:4:4"))],
        ),
        ("unsharp(window=3, 1e-1)", [("Unsharp", {"window": 3, "amount": 0.1})]),
        ("gaussian(1.5, none)", [("Gaussian", {"sigma": 1.5, "window": None})]),
        ("learned > flip(horizontal)", [("Learned", {}), ("Flip", {"axes": "horizontal"})]),
    ],
)
def test_lines_are_read(text: str, expected: list[tuple[str, dict[str, Any]]]) -> None:
    assert parse_composition(text, PURIFIERS) == expected
    assert is_composition(text)


def test_numbers_keep_their_kind() -> None:
    ((_, whole),) = parse_composition("median(3)", PURIFIERS)
    ((_, broken),) = parse_composition("median(3.0)", PURIFIERS)
    assert isinstance(whole["window"], int)
    assert isinstance(broken["window"], float)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("median(3", "'median(3': expected a purifier such as median(3) between each two '>'"),
        ("median(3))", "got 'median(3))'"),
        ("median(3)(4)", "got 'median(3)(4)'"),
        ("median(3) > > jpeg", "got ''"),
        ("median(3) >", "got ''"),
        ("(3)", "got '(3)'"),
        ("medain(3) > jpeg", "expected one of AreaScaling, .*, got 'medain'"),
        ("jpeg > median(3, 4)", "'median(3, 4)': expected one of window, padding, got '4'"),
        ("median(widnow=3)", "expected one of window, padding, got 'widnow=3'"),
        ("median(3, window=5)", "window: expected one value, got another: 'window=5'"),
        ("median(3,)", "expected a number, a fraction or a word, got ''"),
        ("median(window=)", "expected a number, a fraction or a word, got ''"),
        ("median(1/0)", "expected a number, a fraction or a word, got '1/0'"),
        ("median(__import__)", "expected a number, a fraction or a word, got '__import__'"),
        ("median([3])", r"expected a number, a fraction or a word, got '[3]'"),
        ("median(2**3)", r"got '2**3'"),
        ("learned(3)", "'learned(3)': expected no parameters, got '3'"),
    ],
)
def test_lines_that_cannot_be_read_say_where(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(repr(text))}: ") as caught:
        parse_composition(text, PURIFIERS)
    for part in words.split(".*"):
        assert part in str(caught.value)


def test_plain_names_are_no_compositions() -> None:
    assert not any(is_composition(name) for name in [*PURIFIERS, "non-local-means", "8/255"])
