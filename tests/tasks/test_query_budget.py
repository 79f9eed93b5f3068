"""``--query-budget``: the attacks that it reaches; it is their parameter, set for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.errors import SpecError
from tasks.query_budget import BUDGETED, budget_changes, query_changes
from tasks.spec_files import override, parse_spec
from tasks.specs import label_of
from tests import toy

ATTACKS: list[Any] = [
    {"name": "IFGSM", "epsilon": "8/255"},
    {"name": "square", "label": "square", "epsilon": "8/255", "queries": 10},
    {"name": "NES", "label": "nes", "epsilon": "8/255"},
    {"name": "AutoAttack", "epsilon": "8/255"},
]


def test_it_is_the_parameter_of_every_query_attack(tmp_path: Path) -> None:
    assert set(BUDGETED) == {"Square", "NES"}
    changes = query_changes(toy.write_spec(tmp_path, attacks=ATTACKS), [], 77)
    assert changes == ["attacks.1.queries=77", "attacks.2.queries=77"]


def test_it_comes_after_other_changes(tmp_path: Path) -> None:
    path = toy.write_spec(tmp_path, attacks=ATTACKS)
    assert query_changes(path, ["attacks.0.name=NES"], 9)[0] == "attacks.0.queries=9"
    late = ["attacks.1.queries=5", "attacks.2=FGSM"]
    assert query_changes(path, late, 9) == ["attacks.1.queries=9"]


@pytest.mark.parametrize("entry", ["square(8/255)", {"name": "square(epsilon=8/255, queries=3)"}])
def test_an_attack_written_in_one_line(entry: Any) -> None:
    content = {
        "name": "one-line",
        "dataset": {"kind": "builtin:shapes"},
        "model": {"name": "shapes-cnn"},
        "attacks": [entry],
    }
    (attack,) = parse_spec(override(content, budget_changes(content, 50))).attacks
    assert attack.name == "Square"
    assert attack.parameters == {"epsilon": 8 / 255, "queries": 50}
    assert "queries=50" in label_of(attack)


@pytest.mark.parametrize("attacks", [[], ATTACKS[:1], ["ifgsm(8/255)"], ["square("], [{}], [3]])
def test_a_specification_without_a_query_attack_is_refused(
    tmp_path: Path, attacks: list[Any]
) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump({"attacks": attacks}))
    expected = r"--query-budget: expected an attack .* \(NES, Square\) in .*spec\.yaml, found none"
    with pytest.raises(SpecError, match=expected):
        query_changes(path, [], 100)
