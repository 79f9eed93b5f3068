"""What the app offers can be made, and its controls stay within what algorithms accept."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from defender.detectors import DETECTORS
from defender.scaling import Pipeline
from tasks import app_choices
from tasks.app_choices import COMPOSITION, NONE, REGISTRIES, Control, choice, families
from tasks.building import build, parameter_fields
from tasks.defences import PURIFIER_KINDS
from tasks.precomputed import ATTACK_KINDS
from tasks.specs import AlgorithmSpec
from tests.toy import make_model

OFFERED = sorted(
    {
        (what, name)
        for family in families().values()
        for what in REGISTRIES
        for name in getattr(family, what)
        if name != NONE
    }
)


def made(what: str, name: str, values: dict[str, Any]) -> Any:
    content = {key: value for key, value in values.items() if value is not None}
    if name == COMPOSITION:
        spec = AlgorithmSpec(name=content["line"])
    else:
        spec = AlgorithmSpec.model_validate({"name": name, **content})
    given = {"model": make_model().eval(), "pipeline": Pipeline("pillow", "linear", False, (8, 8))}
    return build(REGISTRIES[what], spec, what, **given, home=Path(), device=torch.device("cpu"))


@pytest.mark.parametrize(("what", "name"), OFFERED)
def test_first_values_make_the_algorithm(what: str, name: str) -> None:
    controls = choice(what, name).controls
    shown = {control.name: control.show(control.first) for control in controls}
    read = {control.name: control.read(shown[control.name]) for control in controls}
    algorithm = made(what, name, read)
    for control in controls:
        if control.kind in ("number", "whole") and not control.automatic:
            assert getattr(algorithm, control.name) == pytest.approx(control.first, abs=3e-6)


@pytest.mark.parametrize(("what", "name"), OFFERED)
def test_sliders_reach_what_is_allowed_and_no_more(what: str, name: str) -> None:
    for control in choice(what, name).controls:
        if control.kind not in ("number", "whole") or control.automatic:
            continue
        low = -control.reach if control.low is None else control.low
        first = control.show(control.first)
        assert low <= first <= control.reach or control.unit == "/255", control
        assert control.high is None or control.reach <= control.high
        assert 0 < control.step <= control.reach - low
        assert control.doc


@pytest.mark.parametrize(("what", "name"), [one for one in OFFERED if one[1] != COMPOSITION])
def test_every_parameter_has_a_control_with_the_range_of_the_registry(what: str, name: str) -> None:
    declared = parameter_fields(REGISTRIES[what][name])
    controls = {control.name: control for control in choice(what, name).controls}
    assert list(controls) == list(declared)
    for field in declared.values():
        control, kind = controls[field.name], str(field.type)
        if kind.startswith("bool"):
            assert control.kind == "switch"
        elif kind.startswith("str"):
            assert control.kind == ("choice" if field.metadata["choices"] else "text")
            assert control.choices == field.metadata["choices"]
        else:
            wanted = {"int": "whole", "flo": "number", "tup": "numbers"}[kind[:3]]
            assert control.kind == wanted
            factor = 255 if control.unit == "/255" else 1
            for bound in ("low", "high"):
                stated = field.metadata[bound]
                assert getattr(control, bound) == (None if stated is None else factor * stated)
            assert control.open_low == field.metadata["open_low"]
            assert control.automatic == ("None" in kind)
            assert control.unit in ("/255", field.metadata["unit"])
            refuses_what_is_outside(control)


def refuses_what_is_outside(control: Control) -> None:
    outside = []
    if control.low is not None:
        outside.append(control.low if control.open_low else control.low - 1)
    if control.high is not None:
        outside.append(control.high + 1)
    for value in outside:
        with pytest.raises(ValueError, match=f"{control.name}: expected "):
            control.read(str(value) if control.kind == "numbers" else value)


def test_every_kind_of_system_has_what_it_needs() -> None:
    found = families()
    assert list(found) == ["classifier", "scaling", "quality", "patch", "face"]
    for family in found.values():
        assert NONE not in family.attacks
        assert family.purifiers[0] == NONE
        for what in REGISTRIES:
            names = getattr(family, what)
            assert len(set(names)) == len(names)
    offered = {name for family in found.values() for name in family.attacks}
    assert set(ATTACK_KINDS) - offered == {"Precomputed", "ControlPatch"}
    offered = {name for family in found.values() for name in family.detectors}
    assert set(DETECTORS) <= offered
    offered = {name for family in found.values() for name in family.purifiers}
    missing = set(PURIFIER_KINDS) - offered
    assert missing == {"Defense", "Sequence", "Average", "NoiseGate"}


@pytest.mark.parametrize(
    ("shown", "expected"),
    [("8", 8 / 255), (0, 0.0), (255, 1.0)],
)
def test_values_in_255ths(shown: Any, expected: float) -> None:
    control = Control("epsilon", "number", 8 / 255, unit="/255")
    assert control.read(shown) == pytest.approx(expected)
    assert control.show(8 / 255) == 8


@pytest.mark.parametrize("shown", ["", None, "many", math.nan, "inf"])
def test_what_is_no_number_is_named(shown: Any) -> None:
    with pytest.raises(ValueError, match="epsilon: expected a number"):
        Control("epsilon", "number", 0.1).read(shown)


def test_words_and_switches() -> None:
    assert Control("pruned", "switch", True).read(False) is False
    assert Control("weights", "text", "").read(" ") is None
    assert Control("prior", "text", "").read(" prior-cifar10 ") == "prior-cifar10"
    # a word that means something else in YAML, or nothing
    assert Control("layer", "text", "").read("3") == "3"
    assert Control("prior", "text", "").read("[") == "["
    assert Control("steps", "whole", 3).read(7.0) == 7


@pytest.mark.parametrize("empty", [None, "", " "])
def test_what_is_left_empty_is_left_to_the_algorithm(empty: Any) -> None:
    control = Control("window", "whole", None, low=1, automatic=True)
    assert control.read(empty) is None
    assert control.read("3") == 3
    with pytest.raises(ValueError, match=r"window: expected >= 1, got 0"):
        control.read(0)
    with pytest.raises(ValueError, match=r"window: expected a whole number, got 2\.5"):
        control.read(2.5)
    with pytest.raises(ValueError, match="steps: expected a whole number"):
        Control("steps", "whole", 10).read(empty)


def test_several_numbers_in_a_line() -> None:
    (control,) = (c for c in choice("attacks", "ImageScaling").controls if c.kind == "numbers")
    assert control.name == "more_epsilons"
    assert control.read(" ") is None
    assert control.read("2, 4.5 10") == pytest.approx([2 / 255, 4.5 / 255, 10 / 255])
    with pytest.raises(ValueError, match="more_epsilons: expected a number, got 'many'"):
        control.read("2, many")


def test_class_names() -> None:
    names = app_choices.classes_of("torchvision:resnet18")
    assert names is not None
    assert (len(names), names[1]) == (1000, "goldfish")
    assert app_choices.classes_of("cifar-resnet") == app_choices.CIFAR
    assert app_choices.classes_of("unknown") is None
