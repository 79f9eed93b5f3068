from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.report import render
from storage.files import store_root, write_atomic
from storage.ledger import digest_of
from tasks import history
from tasks.errors import SpecError
from tasks.outputs import finished, output_findings, write_outputs
from tasks.requirement_specs import RequirementSpec
from tasks.requirements import DETECTION, OF_ATTACKS, judged, matching, missed, sentence
from tasks.survey import Survey
from tests import toy
from tests.cloud import cloud, fresh_url

__all__ = ["cloud"]

ACTING = [{"name": "GradientMask", "label": "gm", "policy": ["reject", "purify-if-flagged"]}]
ATTACK = [{"name": "IFGSM", "label": "pgd", "epsilon": "8/255", "step_size": "2/255", "steps": 2}]

SMALL: dict[str, Any] = {
    "dataset": {"kind": "builtin:shapes", "count": 32, "chunk_size": 16},
    "attacks": ATTACK,
    "detectors": ACTING,
    "purifiers": [{"name": "Median", "label": "median"}],
}


def row(metric: str = "accuracy", value: float | None = 0.5, **more: Any) -> dict[str, Any]:
    places = dict.fromkeys(("attack", "purifier", "detector", "policy"), "none")
    ends = {"ci_low": None, "ci_high": None}
    if value is not None:
        ends = {"ci_low": value - 0.1, "ci_high": value + 0.1}
    return {**places, "knowledge": "none", "metric": metric, "value": value, **ends, "n": 9, **more}


def requirement(**fields: Any) -> RequirementSpec:
    return RequirementSpec.model_validate({"metric": "accuracy", **fields})


ROWS = [
    row(),
    row(attack="pgd"),
    row(attack="fgsm"),
    row(purifier="jpeg"),
    row(attack="pgd", purifier="jpeg"),
    row(attack="pgd", purifier="median"),
    row(attack="pgd", detector="gm", policy="reject"),
    row(attack="pgd", detector="gm", policy="reject", purifier="jpeg"),
    row(attack="pgd", detector="gm", policy="purify-if-flagged", purifier="jpeg"),
    row("attack_success", attack="pgd"),
    row("attack_success", attack="fgsm"),
    row("attack_success", attack="pgd", purifier="jpeg"),
    row("false_positive_rate", detector="gm", policy="observe"),
    row("false_positive_rate", detector="other", policy="observe"),
    row("false_positive_rate", detector="gm", policy="observe", attack="blur"),
    row("roc_auc", detector="gm", policy="observe", attack="pgd"),
]


@pytest.mark.parametrize(
    ("fields", "places"),
    [
        ({}, [0]),
        ({"attack": "pgd"}, [1]),
        ({"attack": "any"}, [1, 2]),
        ({"attack": "*"}, [1, 2]),
        ({"attack": ["none", "any"]}, [0, 1, 2]),
        ({"purifier": "jpeg"}, [3]),
        ({"attack": "pgd", "purifier": "any"}, [4, 5]),
        ({"attack": "pgd", "purifier": ["none", "median"]}, [1, 5]),
        ({"attack": "pgd", "detector": "gm"}, [6]),
        ({"attack": "pgd", "policy": "reject", "purifier": "jpeg"}, [7]),
        ({"attack": "pgd", "policy": "purify-if-flagged"}, [8]),
        ({"metric": "attack_success"}, [9, 10]),
        ({"metric": "attack_success", "purifier": "jpeg"}, [11]),
        ({"metric": "false_positive_rate"}, [12, 13]),
        ({"metric": "false_positive_rate", "detector": "gm", "attack": "blur"}, [14]),
        ({"metric": "roc_auc"}, [15]),
        ({"attack": "fgsm", "purifier": "jpeg"}, []),
    ],
)
def test_rows_that_a_requirement_is_about(fields: dict[str, Any], places: list[int]) -> None:
    assert matching(requirement(min=0, **fields), ROWS) == [ROWS[place] for place in places]


