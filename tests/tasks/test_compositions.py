"""Purifiers written in one line of a specification."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from defender.purifiers import JPEG, Median, SelectiveMedian, Sequence, Unsharp
from storage.images import read_images
from tasks.errors import SpecError
from tasks.plan import Plan
from tasks.specs import AlgorithmSpec, label_of
from tests import toy

LINE = "median(3) > unsharp(amount=1/2)"


def test_lines_become_purifiers_and_their_own_labels(tmp_path: Path) -> None:
    lines = ["Median", "median(3)", LINE, "jpeg(quality=50)"]
    bench = toy.bench(tmp_path, purifiers=lines)
    bench.check()
    assert bench.purifiers == [
        Median(),
        Median(3),
        Sequence((Median(3), Unsharp(amount=0.5))),
        JPEG(50),
    ]
    assert [label_of(spec) for spec in bench.spec.purifiers] == lines


def test_a_label_of_its_own(tmp_path: Path) -> None:
    bench = toy.bench(tmp_path, purifiers=[{"name": LINE, "label": "sharp"}])
    assert "purify/none/sharp" in Plan(bench).nodes
    assert bench.purifiers == [Sequence((Median(3), Unsharp(amount=0.5)))]


def test_a_line_finds_the_results_of_what_it_says(tmp_path: Path) -> None:
    """However one purifier is written, its results are the same and are stored once."""
    written = ["Median", "median(3)", {"name": "Median", "window": 3, "label": "mapped"}]
    plan = Plan(toy.bench(tmp_path, purifiers=written))
    found = [plan.nodes[f"purify/none/{label}"] for label in ("Median", "median(3)", "mapped")]
    assert len({one.fingerprint for one in found}) == 1
    assert found[0].config["algorithm"] == "Median(window=3, padding='reflect')"
    other = Plan(toy.bench(tmp_path, purifiers=[LINE, "median(3) > unsharp(0.25)"]))
    names = [f"purify/none/{label}" for label in (LINE, "median(3) > unsharp(0.25)")]
    assert len({other.nodes[name].fingerprint for name in names}) == 2


def test_a_run_stores_what_the_steps_make_one_after_the_other(tmp_path: Path) -> None:
    attack = {"name": "FGSM", "epsilon": "4/255", "through": LINE}
    bench = toy.bench(tmp_path, purifiers=[LINE], detectors=[], attacks=[attack])
    state, _ = toy.run(bench)
    label = f"FGSM(epsilon=4/255, through={LINE})"

    def stored(name: str) -> torch.Tensor:
        pixels = read_images(bench.store.images(state.done[(name, 0)].ref))
        return torch.stack([torch.from_numpy(image) for image in pixels]).float() / 255

    seeds = torch.zeros(16, dtype=torch.int64)
    for source, made in (
        ("ingest", f"purify/none/{LINE}"),
        (f"attack/{label}", f"purify/{label}/{LINE}"),
    ):
        images = stored(source)
        expected = Unsharp(amount=0.5)(Median(3)(images, seeds=seeds), seeds=seeds)
        assert (stored(made) - expected).abs().max() <= 0.5001 / 255


def test_steps_are_given_the_pipeline(tmp_path: Path) -> None:
    pipeline = {"target": "16x16", "algorithm": "nearest"}
    line = "selective-median(2) > flip(horizontal)"
    bench = toy.bench(tmp_path, purifiers=[line], pipeline=pipeline)
    purifier = bench.purifiers[0]
    assert purifier.steps[0] == SelectiveMedian(bench.pipeline, 2)
    assert purifier.knowledge == "pipeline"


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("median(4)", r"purifiers\[0\].window: expected an odd number >= 1, got 4"),
        ("median(much)", r"purifiers\[0\].padding: expected reflect \| symmetric, got 'much'"),
        ("median(window=much)", r"purifiers\[0\].window: expected a whole number, got 'much'"),
        ("median(3) > sharp", r"purifiers\[0\]: 'median\(3\) > sharp': expected one of .*'sharp'"),
        ("median(3) > jpeg(900)", r"purifiers\[0\].quality: expected \[1, 95\], got 900"),
        ({"name": "median(3)", "window": 5}, r"parameters within 'median\(3\)' only, got window"),
        ("selectivemedian(1) > flip", r"purifiers\[0\]: SelectiveMedian needs to know"),
        ("Learned", r"purifiers\[0\].network: expected a value for Learned, got nothing"),
        ("Sequence", r"purifiers\[0\]: Sequence expected its steps, got nothing"),
    ],
)
def test_mistakes_name_the_line(tmp_path: Path, written: Any, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        toy.bench(tmp_path, purifiers=[written]).check()


def test_attacks_can_be_written_so_too_but_not_in_sequence(tmp_path: Path) -> None:
    bench = toy.bench(tmp_path, attacks=["ifgsm(8/255, 2/255, 2)"], detectors=[], purifiers=[])
    assert (bench.attacks[0].epsilon, bench.attacks[0].steps) == (8 / 255, 2)
    with pytest.raises(SpecError, match=r"attacks\[0\]: expected one algorithm, got 2 in"):
        toy.bench(tmp_path, attacks=["fgsm(0.1) > fgsm(0.1)"]).check()


def test_names_without_parameters_are_read_as_before() -> None:
    spec = AlgorithmSpec.model_validate("Median")
    assert (spec.name, spec.parameters, label_of(spec)) == ("Median", {}, "Median")
