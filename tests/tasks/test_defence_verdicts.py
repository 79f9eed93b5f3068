"""Which defence is broken by which attack: facts from hand-made rows, and of runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.attackers import Attacker, attackers_of
from tasks.defence_verdicts import Defence, judge
from tests import toy
from tests.tasks.test_face_runs import ATTACK, faces

Row = dict[str, Any]
BALL = ("linf", 8 / 255, None)


def row(
    value: float,
    attack: str = "none",
    purifier: str = "none",
    metric: str = "accuracy",
    spread: float = 0.02,
    **more: Any,
) -> Row:
    return {
        "attack": attack,
        "purifier": purifier,
        "metric": metric,
        "policy": "none",
        "knowledge": "none" if purifier == "none" else "blind",
        "draws": 1,
        "value": value,
        "ci_low": value - spread,
        "ci_high": value + spread,
        "n": 1000,
        **more,
    }


APGD = Attacker("apgd", steps=40, ball=BALL)
SQUARE = Attacker("square", "query", ball=BALL)
BPDA = Attacker("bpda", through="p", steps=40, ball=BALL)
EXACT = Attacker("exact", through="p", exact=True, draws=4, steps=40, ball=BALL)
CLEAN = [row(0.9), row(0.8, purifier="p"), row(0.0, "apgd", spread=0.001)]


def of(rows: list[Row], *attackers: Attacker) -> Defence:
    [found] = [one for one in judge(rows, attackers) if one.purifier == "p"]
    return found


def test_kinds_depend_on_the_defence_that_an_attack_is_made_through() -> None:
    assert (APGD.kinds("p"), APGD.knows("p"), APGD.knows("none")) == (("oblivious",), False, True)
    assert (BPDA.kinds("p"), BPDA.kinds("q"), BPDA.kinds("none")) == (
        ("bpda",),
        ("transfer",),
        ("transfer",),
    )
    assert EXACT.kinds("p") == ("full-gradient", "eot")
    assert Attacker("e", through="p", draws=3).kinds("p") == ("bpda", "eot")
    asked = Attacker("s", "query", through="p")
    assert (asked.kinds("p"), asked.knows("p"), SQUARE.knows("p")) == (("query",), True, False)
    assert Attacker("t", elsewhere=True).kinds("none") == ("transfer",)


@pytest.mark.parametrize(
    ("value", "status"),
    [(0.43, "broken"), (0.44, "undecided"), (0.46, "undecided"), (0.5, "holds")],
)
def test_half_of_the_clean_accuracy_of_the_bare_model_is_the_limit(
    value: float, status: str
) -> None:
    found = of([*CLEAN, row(value, "bpda", "p")], APGD, BPDA)
    assert found.limit == 0.45
    assert found.status == status
    assert [one.attack for one in found.broken_by] == (["bpda"] if status == "broken" else [])


def test_an_attack_through_another_purifier_does_not_know_this_one() -> None:
    other = Attacker("other", through="q", steps=40, ball=BALL)
    found = of([*CLEAN, row(0.6, "other", "p"), row(0.7, "apgd", "p")], APGD, other)
    assert (found.status, found.tested) == ("untested", False)
    assert found.strongest["unaware"].attack == "other"
    assert set(found.strongest) == {"unaware"}


def test_the_strongest_of_each_kind_and_the_mean_of_draws() -> None:
    rows = [
        *CLEAN,
        row(0.7, "apgd", "p"),
        row(0.6, "square", "p"),
        row(0.5, "bpda", "p"),
        row(0.9, "exact", "p"),
        row(0.3, "exact", "p", "accuracy_mean", draws=10),
        row(0.1, "exact", "p", "accuracy_worst", draws=10),
        row(0.2, "apgd", "p", "accuracy_worst", draws=10),
        row(0.5, "exact", "p", "accuracy_majority", draws=10),
    ]
    found = of(rows, APGD, SQUARE, BPDA, EXACT)
    assert {name: (f.attack, f.value) for name, f in found.strongest.items()} == {
        "unaware": ("square", 0.6),
        "bpda": ("bpda", 0.5),
        "eot": ("exact", 0.3),
        "full-gradient": ("exact", 0.3),
        "query": ("square", 0.6),
    }
    assert found.worst is not None
    assert found.majority is not None
    assert (found.worst.attack, found.worst.value, found.draws) == ("exact", 0.1, 10)
    assert found.majority.value == 0.5
    assert found.broken_by[0].kind == "full-gradient, eot"


def test_statuses_besides_broken() -> None:
    tries = row(0.1, "bpda", "p", "accuracy_worst", draws=10)
    assert of([*CLEAN, row(0.6, "bpda", "p"), tries], APGD, BPDA).status == "broken-by-tries"
    weak = [row(0.9), row(0.8, purifier="p"), row(0.7, "apgd"), row(0.69, "bpda", "p")]
    assert of(weak, APGD, BPDA).status == "no-better"
    useless = [row(0.9), row(0.4, purifier="p"), row(0.3, "bpda", "p")]
    assert of(useless, APGD, BPDA).status == "useless"


def test_intervals_without_any_spread_are_wilsons() -> None:
    few = {"spread": 0.0, "n": 3}
    found = of([*CLEAN, row(0.0, "bpda", "p", **few)], APGD, BPDA)
    assert found.strongest["bpda"].ci_high == pytest.approx(3.8416 / 6.8416, abs=1e-4)
    assert found.status == "undecided"


def test_controls_policies_and_methods_that_are_given_the_original_do_not_count() -> None:
    told = row(0.9, "apgd", "t", knowledge="reference")
    policy = row(0.1, "bpda", "p", policy="reject")
    found = judge([*CLEAN, told, row(0.7, "apgd", "p"), policy], [APGD, BPDA])
    assert [one.purifier for one in found] == ["none", "p"]
    assert found[1].status == "untested"
    assert judge([*CLEAN, row(0.7, "control", "p")], [APGD]) == []
    assert judge([row(0.9), row(0.0, "apgd")], [APGD]) == []


def masked(*given: tuple[Attacker, float]) -> list[tuple[str, str, str]]:
    rows = [*CLEAN, *(row(value, one.label, "p") for one, value in given)]
    found = of(rows, *(one for one, _ in given))
    return [(sign["sign"], sign["by"]["attack"], sign["than"]["attack"]) for sign in found.masked]


def test_gradients_that_lead_nowhere_whatever_the_radius() -> None:
    def wide(radius: float, label: str = "wide", **more: Any) -> Attacker:
        return replace(BPDA, label=label, ball=("linf", radius, None), **more)

    assert masked((BPDA, 0.4), (wide(0.1), 0.6)) == [("larger", "bpda", "wide")]
    assert masked((BPDA, 0.4), (wide(0.1), 0.43)) == []
    assert masked((BPDA, 0.6), (wide(0.1), 0.4)) == []
    for other in (wide(0.1, steps=80), wide(0.1, algorithm="PGD"), wide(0.1, exact=True)):
        assert masked((BPDA, 0.4), (other, 0.6)) == []
    assert masked((wide(1.0), 0.2)) == [("unbounded", "wide", "wide")]
    assert masked((wide(1.0), 0.02)) == []
    assert masked((replace(BPDA, ball=("linf", 1.0, 3)), 0.2)) == []
    assert masked((replace(BPDA, ball=("l2", 1.0, None)), 0.2)) == []


def test_signs_of_masked_gradients() -> None:
    asked = Attacker("asked", "query", through="p", ball=BALL)
    assert masked((BPDA, 0.6), (EXACT, 0.5), (asked, 0.4)) == [("query", "asked", "exact")]
    assert masked((BPDA, 0.6), (APGD, 0.4)) == [("unaware", "apgd", "bpda")]
    one = Attacker("one", through="p", steps=1, ball=BALL)
    assert masked((BPDA, 0.6), (one, 0.4)) == [("one-step", "one", "bpda")]
    assert masked((BPDA, 0.4), (asked, 0.37)) == []
    assert masked((BPDA, 0.4), (EXACT, 0.6), (asked, 0.5)) == []


def test_only_attacks_of_the_same_ball_are_compared() -> None:
    for ball in (("linf", 16 / 255, None), ("l2", 8 / 255, None), ("linf", 8 / 255, 3), None):
        assert masked((BPDA, 0.6), (Attacker("wide", "query", through="p", ball=ball), 0.1)) == []
    narrow = Attacker("narrow", "query", through="p", ball=("linf", 4 / 255, None))
    assert masked((BPDA, 0.6), (narrow, 0.1)) == [("query", "narrow", "bpda")]


def face_rows(value: float, refused: float = 0.2) -> list[Row]:
    return [
        row(0.2, metric="frr"),
        row(0.01, metric="far"),
        row(refused, purifier="p", metric="frr"),
        row(0.95, "apgd", metric="far"),
        row(value, "bpda", "p", "far"),
    ]


@pytest.mark.parametrize(
    ("value", "far", "status"),
    [
        (0.11, 0.01, "undecided"),
        (0.13, 0.01, "broken"),
        (0.05, 0.01, "holds"),
        (0.51, 0.1, "undecided"),
    ],
)
def test_ten_times_the_calibrated_far_is_the_limit(value: float, far: float, status: str) -> None:
    found = judge(face_rows(value), [APGD, BPDA], {"none": far, "p": far})[1]
    assert found.limit == min(0.5, 10 * far)
    assert found.status == status


def test_a_face_defence_that_refuses_most_is_of_no_use_but_can_be_broken_too() -> None:
    limits = {"none": 0.01, "p": 0.01}
    found = judge(face_rows(0.05, refused=0.65), [APGD, BPDA], limits)[1]
    assert (found.status, found.costly) == ("useless", True)
    found = judge(face_rows(0.5, refused=0.65), [APGD, BPDA], limits)[1]
    assert (found.status, found.costly) == ("broken", True)


def test_attacks_of_a_run_by_what_they_know(tmp_path: Path) -> None:
    attacks = [
        {"name": "FGSM", "label": "one", "epsilon": 0.1},
        {
            "name": "APGD",
            "label": "in",
            "epsilon": 0.1,
            "through": "median",
            "draws": 2,
            "norm": "l2",
        },
        {"name": "Square", "label": "asks", "epsilon": 0.1, "queries": 1, "target": 1},
        {"name": "Corruption", "label": "calm", "kind": "jpeg"},
        {"name": "RandomNoise", "label": "noise", "epsilon": 0.1},
    ]
    [one, inside, asks] = attackers_of(toy.bench(tmp_path, attacks=attacks))
    assert one == Attacker("one", steps=1, ball=("linf", 0.1, None), algorithm="FGSM")
    assert inside == Attacker(
        *("in", "oblivious", "median"), draws=2, steps=40, ball=("l2", 0.1, None), algorithm="APGD"
    )
    assert asks == Attacker("asks", "query", ball=("linf", 0.1, 1), algorithm="Square")
    dodge = faces(attacks=[{**ATTACK, "name": "PGD", "aim": "dodge"}])
    assert attackers_of(toy.bench(tmp_path, **dodge)) == []


def test_facts_are_plain_json() -> None:
    found = judge([*CLEAN, row(0.3, "bpda", "p")], [APGD, BPDA])
    assert json.loads(json.dumps(found[1].as_dict()))["strongest"]["bpda"]["value"] == 0.3
