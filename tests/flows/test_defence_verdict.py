"""Which defence is broken by which attack, as a page says it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.defence_verdict import defence_verdict, defences_table, definition
from flows.report import render
from flows.scorecard import BETWEEN
from tasks.attackers import Attacker
from tasks.defence_verdicts import judge
from tasks.outputs import write_outputs
from tests import toy
from tests.flows.page import Page
from tests.flows.test_report import check
from tests.tasks.test_defence_verdicts import APGD, BALL, BPDA, CLEAN, EXACT, SQUARE, face_rows, row
from tests.tasks.test_face_runs import ATTACK, faces

Row = dict[str, Any]


def facts(
    rows: list[Row], *attackers: Attacker, limits: dict[str, float] | None = None
) -> list[dict[str, Any]]:
    return [one.as_dict() for one in judge(rows, attackers, limits)]


def said(
    rows: list[Row], *attackers: Attacker, limits: dict[str, float] | None = None
) -> list[str]:
    paragraphs = defence_verdict(facts(rows, *attackers, limits=limits))
    return [text.replace(BETWEEN, "-").replace("\u00a0", " ") for text in paragraphs]


def test_broken_by_an_attack_that_knows_it() -> None:
    rows = [*CLEAN, row(0.55, "apgd", "p"), row(0.3, "bpda", "p"), row(0.03, "exact", "p")]
    assert said(rows, APGD, BPDA, EXACT) == [
        "p is broken by 'exact' (full-gradient, eot): accuracy falls from 80.0 % to 3.0 % "
        "(1.0-5.0 %); the strongest that does not know it, 'apgd' (oblivious), leaves 55.0 % "
        "(53.0-57.0 %). It is also broken by 'bpda' (bpda)."
    ]


def test_broken_by_an_attack_that_does_not_even_know_it() -> None:
    rows = [*CLEAN, row(0.001, "apgd", "p")]
    assert said(rows, APGD) == [
        "p is broken by 'apgd' (oblivious), which does not even know it: accuracy falls from "
        "80.0 % to 0.1 % (-1.9-2.1 %). It holds no better than no defence, behind which 'apgd' "
        "leaves 0.0 % (-0.1-0.1 %)."
    ]


def test_untested_defences_share_a_sentence() -> None:
    rows = [
        *CLEAN,
        row(0.7, "apgd", "p"),
        row(0.8, purifier="q"),
        row(0.6, "apgd", "q"),
        row(0.8, purifier="r"),
    ]
    assert said(rows, APGD) == [
        "Not tested by an attack that knows it, so that nothing can be said of one: p ('apgd' "
        "(oblivious) leaves 70.0 % (68.0-72.0 %)); q ('apgd' (oblivious) leaves 60.0 % "
        "(58.0-62.0 %)); r (no attack was tried on it)."
    ]


def test_what_is_said_of_defences_that_are_not_broken() -> None:
    holds = [*CLEAN, row(0.7, "apgd", "p"), row(0.6, "bpda", "p")]
    assert said(holds, APGD, BPDA) == [
        "p is not broken by the attacks of this run that know it: the strongest, 'bpda' (bpda), "
        "leaves 60.0 % (58.0-62.0 %); the strongest that does not know it, 'apgd' (oblivious), "
        "leaves 70.0 % (68.0-72.0 %)."
    ]
    weak = [row(0.9), row(0.8, purifier="p"), row(0.7, "apgd"), row(0.69, "bpda", "p")]
    assert said(weak, APGD, BPDA) == [
        "p holds no better than no defence: 'bpda' (bpda) leaves 69.0 % (67.0-71.0 %), and without "
        "a defence 'apgd' leaves 70.0 % (68.0-72.0 %).",
        "No attack of this run breaks the bare model either: that a defence is not broken says "
        "little here.",
    ]
    close = [*CLEAN, row(0.44, "apgd", "p")]
    assert said(close, APGD) == [
        "p cannot be told from broken: 'apgd' (oblivious) leaves 44.0 % (42.0-46.0 %), and the "
        "limit is 45.0 %. It was not tested by an attack that knows it."
    ]
    useless = [row(0.9), row(0.4, purifier="p"), row(0.0, "apgd"), row(0.3, "bpda", "p")]
    assert said(useless, APGD, BPDA) == [
        "p costs too much: it leaves 40.0 % (38.0-42.0 %) of accuracy on clean images, before any "
        "attack."
    ]


def test_many_draws_decide() -> None:
    rows = [
        *CLEAN,
        row(0.6, "bpda", "p", "accuracy_mean", draws=10),
        row(0.1, "bpda", "p", "accuracy_worst", draws=10),
    ]
    assert said(rows, APGD, BPDA) == [
        "p is broken by whoever may try 10 times: behind the worst of as many draws 'bpda' leaves "
        "10.0 % (8.0-12.0 %); a single draw is not broken."
    ]
    rows = [
        *CLEAN,
        row(0.3, "bpda", "p", "accuracy_mean", draws=10),
        row(0.6, "bpda", "p", "accuracy_majority", draws=10),
    ]
    assert said(rows, APGD, BPDA) == [
        "p is broken by 'bpda' (bpda): accuracy falls from 80.0 % to 30.0 % (28.0-32.0 %). Where "
        "the majority of 10 draws decides, 'bpda' leaves 60.0 % (58.0-62.0 %)."
    ]


def test_an_attack_that_may_do_anything_and_fails_is_named() -> None:
    anything = replace(BPDA, label="anything", ball=("linf", 1.0, None))
    assert said([*CLEAN, row(0.2, "anything", "p")], anything)[-1] == (
        "The gradients of p may be masked: 'anything' (bpda), which may change an image into any "
        "other, fails on some: 20.0 % (18.0-22.0 %). Do not trust its figures under gradient "
        "attacks."
    )


def test_masked_gradients_are_named() -> None:
    asked = Attacker("asked", "query", through="p", ball=BALL)
    rows = [*CLEAN, row(0.7, "bpda", "p"), row(0.6, "asked", "p")]
    assert said(rows, APGD, BPDA, asked)[-1] == (
        "The gradients of p may be masked: 'asked' (query), which asks for answers only, does "
        "better than 'bpda' (bpda): 60.0 % (58.0-62.0 %) against 70.0 % (68.0-72.0 %). Do not "
        "trust its figures under gradient attacks."
    )


def test_faces() -> None:
    limits = {"none": 0.01, "p": 0.01}
    rows = [*face_rows(0.83, refused=0.65), row(0.2, "apgd", "p", "far")]
    assert said(rows, APGD, BPDA, limits=limits) == [
        "p is broken by 'bpda' (bpda): FAR rises from the 1.0 % that it was calibrated for to "
        "83.0 % (81.0-85.0 %); the strongest that does not know it, 'apgd' (oblivious), reaches "
        "20.0 % (18.0-22.0 %). It is also broken by 'apgd' (oblivious). It also costs much: it "
        "refuses 65.0 % (63.0-67.0 %) of the pairs of one person's clean pictures."
    ]
    assert "here 10.0\u00a0% or more" in definition(facts(rows, APGD, BPDA, limits=limits))
    assert "ten times what the defence was calibrated for" in definition(
        facts(rows, APGD, limits=limits)
    )


def test_the_table_has_the_strongest_attack_of_each_kind() -> None:
    rows = [
        *CLEAN,
        row(0.7, "apgd", "p"),
        row(0.6, "square", "p"),
        row(0.5, "bpda", "p"),
        row(0.3, "exact", "p"),
        row(0.1, "exact", "p", "accuracy_worst", draws=10),
    ]
    found = facts(rows, APGD, SQUARE, BPDA, EXACT)
    table = defences_table(found, {"p": 0.01234})
    assert [name for name, _ in table.headings] == [
        *("clean", "unaware", "bpda", "eot", "full-gradient", "query"),
        *("worst", "majority", "seconds"),
    ]
    bare, line = table.sections[0].lines
    assert (bare.label, line.label, line.note) == ("no purifier", "p", "broken")
    shown = [cell and (cell.value.replace("\u00a0", " "), cell.n) for cell in line.cells]
    assert shown == [
        ("80.0 %", ""),
        ("60.0 %", "square"),
        ("50.0 %", "bpda"),
        ("30.0 %", "exact"),
        ("30.0 %", "exact"),
        ("60.0 %", "square, made without it"),
        ("10.0 %", "exact, 10 draws"),
        None,
        ("0.0123", ""),
    ]
    assert "here 45.0\u00a0% or less" in definition(found)


def page_of(folder: Path, **changes: Any) -> tuple[Page, str, dict[str, Any]]:
    state, _ = toy.run(toy.bench(folder, **changes))
    summary = write_outputs(state, render)
    text = (state.bench.store.run("toy") / "report.html").read_text()
    return Page(text), text, summary


def anchors(page: Page) -> set[str | None]:
    return {attributes.get("id") for attributes in page.all("section")}


def test_the_page_of_a_classifier_says_what_is_broken(tmp_path: Path) -> None:
    attack = {"name": "IFGSM", "epsilon": "16/255", "step_size": "4/255", "steps": 8}
    page, text, summary = page_of(
        tmp_path,
        model={"name": "shapes-cnn"},
        detectors=[],
        attacks=[
            {**attack, "label": "blind"},
            {**attack, "label": "inside", "through": "noise", "draws": 2, "purifiers": ["noise"]},
        ],
        purifiers=[
            {"name": "gaussiannoise(0.05)", "label": "noise", "draws": 3},
            {"name": "Median", "label": "median <b>"},
        ],
    )
    check(page, text)
    assert "defences" in anchors(page)
    names = [one["purifier"] for one in summary["defences"]]
    assert names == ["none", "noise", "median <b>"]
    noise = summary["defences"][1]
    [mean] = [
        one["value"]
        for one in summary["rows"]
        if (one["attack"], one["purifier"], one["metric"]) == ("inside", "noise", "accuracy_mean")
    ]
    assert noise["strongest"]["eot"]["value"] == mean
    assert noise["status"] == "broken"
    first = next(iter(defence_verdict(summary["defences"])))
    assert page.text("verdict").strip().startswith(first)
    assert "A defence is broken where an attack leaves no more than half" in page.text()
    assert "seconds" not in summary["defences"][1]


@pytest.mark.parametrize("absent", ["attacks", "purifiers"])
def test_no_section_without_an_attack_or_a_purifier(tmp_path: Path, absent: str) -> None:
    page, _, summary = page_of(tmp_path, detectors=[], **{absent: []})
    assert "defences" not in anchors(page)
    assert "defences" not in summary


def test_the_page_of_an_encoder_says_what_is_broken(tmp_path: Path) -> None:
    inside = {**ATTACK, "label": "inside", "through": "median", "purifiers": ["median"]}
    page, text, summary = page_of(tmp_path, **faces(faces={"far": 0.02}, attacks=[ATTACK, inside]))
    check(page, text)
    assert "defences" in anchors(page)
    found = {one["purifier"]: one for one in summary["defences"]}
    assert found["median"]["metric"] == "far"
    assert found["median"]["tested"]
    assert found["median"]["limit"] == pytest.approx(0.2)
    assert not found["jpeg(30)"]["tested"]
    assert "brings FAR to ten times" in page.text()
