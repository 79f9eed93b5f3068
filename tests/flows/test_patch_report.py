"""The parts of a report on patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.patch_page import (
    certified_table,
    control_table,
    heat_table,
    success_bars,
    transfer_table,
    wrong_lists,
)
from flows.patch_verdict import patch_verdict
from flows.report import render
from flows.scorecard import BETWEEN, PERCENT, Cell
from tasks.leaderboard import Estimate
from tasks.outputs import write_outputs
from tasks.patch_facts import PatchAttack
from tests import patched, toy
from tests.flows.page import Page
from tests.flows.test_report import check

ANCHORS = {"patch", "controls", "looked", "transfer", "certified"}


def report(folder: Path, **changes: Any) -> tuple[Page, str, dict[str, Any]]:
    state, _ = toy.run(toy.bench(folder, **changes))
    summary = write_outputs(state, render)
    text = (state.bench.store.run(state.bench.spec.name) / "report.html").read_text()
    return Page(text), text, summary


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, str, dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("patched")
    return (*report(folder, **patched.changes()), folder)


def test_page_stands_alone_with_every_part(made: tuple[Page, str, dict[str, Any], Path]) -> None:
    page, text, _, _ = made
    check(page, text)
    assert "<script" not in text
    assert "<i>25" not in text
    assert {one.get("id") for one in page.all("section")} >= ANCHORS
    linked = [str(one["href"])[1:] for one in page.all("a")]
    sections = [one["id"] for one in page.all("section") if "id" in one]
    assert linked == sections
    assert "image-defender print-patch fitted/patch-i-25---i-" in page.text("portrait")


def test_the_named_patch_file_is_there(made: tuple[Page, str, dict[str, Any], Path]) -> None:
    page, _, _, folder = made
    (command,) = [line for line in page.text("portrait").splitlines() if "print-patch" in line]
    assert (folder / "store" / "toy" / command.split()[2]).is_file()
    assert command.split()[3:] == ["--size-cm", "10", "--out", "patch.pdf"]


def test_nothing_moves_unless_asked(made: tuple[Page, str, dict[str, Any], Path]) -> None:
    page, text, _, _ = made
    moving = [one for one in page.all("img") if "animation" in str(one["alt"])]
    assert len(moving) == 1
    before = text[: text.index(str(moving[0]["src"]))]
    assert before.rindex("<details>") > before.rfind("</details>")
    assert text.count("acTL") == 0


def test_controls_are_called_that(made: tuple[Page, str, dict[str, Any], Path]) -> None:
    page, _, summary, _ = made
    assert "harmless change" not in page.text().lower()
    assert "random · control" in page.text()
    assert "control patch · towards square" in page.text()
    flagged = {
        (row["attack"], row["metric"]) for row in summary["rows"] if row["detector"] != "none"
    }
    assert ("random", "true_positive_rate") in flagged
    assert ("random", "false_positive_rate") not in flagged


def test_the_same_run_gives_the_same_page(made: tuple[Page, str, dict[str, Any], Path]) -> None:
    _, first, _, folder = made
    _, second, _ = report(folder, **patched.changes())
    assert first == second


def test_without_patches_there_is_no_such_part(tmp_path: Path) -> None:
    dataset = {"kind": "builtin:shapes", "count": 4}
    page, text, _ = report(tmp_path, dataset=dataset, detectors=[], purifiers=[])
    check(page, text)
    assert not {one.get("id") for one in page.all("section")} & ANCHORS


def test_controls_alone(tmp_path: Path) -> None:
    page, text, _ = report(
        tmp_path,
        **patched.changes(
            attacks=patched.changes()["attacks"][2:3], certifiers=[], others=[], purifiers=[]
        ),
    )
    check(page, text)
    sections = {one.get("id") for one in page.all("section")}
    assert {"controls", "looked"} <= sections
    assert not sections & {"patch", "transfer", "certified"}


THREATS = {"none": "none", "control": "control", "noise": "control"}


def row(metric: str, value: float, attack: str = "none", **more: Any) -> dict[str, Any]:
    made = {
        "model": "m",
        "attack": attack,
        "threat": THREATS.get(attack, "oblivious"),
        "detector": "none",
        "policy": "none",
        "purifier": "none",
        "knowledge": "none",
        "draws": 1,
        "metric": metric,
        "value": value,
        "ci_low": value - 0.02,
        "ci_high": value + 0.02,
        "n": 100,
    }
    return {**made, **more}


def patch(label: str, *, control: bool = False, **more: Any) -> PatchAttack:
    made: dict[str, Any] = {
        "size": 0.25,
        "place": "random",
        "side": 8,
        "target": "cat",
        "fitted": "",
        "drop": Estimate(0.3, 0.2, 0.4),
    }
    return PatchAttack(label=label, control=control, **{**made, **more})


PATCHES = [
    patch("p"),
    patch("control", control=True),
    patch("noise", control=True),
    patch("small", size=0.15, side=None, place="upper-left"),
]
SEEN = {"detector": "d", "policy": "observe", "knowledge": "blind"}
ROWS = [
    row("accuracy", 0.9),
    row("accuracy", 0.4, "p"),
    row("attack_success", 0.6, "p", n=90),
    row("accuracy", 0.8, "p", purifier="fill", knowledge="blind"),
    row("accuracy", 0.9, "p", purifier="told", knowledge="reference"),
    row("accuracy", 0.5, "p", purifier="blur", knowledge="blind"),
    row("accuracy", 0.85, "control"),
    row("attack_success", 0.05, "control", n=90),
    row("attack_success", 0.03, "noise", n=90),
    row("attack_success", 0.2, "small", n=90),
    row("false_positive_rate", 0.01, **SEEN),
    row("true_positive_rate", 0.97, "p", **SEEN),
    row("located", 0.93, "p", **SEEN),
    row("true_positive_rate", 0.7, "control", **SEEN),
]


def said(rows: list[dict[str, Any]], certified: list[dict[str, Any]] | None = None) -> list[str]:
    return [
        text.replace(BETWEEN, " to ").replace("\u00a0", " ")
        for text in patch_verdict(rows, PATCHES, certified or [])
    ]


def test_the_verdict_compares_with_the_best_control() -> None:
    clean, done, found = said(ROWS)
    assert clean.startswith("Without an attack the model classifies 90.0 %")
    assert done == (
        "The strongest of 2 patches, p, 25 % of the shorter side (8 px), at random places, takes "
        "accuracy from 90.0 % to 40.0 % (38.0 to 42.0 %) and makes the model answer cat for 60.0 % "
        "(58.0 to 62.0 %) of the images of other classes; the best control there, control, on "
        "5.0 % (3.0 to 7.0 %). So it is not the covering that does it."
    )
    assert found == (
        "The detector d finds its place on 93.0 % (91.0 to 95.0 %) of the images and flags 1.0 % "
        "of the clean ones. With fill, accuracy under it is 80.0 % (78.0 to 82.0 %): 80 % of the "
        "loss comes back."
    )


def test_the_verdict_says_where_intervals_overlap() -> None:
    close = [r if r["attack"] != "noise" else {**r, "value": 0.58, "ci_high": 0.6} for r in ROWS]
    _, done, _ = said(close)
    assert "the best control there, noise, on 58.0 %" in done
    assert done.endswith("The intervals do not tell the two apart.")


def test_a_control_with_another_goal_is_no_comparison() -> None:
    others = [one if not one.control else patch(one.label, control=True, target="")
              for one in PATCHES]  # fmt: skip
    _, done, _ = patch_verdict(ROWS, others, [])
    assert "control" not in done


def test_the_verdict_tells_what_is_proven_and_what_other_attacks_do() -> None:
    proven = [
        row("certified_accuracy", 0.3, certifier="masks", seconds=0.1),
        row("certified_accuracy", 0.6, "p", certifier="masks", seconds=0.1),
    ]
    texts = said([*ROWS, row("accuracy", 0.1, "FGSM")], proven)
    assert texts[3].startswith("masks gives 30.0 % (28.0 to 32.0 %) of the images their true class")
    assert texts[4].startswith("Under FGSM accuracy is 10.0 %")
    bare = [r for r in ROWS if r["detector"] == "none" and r["purifier"] == "none"]
    assert len(said(bare)) == 2


def test_patches_stand_beside_controls_of_their_place() -> None:
    table = control_table(ROWS, PATCHES)
    assert table is not None
    assert [title for _, title in table.headings] == [
        "Accuracy", "Accuracy lost, points", "Attack success",
    ]  # fmt: skip
    first, second = table.sections
    assert first.title == f"25{PERCENT} of the shorter side (8 px), at random places"
    assert second.title == f"15{PERCENT} of the shorter side, upper left"
    assert (first.note, second.note) == ("", "no control there")
    assert [line.label for line in first.lines] == ["p", "control", "noise"]
    assert first.lines[1].note == "control patch · towards cat"
    assert first.lines[0].cells == [
        Cell(f"40.0{PERCENT}", f"38.0{BETWEEN}42.0{PERCENT}"),
        Cell("30.0", f"20.0{BETWEEN}40.0"),
        Cell(f"60.0{PERCENT}", f"58.0{BETWEEN}62.0{PERCENT}", "n 90"),
    ]
    assert first.lines[2].cells[0] is None
    bars = success_bars(ROWS, PATCHES)
    assert [[bar.kind for bar in group.bars] for group in bars] == [
        ["attacked", "control", "control"],
        ["attacked"],
    ]
    assert bars[0].bars[1].high == pytest.approx(7)
    assert control_table(ROWS, []) is None


def test_heat_maps_by_attack_class_and_purifier() -> None:
    rows = [
        row("predicted_pearson", 0.5, "p"),
        row("predicted_energy", 0.25, "p", n=40),
        row("true_pearson", 0.75, "p"),
        row("true_pearson", 0.875, "p", purifier="fill"),
        row("target_similarity", 0.3, "p"),
        row("predicted_energy_ratio", 4.0, "control"),
        row("predicted_pearson", 0.9, purifier="fill"),
        {**row("true_top_iou", 0.5, "p"), "value": None},
    ]
    table = heat_table(rows, ROWS, 0.15)
    assert table is not None
    assert [name for name, _ in table.headings] == [
        "pearson", "energy", "energy_ratio", "target_similarity",
    ]  # fmt: skip
    calm, hit, control = table.sections
    assert (calm.title, hit.title, control.title) == (
        "No attack",
        "p",
        "control · control",
    )
    assert [(line.heading[:24], line.label) for line in hit.lines] == [
        ("Heat map of the predicte", "no purifier"),
        ("Heat map of the true cla", "no purifier"),
        ("", "fill"),
    ]
    assert hit.lines[0].cells == [
        Cell("0.500", f"0.480{BETWEEN}0.520"),
        Cell(f"25.0{PERCENT}", f"23.0{BETWEEN}27.0{PERCENT}", "n 40"),
        None,
        Cell("0.300", f"0.280{BETWEEN}0.320"),
    ]
    assert heat_table([], ROWS, 0.15) is None


def test_wrong_answers_by_frequency() -> None:
    counts = [{"class": i, "images": n} for i, n in enumerate([50, 20, 10, 8, 6, 4, 2])]
    wrong = {"none": [], "p": counts, "control": counts[:1]}
    clean, hit, control = wrong_lists(wrong, ROWS, ["cat", "dog"])
    assert (clean.title, clean.kind, clean.images, clean.classes) == ("No attack", "clean", 0, [])
    assert (hit.kind, hit.images) == ("attacked", 100)
    assert hit.classes[:3] == [("cat", 50, 50.0), ("dog", 20, 20.0), ("class 2", 10, 10.0)]
    assert hit.classes[5:] == [("2 other classes", 6, 6.0)]
    assert (control.kind, control.classes) == ("control", [("cat", 50, 100.0)])


def test_other_models_stand_beside_the_own_one() -> None:
    others = [
        row("accuracy", 0.95, model="wide"),
        row("accuracy", 0.7, "p", model="wide"),
        row("attack_success", 0.3, "p", model="wide", n=95),
    ]
    rows = [*ROWS, row("accuracy", 0.99, "p", policy="reject", detector="d")]
    table = transfer_table(rows, others, {"p": ["m"], "control": []})
    assert table is not None
    assert [title for _, title in table.headings] == [
        "m: accuracy", "m: attack success", "wide: accuracy", "wide: attack success",
    ]  # fmt: skip
    lines = {line.label: line for line in table.sections[0].lines}
    shown = [None if cell is None else cell.value for cell in lines["p"].cells]
    assert shown == [f"{value}{PERCENT}" for value in ("40.0", "60.0", "70.0", "30.0")]
    assert lines["p"].note == "made on m"
    assert lines["control · control"].note == ""
    assert lines["No attack"].cells[1] is None
    assert transfer_table(ROWS, [], {}) is None


def test_certified_defences_by_attack() -> None:
    certified = [
        row(metric, value, attack, certifier="masks", seconds=0.0123)
        for attack, values in (("none", (0.8, 0.3, 36.0)), ("p", (0.7, 0.2, 40.0)))
        for metric, value in zip(
            ("accuracy", "certified_accuracy", "evaluations"), values, strict=True
        )
    ]
    table = certified_table(certified, ROWS)
    assert table is not None
    (section,) = table.sections
    assert (section.title, [line.label for line in section.lines]) == ("masks", ["No attack", "p"])
    values = [cell.value for cell in section.lines[1].cells if cell is not None]
    assert values == [f"40.0{PERCENT}", f"70.0{PERCENT}", f"20.0{PERCENT}", "40.0", "0.0123"]
    assert certified_table([], ROWS) is None
