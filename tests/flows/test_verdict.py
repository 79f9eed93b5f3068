from __future__ import annotations

from typing import Any

from flows.bars import bar_groups
from flows.scorecard import meanings, number, score_table
from flows.verdict import caveat, verdict

Row = dict[str, Any]


def row(value: float | None, attack: str = "none", purifier: str = "none", **more: Any) -> Row:
    return {
        "model": "m",
        "attack": attack,
        "threat": "none" if attack == "none" else "oblivious",
        "detector": "none",
        "policy": "none",
        "purifier": purifier,
        "knowledge": "none" if purifier == "none" else "blind",
        "draws": 1,
        "metric": "accuracy",
        "value": value,
        "ci_low": None if value is None else value - 0.01,
        "ci_high": None if value is None else value + 0.01,
        "n": 1000,
        **more,
    }


ROWS = [
    row(0.94),
    row(0.90, purifier="median"),
    row(0.95, purifier="oracle", knowledge="reference"),
    row(0.02, "ifgsm"),
    row(0.41, "ifgsm", "median"),
    row(0.99, "ifgsm", "oracle", knowledge="reference"),
]


def test_verdict_names_the_best_deployable_purifier_and_its_cost() -> None:
    text = " ".join(verdict(ROWS)).replace("\u00a0", " ")
    assert "94.0 %" in text
    assert "Under ifgsm accuracy is 2.0 %" in text
    assert "median, brings it to 41.0 %" in text
    assert "costs 4.0 points" in text
    assert "oracle" not in text


def test_verdict_says_so_when_nothing_helps() -> None:
    rows = [row(0.9), row(0.5, "a"), row(0.3, "a", "median")]
    assert "No purifier that could be deployed raises it" in " ".join(verdict(rows))
    only = [row(0.9), row(0.5, "a"), row(0.9, "a", "oracle", knowledge="reference")]
    assert "No purifier that could be deployed was run" in " ".join(verdict(only))


def test_verdict_of_clean_gain_and_of_no_cost() -> None:
    attacked = [row(0.0, "a"), row(0.5, "a", "median")]
    assert "gains 2.0 points" in " ".join(
        verdict([row(0.9), row(0.92, "none", "median"), *attacked])
    )
    assert "no cost" in " ".join(verdict([row(0.9), row(0.9, "none", "median"), *attacked]))


def test_caveat_follows_the_threats() -> None:
    assert "No attack of this run was made through a purifier" in caveat(ROWS)
    adaptive = [row(0.1, "seen", "median", threat="bpda")]
    assert "seen" in caveat([*ROWS, *adaptive])
    assert caveat([row(0.9), row(0.1, "ifgsm")]) == ""


def test_best_is_marked_once_and_only_under_attack() -> None:
    table = score_table(ROWS[:2] + ROWS[3:5], ranked=True)
    assert table is not None
    best = {s.title: [line.label for line in s.lines if line.best] for s in table.sections}
    assert best == {"No attack": [], "ifgsm \u00b7 oblivious": ["median"]}
    tied = score_table([row(0.4, "a"), row(0.4, "a", "median")], ranked=True)
    assert tied is not None
    assert not any(line.best for line in tied.sections[0].lines)


def test_an_attack_through_another_purifier_is_told_apart() -> None:
    rows = [row(0.4, "a", purifier, through="median") for purifier in ("none", "median", "jpeg")]
    table = score_table(rows, ranked=False)
    assert table is not None
    notes = {line.label: line.note for line in table.sections[0].lines}
    assert notes == {
        "no purifier": "none \u00b7 transferred",
        "median": "blind",
        "jpeg": "blind \u00b7 transferred",
    }


def test_missing_figures_are_dashes_and_no_bars() -> None:
    assert number("psnr", None) == "\u2013"
    rows = [row(0.9), row(None, purifier="median")]
    table = score_table(rows, ranked=True)
    assert table is not None
    assert table.sections[0].lines[1].cells[0] is not None
    assert table.sections[0].lines[1].cells[0].value == "\u2013"
    metric, groups = bar_groups(rows)
    assert metric == "accuracy"
    assert [bar.label for bar in groups[0].bars] == ["no purifier"]


def test_bars_of_reference_methods_stand_apart() -> None:
    _, groups = bar_groups(ROWS)
    assert [group.title for group in groups] == ["No attack", "ifgsm \u00b7 oblivious"]
    for group in groups:
        assert [bar.label for bar in group.bars] == ["no purifier", "median"]
        assert [bar.label for bar in group.told] == ["oracle"]


def test_a_cell_that_rests_on_fewer_images_says_so() -> None:
    rows = [row(0.9), row(0.8, metric="label_recovery", n=1), row(0.7, metric="psnr", n=1234)]
    table = score_table(rows, ranked=False)
    assert table is not None
    line = table.sections[0].lines[0]
    assert line.n == 1234
    assert [cell.n for cell in line.cells if cell] == ["n 1\u202f000", "n 1", ""]


def test_every_metric_is_explained() -> None:
    names = ["accuracy", "psnr", "roc_auc", "tpr_at_fpr_0.01", "false_positive_rate"]
    listed = meanings([row(0.5, metric=name) for name in names])
    assert len(listed) == len(names)
    assert all(doc and better in ("higher", "lower") for _, doc, better, _ in listed)