@pytest.mark.parametrize(
    ("limits", "value", "passed"),
    [
        ({"min": 0.5}, 0.5, True),
        ({"min": 0.5}, 0.4999, False),
        ({"max": 0.5}, 0.5, True),
        ({"max": 0.5}, 0.5001, False),
        ({"min": "1/4", "max": 0.5}, 0.3, True),
        ({"min": 0.5, "bound": "ci"}, 0.55, False),
        ({"min": 0.5, "bound": "ci"}, 0.6, True),
        ({"max": 0.5, "bound": "ci"}, 0.45, False),
        ({"max": 0.5, "bound": "ci"}, 0.39, True),
        ({"min": 0.0}, None, False),
        ({"drift": 0.02}, 0.07, True),
        ({"drift": 0.02}, 0.03, True),
        ({"drift": 0.02}, 0.0701, False),
        ({"drift": 0.02}, 0.0299, False),
        ({"drift": 0.02}, None, False),
        ({"drift": 0.02, "min": 0.9}, 0.05, False),
    ],
)
def test_limits(limits: dict[str, Any], value: float | None, passed: bool) -> None:
    [found] = judged([requirement(**limits)], [row(value=value)], [row(value=0.05)])
    assert found["passed"] is passed
    assert found["rows"][0]["passed"] is passed
    assert bool(missed([found])) is not passed


def test_one_broken_row_breaks_a_requirement_and_is_the_one_that_is_named() -> None:
    rows = [row(value=0.6, attack="a"), row(value=0.31, attack="b")]
    last = [row(value=0.6, attack="a"), row(value=0.42, attack="b")]
    [found] = judged([requirement(attack="any", min=0.4)], rows, last)
    assert [one["passed"] for one in found["rows"]] == [True, False]
    assert [one["difference"] for one in found["rows"]] == [0, pytest.approx(-0.11)]
    assert missed([found]) == [
        "require[0]: accuracy of attack b: value 0.31, expected at least 0.4 "
        "(last run 0.42, difference -0.11)"
    ]


def test_a_requirement_without_rows_is_not_met() -> None:
    both = requirement(attack=["pgd", "gone"], min=0)
    found = judged([requirement(attack="gone", min=0), both], ROWS, None)
    assert [one["passed"] for one in found] == [False, False]
    first, second = missed(found)
    assert first.startswith("require[0] (accuracy, attack gone: at least 0): the run has no")
    assert "attack gone" in second
    assert [one["attack"] for one in found[1]["rows"]] == ["pgd"]


def test_drift_without_anything_to_compare_with_passes_and_says_so() -> None:
    [found] = judged([requirement(drift=0.1)], [row()], None)
    assert found["passed"]
    assert found["rows"][0]["notes"] == ["no earlier run to compare with"]
    [found] = judged([requirement(drift=0.1)], [row()], [row("psnr")])
    assert found["passed"]
    assert found["rows"][0]["notes"] == ["not in the last run"]
    [found] = judged([requirement(drift=0.1)], [row()], [row(value=None)])
    assert not found["passed"]


WRONG: list[tuple[Any, str]] = [
    ({"metric": "accurcy", "min": 0}, "require[0].metric: expected one of"),
    ({"metric": "accurcy", "min": 0}, "did you mean accuracy?"),
    ({"metric": "ms_ssim", "min": 0}, "add 'ms_ssim' to metrics"),
    ({"metric": "accuracy_worst", "min": 0}, "purifier with draws above 1"),
    ({"metric": "gain", "max": 0}, "gain is measured with metric only"),
    ({"metric": "far", "max": 0}, "far is measured with encoder only"),
    ({"metric": "accuracy", "attack": "pdg", "min": 0}, "require[0].attack: expected pgd, any"),
    ({"metric": "accuracy", "purifier": "jpeg", "min": 0}, "require[0].purifier: expected median"),
    ({"metric": "accuracy", "detector": "g", "min": 0}, "require[0].detector: expected gm, any"),
    (
        {"metric": "accuracy", "policy": "drop", "min": 0},
        "require[0].policy: expected observe, rej",
    ),
    ({"metric": "accuracy", "policy": "observe", "min": 0}, "expected reject or purify-if-flagged"),
    ({"metric": "psnr", "attack": "pgd", "policy": "reject", "min": 0}, "require[0].metric"),
    ({"metric": "roc_auc", "attack": "none", "min": 0}, "require[0].attack: expected an attack"),
    ({"metric": "roc_auc", "policy": "reject", "min": 0}, "expected policy observe"),
    ({"metric": "roc_auc", "purifier": "median", "min": 0}, "require[0].purifier"),
    ({"metric": "accuracy"}, "require[0]: expected min, max or drift"),
    ({"metric": "accuracy", "min": 0.5, "max": 0.4}, "require[0].min: expected no more than max"),
    ({"metric": "accuracy", "min": 40}, "require[0].min: expected a share in [0, 1], got 40"),
    ({"metric": "accuracy", "drift": 0.1, "bound": "ci"}, "require[0].bound"),
    ({"metric": "accuracy", "drift": -0.1}, "require[0].drift"),
    ({"metric": "accuracy", "min": float("nan")}, "require[0].min: expected a finite number"),
    ({"metric": "accuracy", "attack": [], "min": 0}, "require[0].attack: expected a label"),
    ({"metric": "accuracy", "atack": "pgd", "min": 0}, "require[0].atack: unknown field"),
    ({"min": 0}, "require[0].metric: expected a value"),
]


