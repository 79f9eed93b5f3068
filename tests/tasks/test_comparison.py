from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from defender.metrics.paired_rates import paired_difference
from tasks.comparison import (
    NO_COMMON,
    NO_IMAGES,
    NO_MEAN,
    Finished,
    compare,
    differing,
    open_finished,
    paired,
    size,
)
from tasks.comparison_plot import MOST, difference_plots
from tasks.errors import SpecError
from tasks.history import entries
from tasks.outputs import write_outputs
from tasks.per_image import Images, Sample
from tests import toy
from tests.tasks.test_requirements import ATTACK, row

SPEC: dict[str, Any] = {"name": "r", "seed": 0, "purifiers": [{"name": "JPEG", "quality": 40}]}


def run(*rows: dict[str, Any], **more: Any) -> Finished:
    """A run whose images are gone."""
    dataset = {"kind": "k", "digest": "d", "images": 9, "rejected": 0}
    summary = {"name": "r", "version": "1", "dataset": dataset, "model": None, "spec": SPEC}
    return Finished("r", {**summary, "rows": list(rows), **more}, None)


def sample(values: list[float], among: list[int] | None = None, *, rate: bool = True) -> Sample:
    used = np.ones(len(values)) if among is None else np.array(among)
    ids = np.array([f"i{n}" for n in range(len(values))])
    return Sample(ids, np.array(values, dtype=np.float64), used.astype(bool), rate)


def test_differences_by_hand_and_worst_first() -> None:
    first = run(
        row(value=0.5),
        row("psnr", 30.0, attack="a"),
        row("attack_success", 0.2, attack="a"),
        row(value=0.5, attack="a"),
        row("l2", 1.0, attack="a"),
        row("ssim", 0.9, attack="a"),
        row("psnr", None, attack="b"),
        row("gone", 0.1),
    )
    second = run(
        row(value=0.25),
        row("psnr", 27.0, attack="a"),
        row("attack_success", 0.4, attack="a"),
        row(value=0.75, attack="a"),
        row("l2", 0.75, attack="a"),
        row("ssim", 0.9, attack="a"),
        row("psnr", 31.0, attack="b"),
        row("new", 0.1),
    )
    found = compare(first, second)
    told = [
        (one["metric"], one["attack"], one["difference"], one["change"]) for one in found["rows"]
    ]
    assert told == [
        ("accuracy", "none", -0.25, "worse"),
        ("attack_success", "a", 0.2, "worse"),
        ("psnr", "a", -3.0, "worse"),
        ("psnr", "b", None, "unknown"),
        ("ssim", "a", 0.0, "same"),
        ("accuracy", "a", 0.25, "better"),
        ("l2", "a", -0.25, "better"),
    ]
    assert [size(one) for one in found["rows"][:3]] == [0.25, pytest.approx(0.2), 0.1]
    assert [one["metric"] for one in found["only_first"]] == ["gone"]
    assert [one["metric"] for one in found["only_second"]] == ["new"]
    assert {one["no_interval"] for one in found["rows"]} == {NO_IMAGES, "no value"}
    assert all(one["interval"] is None for one in found["rows"])


def test_what_else_differs() -> None:
    other = {"spec": {**SPEC, "seed": 1, "purifiers": [{"name": "JPEG", "quality": 70}]}}
    model = {"name": "m", "digest": "x"}
    assert list(differing(run().summary, run(model=model, version="2", **other).summary)) == [
        {"field": "version", "first": "1", "second": "2"},
        {"field": "model.name", "first": None, "second": "m"},
        {"field": "model.digest", "first": None, "second": "x"},
        {"field": "spec.seed", "first": 0, "second": 1},
        {"field": "spec.purifiers[0].quality", "first": 40, "second": 70},
    ]
    assert list(differing(run().summary, run().summary)) == []


def test_the_interval_of_a_share_is_newcombes() -> None:
    first, second = [1, 1, 1, 0, 0, 1, 0, 1], [1, 0, 0, 0, 1, 0, 0, 1]
    found, reason = paired(sample(first), sample(second), seed=0)
    assert reason is None
    assert found is not None
    expected = paired_difference(second, first)
    assert (found["difference"], found["low"], found["high"]) == expected
    assert found["difference"] == 3 / 8 - 5 / 8
    assert (found["images"], found["all"], found["method"]) == (8, True, "newcombe")


