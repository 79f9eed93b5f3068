from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from defender.attacks import ATTACKS
from defender.detectors import DETECTORS
from defender.purifiers import PURIFIERS
from tasks.building import build, parameter_fields
from tasks.defences import PURIFIER_KINDS
from tasks.errors import SpecError
from tasks.precomputed import ATTACK_KINDS
from tasks.spec_files import load_spec, override, parse_spec
from tasks.specs import (
    AlgorithmSpec,
    AttackSpec,
    DetectorSpec,
    PurifierSpec,
    label_of,
    parse_number,
)
from tests import toy


def test_a_specification_is_read() -> None:
    spec = parse_spec(toy.content())
    assert spec.attacks[0].parameters == {
        "epsilon": "8/255",
        "step_size": "2/255",
        "steps": 2,
    }
    assert spec.detectors[0] == DetectorSpec(name="GradientMask")
    assert spec.dataset.options == {"count": 48}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"modle": {}}, ["modle: unknown field (did you mean model?)"]),
        ({"model": {"nmae": "x"}}, ["model.name", "model.nmae: unknown field"]),
        ({"compute": {"batch": 0}}, ["compute.batch", "greater than or equal to 1", "got 0"]),
        ({"compute": {"bacth": 1}}, ["compute.bacth: unknown field (did you mean batch?)"]),
        ({"dataset": {}}, ["dataset.kind: expected a value, got nothing"]),
        ({"dataset": "cifar"}, ["dataset", "got 'cifar'"]),
        ({"name": "a/b"}, ["name", "got 'a/b'"]),
        ({"name": "data"}, ["name: expected another name"]),
        ({"attacks": [{"epsilon": 1}]}, ["attacks[0].name: expected a value, got nothing"]),
        ({"attacks": [7]}, ["attacks[0]", "got 7"]),
        ({"detectors": [{"name": "x", "policy": "drop"}]}, ["detectors[0].policy", "got 'drop'"]),
        ({"seed": -1}, ["seed", "got -1"]),
    ],
)
def test_mistakes_name_the_field(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(toy.content(**change), "my.yaml")
    text = str(caught.value)
    assert text.startswith("my.yaml: ")
    assert "\n" not in text
    for word in words:
        assert word in text


@pytest.mark.parametrize("content", [None, [], "text", 3])
def test_content_that_is_no_mapping(content: Any) -> None:
    with pytest.raises(SpecError, match="expected a mapping of fields"):
        parse_spec(content)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="found none"):
        load_spec(tmp_path / "absent.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1\nb: 2")
    with pytest.raises(SpecError, match="expected YAML"):
        load_spec(broken)
    broken.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="cannot be read"):
        load_spec(broken)


def test_overrides_reach_into_lists_and_make_sections(tmp_path: Path) -> None:
    path = toy.write_spec(tmp_path)
    spec = load_spec(path, ["attacks.0.epsilon=4/255", "compute.workers=2", "examples=0"], limit=9)
    assert spec.attacks[0].parameters["epsilon"] == "4/255"
    assert spec.compute.workers == 2
    assert spec.dataset.limit == 9
    assert override({}, ["a.b.c=[1, 2]"]) == {"a": {"b": {"c": [1, 2]}}}


@pytest.mark.parametrize("word", ["epsilon", "=3", "attacks.9.epsilon=1", "name.x=1", "a=[1"])
def test_overrides_that_lead_nowhere(word: str) -> None:
    with pytest.raises(SpecError, match="--set"):
        override(toy.content(), [word])


def test_fractions_are_numbers() -> None:
    assert parse_number("8/255") == 8 / 255
    assert parse_number("0.5/2") == 0.25
    assert parse_number("8/0") == "8/0"
    assert parse_number("name") == "name"
    assert parse_number(3) == 3


@pytest.mark.parametrize("name", ["IFGSM", "ifgsm", "I-FGSM", "i_fgsm"])
def test_algorithms_are_found_however_written(name: str) -> None:
    spec = AlgorithmSpec.model_validate({"name": name, "epsilon": "8/255"})
    assert build(ATTACKS, spec, "attacks[0]").epsilon == 8 / 255


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"name": "IFSGM"}, r"attacks\[2\].name: expected one of .*did you mean IFGSM\?"),
        ({"name": "IFGSM", "eps": 1}, r"attacks\[2\].eps: unknown parameter of IFGSM"),
        ({"name": "IFGSM", "epsilon": -1}, r"attacks\[2\].epsilon: expected \[0, 1\], got -1"),
        ({"name": "IFGSM", "epsilon": "much"}, r"attacks\[2\].epsilon: expected a number"),
        ({"name": "IFGSM", "steps": 1.5}, r"attacks\[2\].steps: expected a whole number"),
        ({"name": "IFGSM", "epsilon": float("nan")}, r"attacks\[2\].epsilon: expected \[0, 1\]"),
        ({"name": "FGSM"}, r"attacks\[2\].epsilon: expected a value for FGSM, got nothing"),
    ],
)
def test_wrong_parameters_are_named(content: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError, match=text):
        build(ATTACKS, AttackSpec.model_validate(content), "attacks[2]")