@pytest.mark.parametrize(("wrong", "text"), WRONG)
def test_mistakes_are_named(tmp_path: Path, wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError) as caught:
        toy.bench(tmp_path, attacks=ATTACK, detectors=ACTING, require=[wrong])
    assert text in str(caught.value)


def test_the_same_figures_are_named_once(tmp_path: Path) -> None:
    one = {"metric": "accuracy", "attack": "none", "min": 0.1}
    with pytest.raises(SpecError, match=r"require\[1\]: expected limits of the same figures"):
        toy.bench(tmp_path, require=[one, {"metric": "accuracy", "max": 0.9}])
    toy.bench(tmp_path, require=[one, {"metric": "accuracy", "min": 0, "bound": "ci"}])


@pytest.mark.parametrize("kept", [{"attacks": []}, {"detectors": []}])
def test_figures_that_the_run_cannot_have(tmp_path: Path, kept: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"require\[0\]"):
        toy.bench(tmp_path, **kept, require=[{"metric": "true_positive_rate", "min": 0}])


def test_a_requirement_in_words() -> None:
    said = sentence(requirement(attack=["a", "b"], min=0.25, drift=0.1, bound="ci"))
    assert said == (
        "accuracy, attack a and b: at least 0.25 with its 95 % interval and within 0.1 of the last "
        "run"
    )


def computed(folder: Path, **changes: Any) -> Survey:
    return toy.run(toy.bench(folder, **{**SMALL, **changes}))[0]


def summarise(state: Survey) -> dict[str, Any]:
    return write_outputs(state, lambda *_: "")


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Survey, dict[str, Any]]:
    """A finished run with requirements, one of which is not met."""
    folder = tmp_path_factory.mktemp("once")
    require = [
        {"metric": "accuracy", "min": 0.05, "drift": 0.5},
        {"metric": "accuracy", "attack": "pgd", "purifier": "median", "min": 0.9},
        {"metric": "false_positive_rate", "detector": "gm", "max": 1},
    ]
    state = computed(folder, require=require)
    return folder, state, write_outputs(state, render)


def test_the_summary_holds_the_requirements(once: tuple[Path, Survey, dict[str, Any]]) -> None:
    _, state, summary = once
    folder = state.bench.store.run("toy")
    assert json.loads((folder / "summary.json").read_bytes())["requirements"] == json.loads(
        json.dumps(summary["requirements"])
    )
    assert [one["passed"] for one in summary["requirements"]] == [True, False, True]
    [broken] = summary["requirements"][1]["rows"]
    [stated] = [
        one
        for one in summary["rows"]
        if (one["attack"], one["purifier"], one["metric"], one["policy"])
        == ("pgd", "median", "accuracy", "none")
    ]
    assert broken["value"] == stated["value"] < 0.9
    assert summary["last"] is None
    assert not (folder / "history").exists()


def test_the_report_says_which_requirements_are_not_met(
    once: tuple[Path, Survey, dict[str, Any]],
) -> None:
    text = (once[1].bench.store.run("toy") / "report.html").read_text()
    assert 'id="requirements"' in text
    assert text.count("✗ not met") == 1
    assert text.count("✓ met") == 2
    assert "1 of 3 requirements are not met: accuracy, attack pgd, purifier median" in "".join(
        text.split("<wbr>")
    )


def test_every_figure_of_a_detector_is_known_as_one(
    once: tuple[Path, Survey, dict[str, Any]],
) -> None:
    observed = {one["metric"] for one in once[2]["rows"] if one["policy"] == "observe"}
    assert observed <= set(DETECTION)
    clean = {one["metric"] for one in once[2]["rows"] if one["attack"] == "none"}
    assert not clean & set(OF_ATTACKS)