def test_the_interval_of_a_mean_is_of_paired_differences() -> None:
    generator = np.random.default_rng(5)
    noise = generator.normal(0, 10, 400)
    first, second = noise, noise + 1 + generator.normal(0, 0.1, 400)
    found, _ = paired(sample(list(first), rate=False), sample(list(second), rate=False), seed=0)
    assert found is not None
    assert found["difference"] == pytest.approx(float(np.mean(second - first)))
    spread = 1.96 * float(np.std(second - first, ddof=1)) / math.sqrt(400)
    assert found["low"] == pytest.approx(found["difference"] - spread, abs=0.15 * spread)
    assert found["high"] == pytest.approx(found["difference"] + spread, abs=0.15 * spread)


def test_only_images_of_both_runs_are_paired() -> None:
    one = sample([0.0, 0.0, 0.0, 0.0, 9.0], rate=False)
    shifted = np.array(["i4", "i3", "i2", "i1", "x"])
    other = Sample(shifted, np.array([10.0, 2.0, 2.0, 1.0, 5.0]), np.ones(5, dtype=bool), False)
    found, _ = paired(one, other, seed=0)
    assert found is not None
    assert found["difference"] == (1 + 2 + 2 + 1) / 4
    assert found["images"] == 4
    assert not found["all"]
    apart = Sample(np.array(["y"]), np.ones(1), np.ones(1, dtype=bool), False)
    assert paired(one, apart, seed=0) == (None, NO_COMMON)


def test_figures_that_rest_on_other_images_in_each_run() -> None:
    generator = np.random.default_rng(1)
    hits = (generator.random(300) < 0.5).astype(float)
    among = [int(one) for one in generator.random(300) < 0.8]
    other = [int(one) for one in generator.random(300) < 0.9]
    one, two = sample(list(hits), among), sample(list(1 - hits), other)
    found, _ = paired(one, two, seed=0)
    assert found is not None
    assert found["difference"] == pytest.approx(two.mean - one.mean)
    assert found["low"] < found["difference"] < found["high"]
    assert found["method"] == "paired bootstrap"
    effect = [
        (value - made.mean) * used / used.sum()
        for made in (two, one)
        for value, used in ((made.values, made.among),)
    ]
    spread = math.sqrt(float(((effect[0] - effect[1]) ** 2).sum()))
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * spread, rel=0.1)
    assert found == paired(one, two, seed=0)[0], "the same runs give the same interval"


CHANGES: dict[str, Any] = {
    "dataset": {"kind": "builtin:shapes", "count": 24, "chunk_size": 16},
    "model": {"name": "shapes-cnn"},
    "attacks": [{**ATTACK[0], "epsilon": "16/255", "step_size": "8/255"}],
    "detectors": [
        {
            "name": "GradientMask",
            "label": "gm",
            "fpr": 0.3,
            "policy": ["observe", "reject", "purify-if-flagged"],
        }
    ],
    "metrics": ["accuracy", "attack_success", "label_recovery", "balanced_accuracy", "psnr", "l2"],
}