def test_labels_say_what_was_set() -> None:
    assert label_of(AttackSpec(name="FGSM")) == "FGSM"
    given = {"name": "IFGSM", "epsilon": "8/255", "target": 3, "through": "jpeg", "draws": 4}
    label = "IFGSM(epsilon=8/255, target=3, through=jpeg, draws=4)"
    assert label_of(AttackSpec.model_validate(given)) == label
    assert label_of(AttackSpec(name="FGSM", label="mine")) == "mine"


def test_labels_must_differ(tmp_path: Path) -> None:
    twice = [{"name": "FGSM", "epsilon": 0.1}, {"name": "FGSM", "epsilon": 0.1}]
    with pytest.raises(SpecError, match=r"attacks\[1\].label: expected a label of its own"):
        toy.bench(tmp_path, attacks=twice)


def test_an_attack_through_an_unknown_or_told_purifier(tmp_path: Path) -> None:
    attack = {"name": "FGSM", "epsilon": 0.1, "through": "absent"}
    with pytest.raises(SpecError, match=r"through: expected the label of a purifier, got 'absent'"):
        toy.bench(tmp_path, attacks=[attack]).check()
    with pytest.raises(SpecError, match="works without the clean original"):
        toy.bench(tmp_path, attacks=[{**attack, "through": "reference"}]).check()


def test_unknown_metrics_datasets_and_options(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"metrics\[0\]: expected one of .* got 'psnrr'"):
        toy.bench(tmp_path, metrics=["psnrr"])
    with pytest.raises(SpecError, match=r"dataset.kind: .*did you mean cifar10\?"):
        toy.bench(tmp_path, dataset={"kind": "cifar1O"}).check()
    with pytest.raises(SpecError, match=r"dataset.cuont: unknown option.*did you mean count\?"):
        toy.bench(tmp_path, dataset={"kind": "builtin:shapes", "cuont": 3}).check()
    with pytest.raises(SpecError, match=r"dataset.path: expected a value"):
        toy.bench(tmp_path, dataset={"kind": "folder"}).check()
    with pytest.raises(SpecError, match=r"dataset.count: expected"):
        toy.bench(tmp_path, dataset={"kind": "builtin:shapes", "count": -1}).check()


def test_presets_stand_for_the_strengths_of_a_benchmark() -> None:
    spec = parse_spec(toy.content(purifiers=[{"preset": "jpeg"}, "Median"]))
    assert [label_of(one) for one in spec.purifiers] == ["jpeg quality=50", "Median"]
    assert spec.purifiers[0].parameters == {"quality": 50}
    five = parse_spec(toy.content(purifiers=[{"preset": "gaussian", "strengths": "all"}]))
    assert [one.parameters["window"] for one in five.purifiers] == [3, 5, 7, 9, 11]
    every = parse_spec(toy.content(purifiers=[{"preset": "all", "strengths": "all"}]))
    assert len(every.purifiers) == 57
    assert len({label_of(one) for one in every.purifiers}) == 57
    for position, one in enumerate(every.purifiers):
        build(PURIFIERS, one, f"purifiers[{position}]")


def test_a_preset_with_a_diffusion_model_takes_it_from_beside_it() -> None:
    stated = {"preset": "diffpure", "strengths": "all", "prior": "prior-cifar10"}
    five = parse_spec(toy.content(purifiers=[stated])).purifiers
    assert [label_of(one) for one in five][:2] == ["diffpure t=0.005", "diffpure t=0.01"]
    made = [build(PURIFIERS, one, "purifiers[0]") for one in five]
    assert [one.last + 1 for one in made] == [5, 10, 20, 30, 50]
    assert {one.prior.name for one in made} == {"prior-cifar10"}
    usual = parse_spec(toy.content(purifiers=[{**stated, "strengths": "default"}])).purifiers
    assert usual == five[:1]
    names = [
        [
            one.name
            for one in parse_spec(toy.content(purifiers=[{"preset": "all", **more}])).purifiers
        ]
        for more in ({}, {"prior": "prior-cifar10"})
    ]
    assert names[1] == [*names[0], "DiffPure"]
    assert len(names[0]) == 13


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"preset": "jepg"}, "purifiers: preset: expected one of all, .*did you mean jpeg"),
        ({"preset": "jpeg", "strengths": 3}, "strengths: expected default or all, got 3"),
        ({"preset": "jpeg", "quality": 3}, "quality: a preset has no such field"),
        ({"preset": "jpeg", "prior": "prior-cifar10"}, "prior: a preset has no such field"),
        ({"preset": "all", "size": "image"}, "prior: expected a value beside preset all"),
        ({"preset": "diffpure"}, "prior: expected a value beside preset diffpure, got nothing"),
        (
            {"preset": "diffpure", "prior": "prior-cifar10", "t": 0.1},
            "t: a preset has no such field; expected preset, strengths, prior, weights",
        ),
    ],
)
def test_presets_that_are_wrong(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse_spec(toy.content(purifiers=[entry]))


@pytest.mark.parametrize(
    ("kinds", "spec", "shared"),
    [
        (ATTACK_KINDS, AttackSpec, {"target"}),
        (DETECTORS, DetectorSpec, set()),
        (PURIFIER_KINDS, PurifierSpec, set()),
    ],
)
def test_every_parameter_can_be_set(
    kinds: dict[str, type], spec: type[AlgorithmSpec], shared: set[str]
) -> None:
    """A field of the specification of the same name would take the value away."""
    for name, kind in kinds.items():
        taken = set(parameter_fields(kind)) & set(spec.model_fields)
        assert taken <= shared, name
