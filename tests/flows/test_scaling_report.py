"""The page of a run behind a resize."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from defender.scaling import Scaler
from tests.flows.page import Page
from tests.flows.test_report import check, report
from tests.tasks.test_scaling_pictures import DETECTORS, HARMLESS, PURIFIERS
from tests.tasks.test_scaling_runs import ATTACK, scaling

Made = tuple[Page, str, dict[str, Any]]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Many attacks, and a model."""
    folder = tmp_path_factory.mktemp("asked")
    others = [{**ATTACK, "label": f"hide {i}", "epsilon": i / 255} for i in range(2, 5)]
    spec = scaling(
        folder,
        attacks=[ATTACK, *others, HARMLESS],
        purifiers=PURIFIERS,
        detectors=DETECTORS,
        calibration="train/*",
    )
    return report(folder, **spec)


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """One attack, and no model."""
    folder = tmp_path_factory.mktemp("silent")
    return report(folder, **scaling(folder, model=None, detectors=DETECTORS, purifiers=PURIFIERS))


def test_sections_are_there(asked: Made, silent: Made) -> None:
    for page, text, _ in (asked, silent):
        check(page, text)
        present = [attributes.get("id") for attributes in page.all("section")]
        assert {"resize", "roc", "levels", "distributions", "examples"} <= set(present)
    assert "attacks" in [attributes.get("id") for attributes in asked[0].all("section")]
    assert "attacks" not in [attributes.get("id") for attributes in silent[0].all("section")]


def test_the_table_of_gains_covers_libraries_and_algorithms(silent: Made) -> None:
    page, text, _ = silent
    table = text.partition('<table class="gains">')[2].partition("</table>")[0]
    heads = [cell.partition(">")[2].partition("<")[0] for cell in table.split("<th scope=")[1:6]]
    assert heads == ["Algorithm", "opencv", "pillow", "torch", "torch antialiased"]
    rows = {
        row.partition("</th>")[0].rpartition(">")[2]: [
            cell.partition(">")[2].partition("<")[0] for cell in row.split("<td")[1:]
        ]
        for row in table.split("<tr>")[2:]
    }
    methods = [("opencv", False), ("pillow", False), ("torch", False), ("torch", True)]
    for algorithm in ("nearest", "linear", "cubic", "lanczos", "area"):
        for (library, antialias), shown in zip(methods, rows[algorithm], strict=True):
            try:
                scaler = Scaler(library, algorithm, antialias, (48, 48), (12, 12))
            except ValueError:
                assert shown == "\u2013"
            else:
                assert float(shown) == pytest.approx(scaler.hiding_gain(), abs=0.051)
    assert page.text("own").startswith(rows["linear"][2])
    assert page.text("tag").count("this run") == 1


def test_verdict_without_a_model(silent: Made) -> None:
    page, _, summary = silent
    text = page.text("verdict").replace("\u00a0", " ")
    rows = {(r["purifier"], r["metric"]): r for r in summary["rows"] if r["attack"] == "hide"}
    assert "The model sees 12\u00d712 pixels, made by torch linear." in text
    assert "the size of 16 of 24 images" in text
    assert "No model was asked" in text
    shown = f"{100 * rows[('none', 'o1')]['value']:.1f} %"
    assert f"hide: {shown} of the images show the hidden picture" in text
    assert "dB to the resized original" in text
    assert "predict" not in page.text("strip")
    assert "\u2713" not in page.text("strip")
    assert "Goal O1 at a glance" in page.text()
    assert "lower is better" in page.text("lead")


def test_harmless_changes_stand_apart_in_the_table_of_detectors(asked: Made) -> None:
    page, text, summary = asked
    section = text.partition('<section id="detectors">')[2].partition("</section>")[0]
    assert section.count("Harmless changes") == len(DETECTORS)
    assert "blurred \u00b7" not in section
    assert "train/*" in section
    harmless = section.partition("Harmless changes")[2].partition("</tbody>")[0]
    (row,) = (
        r
        for r in summary["rows"]
        if (r["attack"], r["detector"], r["metric"])
        == ("blurred", "histogram", "false_positive_rate")
    )
    cells = [cell.partition("<small>")[0] for cell in harmless.split("<td>")[1:]]
    filled = [cell for cell in cells if not cell.startswith("</td>")]
    assert filled[0] == f"{100 * row['value']:.1f}\u00a0%"
    assert filled[1].startswith(str(row["n"]))
    assert len(filled) == 2
    assert "blurred \u00b7 harmless change" in page.text()


def test_attack_by_attack(asked: Made) -> None:
    page, text, summary = asked
    section = text.partition('<section id="attacks">')[2].partition("</section>")[0]
    for label in ("hide", "hide 2", "hide 3", "hide 4"):
        assert f'<th scope="row">{label}</th>' in section
    assert "blurred" not in section
    purifiers = {
        r["purifier"]: r["value"]
        for r in summary["rows"]
        if (r["attack"], r["metric"], r["policy"]) == ("hide", "accuracy", "none")
        and r["purifier"] != "none"
    }
    best = max(purifiers, key=lambda name: purifiers[name])
    first = section.partition('<th scope="row">hide</th>')[2].partition("</tr>")[0]
    assert f"{100 * purifiers[best]:.1f}\u00a0%<small>{best}</small>" in first
    said = page.text("verdict").replace("\u00a0", " ")
    assert "Of a scaling attack's images" in said
    worst: dict[str, float] = {}
    for r in summary["rows"]:
        if r["threat"] != "none" and (r["metric"], r["policy"]) == ("accuracy", "none"):
            worst[r["purifier"]] = min(worst.get(r["purifier"], 1.0), r["value"])
    bare = worst.pop("none")
    holds = max(worst, key=lambda name: worst[name])
    start = f"Of the purifiers {holds} holds best over all attacks: accuracy is "
    if worst[holds] <= bare:
        start = f"No purifier that was tried on all attacks holds against each: the best, {holds}"
    assert start in said
    assert f"{100 * worst[holds]:.1f} %" in said.partition(start)[2]


def test_pictures_and_plots_are_counted(asked: Made) -> None:
    page, text, _ = asked
    assert text.count("ROC under") >= 4
    assert page.text("plots").count("Grey levels under hide") == 4
    roles = page.text("role")
    grids = 4 * len(PURIFIERS)
    strips = roles.count("hidden picture")
    assert strips >= grids
    assert roles.count("model sees") == 2 * strips - roles.count("as seen")
    assert "blurred" not in page.text("grids")


def test_a_page_without_a_resize_has_none_of_this(tmp_path: Path) -> None:
    page, text, _ = report(tmp_path, dataset={"kind": "builtin:shapes", "count": 8})
    present = {attributes.get("id") for attributes in page.all("section")}
    assert not present & {"resize", "roc", "levels", "attacks"}
    assert "model sees" not in text
    assert "ROC of GradientMask" in page.text("plots")