def quality(value: int) -> list[dict[str, Any]]:
    return [{"name": "JPEG", "label": "jpeg", "quality": value}]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs: ``a``, now with another purifier than before, and ``b`` of fewer images."""
    folder = tmp_path_factory.mktemp("runs")
    fewer = {"dataset": {**CHANGES["dataset"], "count": 20}}
    for name, more in (
        ("a", {"purifiers": quality(20)}),
        ("a", {"purifiers": quality(90)}),
        ("b", {"purifiers": quality(20), **fewer}),
    ):
        state, _ = toy.run(toy.bench(folder, **{**CHANGES, **more, "name": name}))
        write_outputs(state, lambda *_: "")
    return folder / "store"


def test_every_mean_is_made_again_of_its_images(store: Path) -> None:
    found = open_finished("a", str(store))
    assert found.images is not None
    without = set()
    for one in found.summary["rows"]:
        made = found.images.sample(one)
        if made is None:
            without.add(one["metric"])
        else:
            assert made.mean == pytest.approx(one["value"])
            assert int(made.among.sum()) == one["n"]
    curves = {"roc_auc", "tpr_at_fpr_0.001", "tpr_at_fpr_0.01", "tpr_at_fpr_0.05"}
    assert without == {*curves, "balanced_accuracy"}


def test_columns_of_another_run_are_not_taken_for_those_of_this_one(store: Path) -> None:
    found = open_finished("a", str(store))
    [before] = entries(store / "a")
    entry = json.loads(before.read_text())
    images = Images(store / "a", entry)
    changed = [
        one
        for one, now in zip(entry["rows"], found.summary["rows"], strict=True)
        if one["metric"] == "psnr" and one["value"] != now["value"]
    ]
    assert len(changed) == 2
    assert [images.sample(one) for one in changed] == [None, None]


def test_runs_by_name_file_folder_and_number(store: Path) -> None:
    present = open_finished("a", str(store))
    [past] = entries(store / "a")
    assert open_finished(str(store / "a"), "x").summary == present.summary
    assert open_finished(str(store / "a/summary.json"), "x").summary == present.summary
    earlier = open_finished("a@1", str(store))
    assert earlier.images is None
    assert earlier.title.startswith("a until 2")
    assert earlier.summary == open_finished(str(past), "x").summary
    assert earlier.summary["spec"]["purifiers"][0]["quality"] == 20


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c", "found no summary.json"),
        ("a@2", "expected a run with 2 earlier results, a has 1"),
        ("no/such", "expected a run's folder, summary.json or name"),
        ("a/stages.json", "expected summary.json or a file of a run's history"),
    ],
)
def test_runs_that_are_not_there(store: Path, name: str, text: str) -> None:
    given = str(store / name) if name.endswith(".json") else name
    with pytest.raises(SpecError, match=text.replace(".", r"\.")):
        open_finished(given, str(store))


def test_two_runs_of_the_same_images(store: Path, tmp_path: Path) -> None:
    assert open_finished("b", str(store)).images is not None
    first, second = (open_finished(name, str(store)) for name in ("b", "a"))
    found = compare(first, second)
    told = {one["field"]: (one["first"], one["second"]) for one in found["differs"]}
    assert told["spec.purifiers[0].quality"] == (20, 90)
    assert told["spec.dataset.count"] == (20, 24)
    assert told["dataset.images"] == (20, 24)
    psnr = next(one for one in found["rows"] if one["metric"] == "psnr" and one["attack"] == "none")
    assert psnr["change"] == "better"
    interval = psnr["interval"]
    assert (interval["images"], interval["all"]) == (20, False)
    assert 0 < interval["low"] < interval["difference"] < interval["high"]
    by_hand = []
    for which, name in ((first, "b"), (second, "a")):
        assert which.images is not None, name
        [stated] = [
            one
            for one in which.summary["rows"]
            if (one["metric"], one["attack"], one["purifier"]) == ("psnr", "none", "jpeg")
        ]
        made = which.images.sample(stated)
        assert made is not None
        by_hand.append(dict(zip(made.ids.tolist(), made.values.tolist(), strict=True)))
    common = sorted(set(by_hand[0]) & set(by_hand[1]))
    assert len(common) == 20
    mean = sum(by_hand[1][one] - by_hand[0][one] for one in common) / 20
    assert interval["difference"] == pytest.approx(mean)
    reasons = {one["metric"]: one["no_interval"] for one in found["rows"] if not one["interval"]}
    assert reasons["roc_auc"] == NO_MEAN


def test_plots_hold_what_changed_and_say_so_in_words() -> None:
    first = run(
        row(value=0.5),
        row("psnr", 30.0, attack="a"),
        row("psnr", 29.0, attack="b"),
        row("ssim", 0.9, attack="a"),
    )
    second = run(
        row(value=0.25),
        row("psnr", 27.0, attack="a"),
        row("psnr", 29.5, attack="b"),
        row("ssim", 0.9, attack="a"),
    )
    shares, decibels = difference_plots(compare(first, second)["rows"])
    assert shares.alt == "Shares. accuracy · no attack · no purifier: 50 to 25, worse"
    assert decibels.alt == (
        "psnr, dB. a · no purifier: 30 to 27, worse; b · no purifier: 29 to 29.5, better"
    )
    assert "ssim" not in shares.svg
    assert "-25.0 pp" in shares.svg
    many = [row(value=0.5, attack=f"a{n}") for n in range(MOST + 6)]
    lower = [row(value=0.5 - n / 100, attack=f"a{n}") for n in range(MOST + 6)]
    [plot] = difference_plots(compare(run(*many), run(*lower))["rows"])
    assert plot.title == f"Shares, the {MOST} of {MOST + 5} that changed most"
    assert "a29 ·" in plot.svg
    assert "a5 ·" not in plot.svg
