"""The parts of a report on patches: against controls, what models look at, proofs, other models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flows.bars import Bar, Bars
from flows.scorecard import (
    BETWEEN,
    PERCENT,
    Cell,
    Line,
    Row,
    Section,
    Table,
    attack_title,
    count,
    interval,
    number,
    purifier_title,
)
from tasks.patch_facts import PatchAttack

CONTROL = "control"
"""What tables call a patch that nobody fitted, in the place of a threat model."""
CONTROL_MEANING = (
    "a patch of the same size at the same places that nobody fitted: what covering a part of the "
    "image does by itself"
)
PLACES = {"random": "at random places", "centre": "in the centre", "off-object": "off the object"}
HEAT = {
    "pearson": "Correlation",
    "spearman": "Rank correlation",
    "top_iou": "IoU of the top {share}",
    "centroid_shift": "Centre moved",
    "energy": "Heat in the patch",
    "energy_ratio": "Times its area",
    "target_similarity": "Like the target",
}
"""Figures of heat maps in the order of the columns, after the class that they are of."""
SHARES = ("top_iou", "centroid_shift", "energy")
"""Those of them that are printed in percent."""
CLASSES = {"predicted": "Heat map of the predicted class", "true": "Heat map of the true class"}
LISTED = 5
"""Wrong classes that are named of an attack."""
LISTS = 12
"""Attacks whose wrong classes are listed."""


@dataclass(frozen=True)
class Wrong:
    """Which classes a model gives for images of others.

    Args:
        title: the attack.
        kind: ``clean``, ``attacked`` or ``control``.
        images: that are classified wrongly.
        classes: name, images, and share of the wrong ones in percent; the most frequent first.
    """

    title: str
    kind: str
    images: int
    classes: list[tuple[str, int, float]]


def place_title(one: PatchAttack) -> str:
    """Size and place of a patch in words."""
    pixels = "" if one.side is None else f" ({one.side} px)"
    where = PLACES.get(one.place, one.place.replace("-", " "))
    return f"{100 * one.size:.3g}{PERCENT} of the shorter side{pixels}, {where}"


def found_row(rows: Sequence[Row], **wanted: str) -> Row | None:
    """The first row with a value that has these entries; of a plain score unless said otherwise."""
    fields = {"purifier": "none", "policy": "none", "detector": "none", **wanted}
    for row in rows:
        if row["value"] is not None and all(row[name] == value for name, value in fields.items()):
            return row
    return None


def control_table(rows: Sequence[Row], patches: Sequence[PatchAttack]) -> Table | None:
    """Patches and their controls by size and place; None where there is none.

    Args:
        rows: of a summary.
        patches: of the run.
    """
    measures = ("accuracy", "attack_success", "label_recovery")
    measured = [name for name in measures if any(row["metric"] == name for row in rows)]
    titles = {"accuracy": "Accuracy", "label_recovery": "Label recovery"}
    headings = [(name, titles.get(name, "Attack success")) for name in measured]
    drops = any(one.drop for one in patches)
    if drops:
        headings.insert(1 if "accuracy" in measured else 0, ("drop", "Accuracy lost, points"))
    controlled = {place_title(one) for one in patches if one.control}
    sections: dict[str, Section] = {}
    for one in sorted(patches, key=lambda one: one.control):
        found = {name: found_row(rows, attack=one.label, metric=name) for name in measured}
        n = max((row["n"] for row in found.values() if row is not None), default=0)
        cells = [_drop(one) if name == "drop" else _cell(found[name], n) for name, _ in headings]
        title = place_title(one)
        note = "" if title in controlled else "no control there"
        lines = sections.setdefault(title, Section(title, note, [])).lines
        lines.append(Line(one.label, _described(one), n, cells=cells))
    return Table("Patch", headings, list(sections.values())) if sections else None


def _described(one: PatchAttack) -> str:
    words = ["control patch"] if one.control else []
    if one.target:
        words.append(f"towards {one.target}")
    if one.fitted and one.fitted != one.label:
        words.append(f"colours of {one.fitted}")
    return " · ".join(words)


def _drop(one: PatchAttack) -> Cell | None:
    if one.drop is None:
        return None
    low, high = one.drop.low, one.drop.high
    between = "" if low != low else f"{100 * low:.1f}{BETWEEN}{100 * high:.1f}"
    return Cell(f"{100 * one.drop.value:.1f}", between)


def _cell(row: Row | None, n: int) -> Cell | None:
    if row is None:
        return None
    own = f"n {count(row['n'])}" if row["n"] != n else ""
    return Cell(number(row["metric"], row["value"]), interval(row["metric"], row), own)


def success_bars(rows: Sequence[Row], patches: Sequence[PatchAttack]) -> list[Bars]:
    """Attack success of patches and controls as bars, a group for every size and place."""
    groups: dict[str, Bars] = {}
    for one in sorted(patches, key=lambda one: one.control):
        row = found_row(rows, attack=one.label, metric="attack_success")
        if row is None:
            continue
        bar = Bar(
            label=one.label,
            value=100 * row["value"],
            low=100 * row["ci_low"],
            high=100 * row["ci_high"],
            text=number("attack_success", row["value"]),
            interval=interval("attack_success", row),
            kind="control" if one.control else "attacked",
        )
        title = place_title(one)
        groups.setdefault(title, Bars(title)).bars.append(bar)
    return list(groups.values())


def heat_table(rows: Sequence[Row], scored: Sequence[Row], share: float) -> Table | None:
    """Figures of heat maps: attacks as sections, purifiers as rows; None where there are none.

    Args:
        rows: of the heat maps.
        scored: rows of the run.
        share: of a map that is its top.
    """
    threats = {row["attack"]: row["threat"] for row in scored}
    split = [(*_of_class(row["metric"]), row) for row in rows if row["value"] is not None]
    used = [name for name in HEAT if any(metric == name for _, metric, _ in split)]
    headings = [(name, HEAT[name].format(share=f"{100 * share:g}{PERCENT}")) for name in used]
    sections: dict[str, Section] = {}
    calm_first = sorted((row["attack"] for _, _, row in split), key=lambda name: name != "none")
    for attack in dict.fromkeys(calm_first):
        title = _title(attack, threats.get(attack, "none"))
        lines = sections.setdefault(attack, Section(title, "", [])).lines
        for kind, heading in CLASSES.items():
            mine = [(m, row) for k, m, row in split if k == kind and row["attack"] == attack]
            for purifier in dict.fromkeys(row["purifier"] for _, row in mine):
                found = {metric: row for metric, row in mine if row["purifier"] == purifier}
                n = max(row["n"] for row in found.values())
                cells = [_heat(name, found.get(name), n) for name in used]
                lines.append(Line(purifier_title(purifier), "", n, cells=cells, heading=heading))
                heading = ""
    return Table("Purifier", headings, list(sections.values())) if sections else None


def _title(attack: str, threat: str) -> str:
    """An attack where its threat model is beside the point, unless it is none."""
    return attack if threat not in (CONTROL, "none") else attack_title(attack, threat)


def _of_class(metric: str) -> tuple[str, str]:
    """The class whose maps a figure is of, and its name."""
    kind, _, rest = metric.partition("_")
    return (kind, rest) if kind in CLASSES else ("predicted", metric)


def _heat(name: str, row: Row | None, n: int) -> Cell | None:
    if row is None:
        return None
    percent = name in SHARES

    def shown(value: float) -> str:
        if name == "energy_ratio":
            return f"{value:.2f}"
        return f"{100 * value:.1f}" if percent else f"{value:.3f}"

    between = ""
    if row["ci_low"] is not None and row["ci_high"] is not None:
        between = f"{shown(row['ci_low'])}{BETWEEN}{shown(row['ci_high'])}"
    unit = PERCENT if percent else ""
    own = f"n {count(row['n'])}" if row["n"] != n else ""
    return Cell(shown(row["value"]) + unit, between + (unit if between else ""), own)


def wrong_lists(
    wrong: dict[str, list[dict[str, int]]], scored: Sequence[Row], classes: Sequence[str] | None
) -> list[Wrong]:
    """Which wrong classes the model gives, for clean images and under each attack."""
    threats = {row["attack"]: row["threat"] for row in scored}
    found = []
    for attack, counts in list(wrong.items())[:LISTS]:
        total = sum(one["images"] for one in counts)
        named = [(_class(one["class"], classes), one["images"]) for one in counts[:LISTED]]
        rest = len(counts) - LISTED
        if rest > 0:
            others = "1 other class" if rest == 1 else f"{rest} other classes"
            named.append((others, sum(one["images"] for one in counts[LISTED:])))
        shares = [(name, images, 100 * images / total) for name, images in named]
        threat = threats.get(attack, "none")
        kind = "clean" if threat == "none" else "control" if threat == CONTROL else "attacked"
        found.append(Wrong(_title(attack, threat), kind, total, shares))
    return found


def _class(index: int, classes: Sequence[str] | None) -> str:
    if classes is not None and 0 <= index < len(classes):
        return classes[index]
    return f"class {index}"


def transfer_table(
    rows: Sequence[Row], others: Sequence[Row], made: dict[str, list[str]]
) -> Table | None:
    """Attacks as rows; accuracy and success on the run's model and on others as columns.

    Args:
        rows: of a summary.
        others: those of other models.
        made: models that each attack was made on.
    """
    if not others:
        return None
    plain = [
        row
        for row in rows
        if row["policy"] == row["purifier"] == "none" and row["detector"] == "none"
    ]
    own = [row for row in plain if row["metric"] in ("accuracy", "attack_success")]
    every = own + list(others)
    models = list(dict.fromkeys(row["model"] for row in every))
    columns = [(model, metric) for model in models for metric in ("accuracy", "attack_success")]
    there = {(row["model"], row["metric"]) for row in every}
    columns = [column for column in columns if column in there]
    words = {"accuracy": "accuracy", "attack_success": "attack success"}
    headings = [(f"{model} {metric}", f"{model}: {words[metric]}") for model, metric in columns]
    threats = {row["attack"]: row["threat"] for row in rows}
    lines = []
    for attack in dict.fromkeys(row["attack"] for row in every):
        found = {(row["model"], row["metric"]): row for row in every if row["attack"] == attack}
        n = max(row["n"] for row in found.values())
        models_of = made.get(attack, [])
        note = f"made on {' + '.join(models_of)}" if models_of else ""
        title = _title(attack, threats.get(attack, "none"))
        lines.append(
            Line(title, note, n, cells=[_cell(found.get(column), n) for column in columns])
        )
    return Table("Attack", headings, [Section("", "", lines)])


def certified_table(rows: Sequence[Row], scored: Sequence[Row]) -> Table | None:
    """Certified defences as sections, attacks as rows.

    Args:
        rows: of the certified defences.
        scored: rows of the run.
    """
    if not rows:
        return None
    headings = [
        ("bare", "Without it"),
        ("accuracy", "Accuracy"),
        ("certified_accuracy", "Certified accuracy"),
        ("evaluations", "Evaluations an image"),
        ("seconds", "Seconds an image"),
    ]
    threats = {row["attack"]: row["threat"] for row in scored}
    sections = []
    for name in dict.fromkeys(row["certifier"] for row in rows):
        own = [row for row in rows if row["certifier"] == name]
        lines = []
        for attack in dict.fromkeys(row["attack"] for row in own):
            found = {row["metric"]: row for row in own if row["attack"] == attack}
            n = max(row["n"] for row in found.values())
            seconds = next(iter(found.values()))["seconds"]
            cells = [
                _cell(found_row(scored, attack=attack, metric="accuracy"), n),
                _cell(found.get("accuracy"), n),
                _cell(found.get("certified_accuracy"), n),
                _evaluations(found.get("evaluations")),
                None if seconds is None else Cell(f"{seconds:.3g}", ""),
            ]
            title = _title(attack, threats.get(attack, "none"))
            lines.append(Line(title, "", n, cells=cells))
        sections.append(Section(name, "", lines))
    return Table("Attack", headings, sections)


def _evaluations(row: Row | None) -> Cell | None:
    if row is None or row["value"] is None:
        return None
    between = ""
    if row["ci_low"] is not None and row["ci_low"] != row["ci_high"]:
        between = f"{row['ci_low']:.1f}{BETWEEN}{row['ci_high']:.1f}"
    return Cell(f"{row['value']:.1f}", between)
