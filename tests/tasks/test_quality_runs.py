"""Runs on an image-quality metric: scores, gain, quality and rank correlation, the leaderboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from defender.metrics.quality import closeness, likeness
from defender.universal import Perturbation
from flows.report import render
from storage.images import read_images
from tasks.columns import Columns
from tasks.errors import SpecError
from tasks.leaderboard import standing_of, standings
from tasks.outputs import write_outputs
from tasks.perturbation_files import save_perturbation
from tasks.summary import Summary
from tasks.survey import Survey
from tests import cases, toy


def make_metric() -> nn.Module:
    return cases.SmoothQuality()


def make_distance() -> nn.Module:
    return Distance()


class Distance(nn.Module):
    """A full-reference metric, lower is better."""

    lower_is_better = True
    needs_reference = True
    score_range = (0.0, 1.0)

    def forward(self, images: torch.Tensor, reference: torch.Tensor | None = None) -> torch.Tensor:
        assert reference is not None
        assert images.shape == reference.shape
        return 0.1 + (images - reference).square().mean(dim=(1, 2, 3))


ATTACKS = [
    {"name": "IFGSM", "epsilon": "8/255", "step_size": "4/255", "steps": 3, "label": "ifgsm"},
    {"name": "MIFGSM", "epsilon": "8/255", "steps": 3, "label": "mifgsm"},
]
PURIFIERS = [
    {"name": "Median", "label": "median"},
    {"name": "Resize", "scale": 0.5, "label": "half"},
]


def quality(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "model": None,
        "metric": "python:tests.tasks.test_quality_runs:make_metric",
        "attacks": ATTACKS,
        "detectors": [],
        "purifiers": PURIFIERS,
        "metrics": [
            *("gain", "absolute_gain", "defended_gain", "defended_absolute_gain"),
            *("quality", "image_similarity", "srcc", "score_shift"),
        ],
    }
    return {**base, **changes}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    return toy.run(toy.bench(tmp_path_factory.mktemp("quality"), **quality()))[0]


def stored(state: Survey, name: str) -> list[torch.Tensor]:
    """The stored images of a node, in the order of the dataset."""
    found = []
    for index in range(state.chunks):
        images = read_images(state.bench.store.images(state.done[(name, index)].ref))
        found += [torch.from_numpy(image).float()[None] / 255 for image in images]
    return found


def row(state: Survey, attack: str, purifier: str, metric: str) -> dict[str, Any]:
    (found,) = (
        one
        for one in Summary(state).rows()
        if (one["attack"], one["purifier"], one["metric"]) == (attack, purifier, metric)
    )
    return found


def test_figures_are_those_of_the_stored_images(state: Survey) -> None:
    metric = make_metric()
    clean = stored(state, "ingest")
    made = stored(state, "purify/ifgsm/half")
    assert made[0].shape == (1, 3, 16, 16)
    before = np.array([metric(one).item() for one in clean])
    after = np.array([metric(one).item() for one in made])
    gain = row(state, "ifgsm", "half", "gain")
    assert gain["value"] == pytest.approx(np.mean(abs(after - before) / before), rel=1e-4)
    assert gain["ci_low"] < gain["value"] < gain["ci_high"]
    ranks = stats.spearmanr(before, after).statistic
    assert row(state, "ifgsm", "half", "srcc")["value"] == pytest.approx(ranks, abs=1e-6)
    like = np.mean([likeness(x, y).item() for x, y in zip(clean, made, strict=True)])
    assert row(state, "ifgsm", "half", "quality")["value"] == pytest.approx(like, rel=1e-6)
    found = [closeness(x, y) for x, y in zip(clean, made, strict=True)]
    like = np.mean([ssim.item() + decibels.item() / 40 for ssim, decibels in found])
    assert row(state, "ifgsm", "half", "image_similarity")["value"] == pytest.approx(like, rel=1e-6)
    shift = row(state, "ifgsm", "none", "score_shift")["value"]
    attacked = np.array([metric(one).item() for one in stored(state, "attack/ifgsm")])
    wanted = (attacked.mean() - before.mean()) / before.std(ddof=1)
    assert shift == pytest.approx(wanted, rel=1e-4)
    assert shift > 0


def test_both_defended_compares_with_the_purified_clean_image(state: Survey) -> None:
    metric = make_metric()
    own = np.array([metric(one).item() for one in stored(state, "purify/none/median")])
    after = np.array([metric(one).item() for one in stored(state, "purify/ifgsm/median")])
    found = row(state, "ifgsm", "median", "defended_gain")["value"]
    assert found == pytest.approx(np.mean(abs(after - own) / own), rel=1e-4)
    low, high = metric.score_range
    found = row(state, "ifgsm", "median", "defended_absolute_gain")["value"]
    assert found == pytest.approx(np.mean(abs(after - own)) / (high - low), rel=1e-4)


def test_both_defended_draw_the_same_of_a_random_purifier(tmp_path: Path) -> None:
    none = {"name": "IFGSM", "epsilon": 0, "step_size": 0, "steps": 1, "label": "none at all"}
    noise = {"name": "GaussianNoise", "sigma": 0.1, "label": "noise"}
    state, _ = toy.run(toy.bench(tmp_path, **quality(attacks=[none], purifiers=[noise])))
    clean, attacked = stored(state, "purify/none/noise"), stored(state, "purify/none at all/noise")
    for before, first, second in zip(stored(state, "ingest"), clean, attacked, strict=True):
        assert torch.equal(first, second), "an attack that changes nothing: the same noise on both"
        assert (first - before).std() > 0.05
    assert row(state, "none at all", "noise", "gain")["value"] > 0
    for metric in ("defended_gain", "defended_absolute_gain"):
        assert row(state, "none at all", "noise", metric)["value"] == 0


def test_the_leaderboard_is_the_mean_over_attacks(state: Survey) -> None:
    board = {one.purifier: one for one in standings(state, Columns(state))}
    assert set(board) == {"none", "median", "half"}
    for name, one in board.items():
        gains = [row(state, a, name, "gain")["value"] for a in ("ifgsm", "mifgsm")]
        assert one.mean["gain"].value == pytest.approx(np.mean(gains), rel=1e-9)
        assert one.groups["fgsm"]["gain"] == pytest.approx(np.mean(gains), rel=1e-9)
        assert one.mean["gain"].low <= one.mean["gain"].value <= one.mean["gain"].high
    half, median = board["half"], board["median"]
    assert half.difference == {}
    for measure in ("gain", "quality", "srcc"):
        wanted = median.mean[measure].value - half.mean[measure].value
        assert median.difference[measure].value == pytest.approx(wanted, abs=1e-9)
    front = [one for one in board.values() if one.front]
    assert front
    for one in front:
        better = [
            o
            for o in board.values()
            if o.mean["gain"].value < one.mean["gain"].value
            and o.mean["quality"].value > one.mean["quality"].value
        ]
        assert better == []


def test_the_leaderboard_survives_being_written(state: Survey) -> None:
    for one in standings(state, Columns(state)):
        assert standing_of(json.loads(json.dumps(one.as_dict()))) == one


def test_the_page_has_the_leaderboard(state: Survey) -> None:
    summary = write_outputs(state, render)
    assert [one["purifier"] for one in summary["leaderboard"]]
    folder = state.bench.store.run("toy")
    page = (folder / "report.html").read_text()
    assert 'id="leaderboard"' in page
    assert "the baseline is half" in page
    assert "Gain and quality over all attacks" in page
    assert page.count('aria-label="Gain and quality, ') == 3, "all attacks, fgsm, clean images"
    assert "standard deviations" in page


def test_a_metric_with_a_reference_is_told_the_clean_image(tmp_path: Path) -> None:
    given = quality(metric="python:tests.tasks.test_quality_runs:make_distance")
    given["attacks"] = [
        {
            "name": "PGD",
            "epsilon": "8/255",
            "step_size": "8/255",
            "steps": 1,
            "label": "pgd",
        }
    ]
    state, _ = toy.run(toy.bench(tmp_path, **given))
    scores = Columns(state).column("score/none/none", "score")
    assert scores == pytest.approx(np.full(48, 0.1), abs=1e-7)
    clean, made = stored(state, "ingest"), stored(state, "attack/pgd")
    wanted = [0.1 + (x - y).square().mean().item() for x, y in zip(clean, made, strict=True)]
    assert Columns(state).column("score/pgd/none", "score") == pytest.approx(wanted, rel=1e-5)
    assert row(state, "pgd", "none", "score_shift")["value"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"name": "shapes-cnn"}}, "metric: expected one of model, metric and encoder"),
        ({"pipeline": {"target": "16x16"}}, "pipeline: a quality metric sees images as they are"),
        (
            {"attacks": [{"name": "FGSM", "epsilon": 0.1, "target": 1}]},
            r"attacks\[0\]\.target: a quality metric",
        ),
        ({"detectors": ["GradientMask"]}, r"detectors\[0\]: GradientMask"),
    ],
)
def test_what_does_not_go_together_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        toy.bench(tmp_path, **quality(**changes)).check()


def fitted(folder: Path, **more: Any) -> tuple[Survey, list[Any]]:
    attack = {"name": "UAP", "label": "uap", "amplitude": 0.5, "fit_images": 20, **more}
    return toy.run(toy.bench(folder, **quality(attacks=[attack], purifiers=[])))


def test_a_universal_perturbation_is_fitted_before_it_attacks(tmp_path: Path) -> None:
    state, _ = fitted(tmp_path)
    assert state.plan.nodes["fit/uap"].gathers == 2
    assert row(state, "uap", "none", "score_shift")["value"] > 0
    clean, made = stored(state, "ingest"), stored(state, "attack/uap")
    inside = (clean[0] > 0.1) & (clean[0] < 0.9) & (clean[1] > 0.1) & (clean[1] < 0.9)
    first, second = (made[0] - clean[0])[inside], (made[1] - clean[1])[inside]
    assert first.abs().max() > 0.5 / 255
    assert (first - second).abs().max() <= 1.01 / 255
    assert fitted(tmp_path)[1] == []


def test_a_fitted_attack_may_have_its_strength_searched(tmp_path: Path) -> None:
    state, made = fitted(tmp_path, strength={"linf": "6/255", "images": 10})
    assert [work.node.kind for work in made if work.node.gathers] == ["fit", "strength"]
    changed = [
        (x - y).abs().max().item()
        for x, y in zip(stored(state, "ingest"), stored(state, "attack/uap"), strict=True)
    ]
    assert np.mean(changed[:10]) == pytest.approx(6 / 255, rel=0.03)


def test_a_perturbation_from_a_file_is_not_fitted_again(tmp_path: Path) -> None:
    save_perturbation(tmp_path / "uap.safetensors", Perturbation(torch.full((3, 4, 4), 0.1)))
    attack = {"name": "UAP", "label": "uap", "amplitude": 0.5, "weights": "uap.safetensors"}
    state, made = toy.run(toy.bench(tmp_path, **quality(attacks=[attack], purifiers=[])))
    assert {work.node.kind for work in made} == {"ingest", "attack", "score"}
    change = stored(state, "attack/uap")[0] - stored(state, "ingest")[0]
    assert change.max().item() == pytest.approx(13 / 255, abs=1e-6)
