from __future__ import annotations

from typing import Any

from flows.scaling_verdict import scaling_verdict
from flows.scorecard import detector_table, score_table
from flows.verdict import caveat
from tests.flows.test_verdict import row

Row = dict[str, Any]


def attack(name: str, o1: float, accuracy: float, restored: float, **more: Any) -> list[Row]:
    """Rows of a scaling attack and two purifiers, the first of them the better one."""
    return [
        row(accuracy, name, **more),
        row(o1, name, metric="o1"),
        row(0.9, name, metric="o2"),
        row(0.8, name, metric="target_agreement"),
        row(restored, name, "selective", **more),
        row(0.004, name, "selective", metric="o1"),
        row(restored - 0.2, name, "median"),
        row(0.3, name, "median", metric="o1"),
    ]


def seen(detector: str, false: float, **rates: float) -> list[Row]:
    """Rows of a detector: false positives and, by attack, true positives or false alarms."""
    base = {"detector": detector, "policy": "observe", "n": 500}
    rows = [row(false, metric="false_positive_rate", **base)]
    for name, rate in rates.items():
        if name.startswith("harmless"):
            more = {"threat": "none", "metric": "false_positive_rate"}
            rows.append(row(rate, name, **{**base, **more}))
        else:
            rows.append(row(rate, name, **{**base, "metric": "true_positive_rate"}))
            rows.append(row(0.5 + rate / 2, name, **{**base, "metric": "roc_auc"}))
    return rows


CLEAN = [row(0.93), row(0.92, purifier="selective"), row(0.8, purifier="median")]
DETECTORS = [
    *seen("peaks", 0.01, one=0.97, two=0.60, harmless_jpeg=0.02, harmless_blur=0.05),
    *seen("histogram", 0.01, one=0.70, two=0.75, harmless_jpeg=0.30, harmless_blur=0.01),
    *seen("trigger-happy", 0.90, one=0.99, two=0.99),
]
THRESHOLDS: dict[str, float | None] = {"peaks": 1.0, "histogram": 0.5, "trigger-happy": 0.1}


def said(rows: list[Row], thresholds: dict[str, float | None] = THRESHOLDS) -> list[str]:
    return [text.replace("\u00a0", " ") for text in scaling_verdict(rows, thresholds, "R.")[0]]


def test_one_attack_in_the_order_of_what_happens() -> None:
    rows = [*CLEAN, *attack("one", 0.99, 0.1, 0.9), *seen("peaks", 0.01, one=0.97)]
    resize, clean, text = said(rows)
    assert resize == "R."
    assert clean.startswith("Without an attack the model classifies 93.0 %")
    steps = (
        "one: 99.0 % of the images show the hidden picture when resized (O1)",
        "90.0 % look like the original before that (O2)",
        "In 80.0 % the model predicts what it predicts for the hidden picture.",
        "Under one accuracy is 10.0 %",
        "selective, brings it to 90.0 %",
        "and costs 1.0 points of accuracy on clean images",
        "With it 0.4 %",
        "The best detector, peaks, flags 97.0 %",
        "and 1.0 % (0.0",
        "of 500 held-out clean images.",
    )
    places = [text.find(step) for step in steps]
    assert -1 not in places
    assert places == sorted(places)


def test_the_worst_attack_decides_over_all() -> None:
    rows = [
        *CLEAN,
        *attack("one", 0.99, 0.1, 0.9),
        *attack("two", 0.95, 0.2, 0.7),
        row(0.91, "harmless_jpeg", threat="none"),
        *DETECTORS,
    ]
    text = " ".join(said(rows))
    assert "Of the purifiers selective holds best over all attacks: accuracy is 70.0 %" in text
    assert "the least under two; without a purifier it falls to 10.0 %" in text
    assert "Of the detectors histogram holds best: it flags 70.0 %" in text
    assert "the least of one, and 1.0 %" in text
    assert "Of images that were changed harmlessly histogram flags 30.0 %" in text
    assert "at most, after harmless_jpeg." in text
    assert "harmless_jpeg:" not in text
    assert "Under harmless_jpeg" not in text


def test_a_detector_that_flags_everything_is_not_the_best() -> None:
    rows = [*CLEAN, *attack("one", 0.99, 0.1, 0.9), *DETECTORS]
    text = said([r for r in rows if r["attack"] != "two"])[2]
    assert "The best detector, peaks, flags 97.0 %" in text


def test_a_purifier_that_one_attack_breaks_is_not_said_to_hold() -> None:
    rows = [*CLEAN, *attack("one", 0.99, 0.2, 0.9), *attack("two", 0.95, 0.2, 0.15)]
    text = " ".join(said(rows))
    assert "No purifier that was tried on all attacks holds against each" in text
    assert "selective, leaves 15.0 %" in text
    assert "under two." in text


