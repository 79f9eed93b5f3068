from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.errors import SpecError
from tasks.spec_files import parse
from tasks.sweep_specs import (
    Candidate,
    RangeSpec,
    SearchSpec,
    SweepSpec,
    load_sweep_spec,
    text_of,
)
from tasks.sweeping import Sweep
from tests import toy
from tests.tasks.test_quality_runs import quality

SEARCH: dict[str, Any] = {
    "trials": 6,
    "space": ["jpeg({quality})", "median({window}) > unsharp({amount})", "flip"],
    "ranges": {
        "quality": {"low": 10, "high": 95, "step": 5},
        "window": [3, 5],
        "amount": {"low": 0, "high": 1.5},
    },
}


def content(search: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A sweep on a quality metric over 8 images, with two attacks and a purifier to compare."""
    base = toy.content(**quality(purifiers=[{"name": "resize(0.5)", "label": "half"}]))
    base = {k: v for k, v in base.items() if k not in ("detectors", "metrics", "model")}
    base |= {"name": "toy", "dataset": {"kind": "builtin:shapes", "count": 8}}
    base |= {"sweep": {**SEARCH, **(search or {})}, **changes}
    return {k: v for k, v in base.items() if v is not None}


def spec(search: dict[str, Any] | None = None, **changes: Any) -> SweepSpec:
    return parse(SweepSpec, content(search, **changes), "my.yaml")


def search(**changes: Any) -> SearchSpec:
    return SearchSpec.model_validate({**SEARCH, **changes})


def test_a_sweep_is_read_and_its_run_is_that_of_any_specification() -> None:
    made = spec()
    assert made.objectives == ("gain", "quality")
    run = made.run("jpeg(40)")
    assert run.metrics == ("gain", "quality", "srcc")
    assert [one.name for one in run.purifiers] == ["resize(0.5)", "jpeg(40)"]
    assert made.run().purifiers == made.purifiers
    assert run.attacks == made.attacks


def test_objectives_of_a_model_are_accuracies() -> None:
    made = spec(metric=None, model={"name": "python:tests.toy:make_model"})
    assert made.objectives == ("accuracy", "clean_accuracy")
    assert made.run().metrics == ("accuracy", "label_recovery")


def test_a_candidate_is_written_as_a_composition() -> None:
    made = Candidate("median({window}) > unsharp({amount})", {"window": 3, "amount": 0.25})
    assert made.text == "median(3) > unsharp(0.25)"
    assert [text_of(value) for value in (True, 3, 0.1 + 0.2, 1e-5, "8/255")] == [
        *("true", "3", "0.3", "1e-05", "8/255")
    ]


@pytest.mark.parametrize(
    ("given", "count", "values"),
    [
        ([3, 5, 9], 3, [3, 5, 9]),
        (["both", True], 2, ["both", True]),
        ({"low": 2, "high": 5}, 4, [2, 3, 4, 5]),
        ({"low": 10, "high": 20, "step": 5}, 3, [10, 15, 20]),
        ({"low": 0, "high": 0.3, "step": 0.1}, 4, [0.0, 0.1, 0.2, 0.3]),
        ({"low": "1/4", "high": 1.5}, math.inf, [0.25, 1.5]),
        ({"low": 1, "high": 1000}, 1000, [1, 1000]),
    ],
)
def test_values_of_a_range(given: Any, count: float, values: list[Any]) -> None:
    made = RangeSpec.model_validate(given)
    assert made.count == count
    assert list(made.values(256)) == values


def test_numbers_between_have_four_digits_and_stay_within_the_bounds() -> None:
    made = RangeSpec(low=0.12344, high=2.34567)
    assert made.number(1.234567) == 1.235
    assert made.number(0.12344) == 0.12344
    assert made.number(2.34567) == 2.34567
    assert RangeSpec(low=0, high=1, step=0.1).number(0.30000000000000004) == 0.3


def test_the_size_of_a_space_is_that_of_its_templates_together() -> None:
    assert search().size == math.inf
    ranges = {**SEARCH["ranges"], "amount": [0.5, 1]}
    assert search(ranges=ranges).size == 18 + 2 * 2 + 1


def test_probes_reach_every_value() -> None:
    made = search(space=["a({x}, {y})"], ranges={"x": [1, 2], "y": {"low": 0, "high": 2}})
    assert [one.text for one in made.probes("a({x}, {y})")] == [
        *("a(1, 0)", "a(1, 1)", "a(1, 2)", "a(2, 0)", "a(2, 1)", "a(2, 2)")
    ]
    assert [one.text for one in made.probes("a({x}, {y})", most=5)] == [
        *("a(1, 0)", "a(2, 0)", "a(1, 0)", "a(1, 1)", "a(1, 2)")
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"trials": 0}, ["sweep.trials", "got 0"]),
        ({"trails": 3}, ["sweep.trails: unknown field (did you mean trials?)"]),
        ({"space": []}, ["sweep.space"]),
        ({"space": ["jpeg({quality)"]}, ["sweep.space: expected parameters such as {window}"]),
        ({"space": ["flip", "flip"]}, ["sweep.space: expected every template once"]),
        ({"ranges": {}}, ["sweep.ranges: expected a range for {quality}"]),
        ({"space": ["jpeg({quality})"]}, ["sweep.ranges: expected ranges of parameters of the"]),
        ({"ranges": {"qualty": [1]}}, ["for {quality} (did you mean qualty?)"]),
        ({"sampler": "cma"}, ["sweep.sampler", "got 'cma'"]),
        ({"objectives": ["gian"]}, ["sweep.objectives", "did you mean gain?"]),
        ({"objectives": ["gain", "gain"]}, ["sweep.objectives: expected every name once"]),
        ({"constraints": {"clean_gain": ".inf"}}, ["sweep.constraints: expected a finite bound"]),
        ({"constraints": {"psnr": 3}}, ["sweep.constraints: expected names among gain"]),
    ],
)
def test_mistakes_name_the_field(change: dict[str, Any], words: list[str]) -> None:
    changed = yaml.safe_load(yaml.safe_dump(change).replace("'.inf'", ".inf"))
    with pytest.raises(SpecError) as caught:
        spec(changed)
    for word in ["my.yaml: ", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "sweep.ranges.x: expected low and high, or a list of choices"),
        ({"low": 3}, "expected low and high"),
        ({"low": 3, "high": 3}, "expected low < high"),
        ({"low": 0, "high": 1, "log": True}, "log: expected low > 0 and no step"),
        ({"low": 0, "high": 1, "step": 0.3}, "a whole number of steps of 0.3"),
        ({"low": 0, "high": 1, "step": -1}, "sweep.ranges.x.step"),
        ({"low": 0, "high": 1, "steps": 2}, "sweep.ranges.x.steps: unknown field"),
        ({"choices": [1], "low": 0}, "either choices or low and high"),
        ([3, 3], "sweep.ranges.x.choices: expected different choices"),
        ("wide", "sweep.ranges.x"),
    ],
)
def test_mistakes_in_ranges_name_the_parameter(given: Any, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec({"space": ["jpeg({x})"], "ranges": {"x": given}})
    assert words in str(caught.value)


@pytest.mark.parametrize("field", ["detectors", "metrics", "examples", "calibration", "baseline"])
def test_what_belongs_to_runs_only_is_refused(field: str) -> None:
    given = {"examples": 1}.get(field, [] if field in ("detectors", "metrics") else "x")
    with pytest.raises(SpecError, match=f"{field}: a sweep has no such field"):
        spec(**{field: given})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sweep": {"objectives": ["accuracy"]}}, "sweep.objectives: expected one of gain"),
        ({"sweep": {"constraints": {"clean_accuracy": 1}}}, "sweep.constraints: expected one of"),
        ({"attacks": []}, "attacks: expected some, because gain is a mean over attacks"),
        ({"metric": None}, "metric: a sweep expected a quality metric or a model"),
        (
            {"sweep": {"space": ["jepg({x})"], "ranges": {"x": [1]}}},
            r"sweep.space\[0\]: 'jepg\(1\)': expected one of",
        ),
        (
            {"sweep": {"space": ["flip", "median({x})"], "ranges": {"x": {"low": 3, "high": 7}}}},
            r"sweep.space\[1\]\.window: expected an odd number >= 1, got 4",
        ),
        (
            {"sweep": {"space": ["jpeg({x})"], "ranges": {"x": {"low": 1, "high": 101}}}},
            r"sweep.space\[0\]\.quality: expected \[1, 95\], got 96",
        ),
        (
            {"purifiers": [{"name": "flip", "label": "candidate"}]},
            r"purifiers\[0\].label: expected another label than 'candidate'",
        ),
        (
            {"attacks": [{"name": "FGSM", "epsilon": 0.1, "purifiers": []}]},
            r"attacks\[0\].purifiers: a sweep tries every purifier",
        ),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_is_computed(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    given = dict(change)
    made = spec(given.pop("sweep", None), **{"purifiers": [], **given})
    with pytest.raises(SpecError, match=words):
        Sweep(made, tmp_path, str(tmp_path / "store")).check()


def test_purifiers_that_are_told_the_clean_original_are_refused(tmp_path: Path) -> None:
    space = ["separatecorrectcombine(variant=reference, steps={steps})"]
    made = spec(
        {"space": space, "ranges": {"steps": [1, 2]}, "objectives": ["accuracy"]},
        metric=None,
        model={"name": "python:tests.toy:make_model"},
        attacks=[{"name": "FGSM", "epsilon": 0.1}],
    )
    with pytest.raises(SpecError, match="works without the clean original"):
        Sweep(made, tmp_path, str(tmp_path / "store")).check()


def test_a_file_is_read_with_changes(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(content()))
    made = load_sweep_spec(path, ["sweep.trials=3", "sweep.ranges.quality.low=50"], limit=2)
    assert made.sweep.trials == 3
    assert made.sweep.ranges["quality"].bounds == (50, 95)
    assert made.dataset.limit == 2