def test_other_requirements_cost_no_chunk_but_another_verdict(
    once: tuple[Path, Survey, dict[str, Any]],
) -> None:
    folder, state, _ = once
    assert finished(state)
    kept = [{"metric": "accuracy", "min": 0.01}]
    bench = toy.bench(folder, **SMALL, require=kept)
    again, made = toy.run(bench)
    assert made == []
    assert not finished(again)
    summary = summarise(again)
    assert summary["last"] is None, "the figures are the same: that is no other run"
    assert [one["passed"] for one in summary["requirements"]] == [True]
    write_outputs(state, render)


def test_the_last_run_is_kept_and_compared_with(tmp_path: Path) -> None:
    require = [
        {"metric": "accuracy", "drift": 0.001},
        {"metric": "accuracy", "purifier": "median", "drift": 1},
    ]

    def run(count: int) -> dict[str, Any]:
        dataset = {"kind": "builtin:shapes", "count": count, "chunk_size": 16}
        state = computed(tmp_path, dataset=dataset, require=require)
        return summarise(state)

    first = run(32)
    second = run(16)
    folder = tmp_path / "store/toy"
    [path] = history.entries(folder)
    entry = history.read_entry(path)
    assert entry is not None
    assert entry["rows"] == first["rows"]
    assert second["last"]["name"] == path.name
    assert second["last"]["dataset"] == first["dataset"]["digest"]
    [held] = second["requirements"][0]["rows"]
    before, now = first["rows"], second["rows"]
    value = {
        name: next(r["value"] for r in rows if r["metric"] == "accuracy")
        for name, rows in (("last", before), ("value", now))
    }
    assert held["last"] == value["last"]
    assert held["difference"] == value["value"] - value["last"] != 0
    assert [one["passed"] for one in second["requirements"]] == [False, True]
    assert run(16)["last"] == second["last"], "written again, compared with the same run"
    assert len(history.entries(folder)) == 1
    third = run(32)
    assert third["last"]["dataset"] == second["dataset"]["digest"]
    assert len(history.entries(folder)) == 2
    state = computed(tmp_path, require=require)
    assert list(output_findings(folder)) == []
    assert not any("history" in name for name in json.loads((folder / "run.json").read_text()))
    assert finished(state)


def a_summary(number: int) -> dict[str, Any]:
    dataset = {"digest": f"d{number}", "kind": "k", "classes": ["cat"] * 1000}
    return {"name": "r", "dataset": dataset, "model": None, "rows": [row(value=number / 8)]}


def test_the_history_is_bounded_in_order_and_free_of_repeats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MOST", 3)
    for number in (0, 1, 1, 2, 3, 4):
        history.keep(tmp_path, a_summary(number))
    kept = [history.read_entry(path) for path in history.entries(tmp_path)]
    assert [one and one["dataset"] for one in kept] == [
        {"digest": f"d{number}", "kind": "k"} for number in (2, 3, 4)
    ]
    digest = history.results_digest(a_summary(4))
    assert [one["dataset"]["digest"] for _, one in history.before(tmp_path, digest)] == ["d3", "d2"]


def test_a_history_in_the_cloud(cloud: str) -> None:
    place = store_root(fresh_url(cloud)) / "r"
    assert history.entries(place) == []
    for number in (0, 1, 1):
        history.keep(place, a_summary(number))
    assert [one["dataset"]["digest"] for _, one in history.before(place, "")] == ["d1", "d0"]
    write_atomic(place / "summary.json", json.dumps(a_summary(2)).encode())
    assert history.finished_summary(place, None) == a_summary(2)


def test_damage_in_the_history_is_not_compared_with(tmp_path: Path) -> None:
    for number in (0, 1):
        history.keep(tmp_path, a_summary(number))
    newest = history.entries(tmp_path)[-1]
    newest.write_text(newest.read_text().replace("0.125", "0.126"))
    assert history.read_entry(newest) is None
    assert [one["dataset"]["digest"] for _, one in history.before(tmp_path, "")] == ["d0"]
    content = json.dumps(a_summary(2)).encode()
    (tmp_path / "summary.json").write_bytes(content)
    assert history.finished_summary(tmp_path, None) == a_summary(2)
    assert history.finished_summary(tmp_path, {"summary.json": digest_of("other")}) is None
    (tmp_path / "summary.json").write_bytes(content[:-9])
    assert history.finished_summary(tmp_path, None) is None