def test_caveat_names_what_was_adapted_to_a_detector_only() -> None:
    rows = [*CLEAN, *attack("one", 0.99, 0.1, 0.9)]
    assert "No attack of this run was adapted" in caveat(rows, resized=True)
    rows += [{**r, "threat": "grey"} for r in seen("peaks", 0.01, hidden=0.5)[1:]]
    assert "Adapted to a defence: hidden." in caveat(rows, resized=True)
    assert caveat([*CLEAN, row(0.1, "one")], resized=True) == ""


def test_a_purifier_tried_on_some_attacks_only_is_not_ranked_over_all() -> None:
    rows = [*CLEAN, *attack("one", 0.99, 0.1, 0.9), *attack("two", 0.95, 0.2, 0.7)]
    rows = [r for r in rows if (r["attack"], r["purifier"]) != ("two", "selective")]
    assert "Of the purifiers median holds best" in " ".join(said(rows))


def test_without_thresholds_the_area_is_named() -> None:
    rows = [*CLEAN, *attack("one", 0.99, 0.1, 0.9), *seen("peaks", 0.0, one=0.0)]
    text = said(rows, {"peaks": None})[2]
    assert "The best detector is peaks, with a ROC-AUC of 0.500" in text
    assert "none has a threshold" in text


def test_without_a_model_closeness_decides() -> None:
    rows = [
        row(0.99, "one", metric="o1"),
        row(12.0, "one", metric="scaled_psnr"),
        row(31.0, "one", "selective", metric="scaled_psnr"),
        row(0.0, "one", "selective", metric="o1"),
        row(24.0, "one", "median", metric="scaled_psnr"),
        row(99.0, "one", "told", metric="scaled_psnr", knowledge="reference"),
    ]
    text = " ".join(said(rows))
    assert "No model was asked" in text
    assert "selective, leaves a PSNR of 31.00 (30.99" in text
    assert "With it 0.0 %" in text
    table = score_table([r for r in rows if r["knowledge"] != "reference"], ranked=True)
    assert table is not None
    assert [line.label for line in table.sections[0].lines if line.best] == ["selective"]


def test_many_attacks_are_a_table() -> None:
    names = ["a", "b", "c", "d"]
    rows = [*CLEAN]
    for i, name in enumerate(names):
        rows += attack(name, 0.99 - i / 100, 0.1, 0.9 - i / 10)
    rows += seen("peaks", 0.01, a=0.9, b=0.8, c=0.7, d=0.6)
    text, table = scaling_verdict(rows, {"peaks": 1.0}, "R.")
    assert not any(sentence.startswith("a:") for sentence in text)
    joined = " ".join(text).replace("\u00a0", " ")
    assert "Of a scaling attack's images 96.0 % to 99.0 % show the hidden picture" in joined
    assert table is not None
    titles = [title for _, title in table.headings]
    assert titles[-3:] == ["Accuracy, best purifier", "Goal O1 after it", "TPR, best detector"]
    (section,) = table.sections
    assert [line.label for line in section.lines] == names
    last = [cell for cell in section.lines[3].cells if cell is not None]
    assert [(c.value.replace("\u00a0", " "), c.interval) for c in (last[-3], last[-1])] == [
        ("60.0 %", "selective"),
        ("60.0 %", "peaks"),
    ]


def test_columns_without_figures_are_left_out() -> None:
    rows = [*CLEAN]
    for name in "abcd":
        rows += [row(0.1, name), row(0.5, name, "median")]
    _, table = scaling_verdict(rows, {}, "R.")
    assert table is not None
    assert [title for _, title in table.headings] == ["Accuracy", "Accuracy, best purifier"]


def test_harmless_changes_are_a_group_of_their_own() -> None:
    table = detector_table(DETECTORS[:7], THRESHOLDS)
    assert table is not None
    (section,) = table.sections
    assert [(line.label, line.heading) for line in section.lines] == [
        ("one \u00b7 oblivious", ""),
        ("two \u00b7 oblivious", ""),
        ("harmless_jpeg", "Harmless changes"),
        ("harmless_blur", ""),
    ]
    assert [name for name, _ in table.headings] == [
        "true_positive_rate",
        "false_positive_rate",
        "roc_auc",
    ]
    assert section.lines[0].cells[1] is None
    assert section.lines[2].cells[::2] == [None, None]
    assert section.lines[3].cells[1] is not None
    assert section.lines[3].cells[1].value == "5.0\u00a0%"
    assert "false positives 1.0\u00a0%" in section.note


def test_without_a_threshold_there_is_no_rate_at_it() -> None:
    table = detector_table(seen("peaks", 0.0, one=0.0), {"peaks": None})
    assert table is not None
    cell = table.sections[0].lines[0].cells[0]
    assert cell is not None
    assert (cell.value, cell.interval) == ("\u2013", "")
