"""The rows of a summary arranged as a page shows them: score card, detectors, policies, bars."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from defender.metrics import METRICS

Row = dict[str, Any]

DASH, PERCENT = "\u2013", "\u00a0%"
BETWEEN = f"\u00a0{DASH}\u2060\u00a0"
RATES = {name for name, metric in METRICS.items() if metric.kind in ("rate", "class")} | {
    "far",
    "frr",
    "eer",
    "far_mean",
    "far_worst",
    "far_majority",
    "frr_mean",
    "frr_worst",
    "frr_majority",
    "eer_mean",
    "false_positive_rate",
    "true_positive_rate",
    "tpr_at_fpr_0.001",
    "tpr_at_fpr_0.01",
    "tpr_at_fpr_0.05",
    "located",
    "certified_accuracy",
}
SHARES = {name for name, metric in METRICS.items() if metric.kind == "mask"}
TITLES = {
    "gain": "Gain",
    "quality": "Quality",
    "srcc": "SRCC",
    "gain_mean": "Gain, mean of draws",
    "gain_worst": "Gain, worst of draws",
    "absolute_gain": "Gain of range",
    "defended_gain": "Gain, both defended",
    "defended_absolute_gain": "Gain of range, both defended",
    "image_similarity": "SSIM + PSNR / 40 dB",
    "score": "Score",
    "score_shift": "Score shift, SD",
    "far": "FAR",
    "frr": "FRR",
    "eer": "EER",
    "far_mean": "FAR, mean of draws",
    "far_worst": "FAR, worst of draws",
    "far_majority": "FAR, majority",
    "frr_mean": "FRR, mean of draws",
    "frr_worst": "FRR, worst of draws",
    "frr_majority": "FRR, majority",
    "eer_mean": "EER, all draws",
    "similarity": "Similarity",
    "accuracy": "Accuracy",
    "accuracy_mean": "Accuracy, mean of draws",
    "accuracy_worst": "Accuracy, worst of draws",
    "accuracy_majority": "Accuracy, majority",
    "balanced_accuracy": "Balanced accuracy",
    "attack_success": "Attack success",
    "label_recovery": "Label recovery",
    "o1": "Goal O1",
    "o2": "Goal O2",
    "scaling_success": "O1 and O2",
    "target_agreement": "Agrees with the hidden picture",
    "scaled_psnr": "PSNR scaled, dB",
    "target_psnr": "PSNR to hidden, dB",
    "psnr": "PSNR, dB",
    "psnr_legacy": "PSNR + 48.13, dB",
    "ssim": "SSIM",
    "ms_ssim": "MS-SSIM",
    "l2": "L2",
    "linf": "L∞",
    "true_positive_rate": "TPR",
    "false_positive_rate": "FPR",
    "roc_auc": "ROC-AUC",
    "tpr_at_fpr_0.001": "TPR at FPR 0.1 %",
    "tpr_at_fpr_0.01": "TPR at FPR 1 %",
    "tpr_at_fpr_0.05": "TPR at FPR 5 %",
    "located": "Located",
    "box_iou": "Box IoU",
    "mask_precision": "Mask precision",
    "mask_recall": "Mask recall",
    "mask_precision_top": "Mask precision, top",
}
DETECTION = {
    "roc_auc": (
        "area under the ROC curve: chance that an attacked image scores above a clean one; "
        "0.5 is guessing",
        "higher",
    ),
    "true_positive_rate": ("share of attacked images above the threshold", "higher"),
    "tpr_at_fpr_0.001": (
        "share of attacked images flagged when 0.1 % of clean ones are",
        "higher",
    ),
    "tpr_at_fpr_0.01": ("share of attacked images flagged when 1 % of clean ones are", "higher"),
    "tpr_at_fpr_0.05": ("share of attacked images flagged when 5 % of clean ones are", "higher"),
    "located": (
        "share of images with a patch that are flagged and whose box shares half of its area with "
        "the patch, of what either covers",
        "higher",
    ),
    "box_iou": (
        "area that the box of the detector's map and the patch share, of what either covers",
        "higher",
    ),
    "false_positive_rate": (
        "share of clean, or harmlessly changed, held-out images above the threshold, which comes "
        "from other images",
        "lower",
    ),
}
RANKED = ("accuracy", "scaled_psnr")
"""The figure by which purifiers are ranked: the first that the run measured."""
POLICIES = {
    "reject": "reject what is flagged; a rejected image counts as not correct",
    "purify-if-flagged": "purify what is flagged, pass the rest on",
}


@dataclass(frozen=True)
class Cell:
    """One figure with its interval."""

    value: str
    interval: str
    n: str = ""


@dataclass
class Line:
    """One row of a table; a heading stands above the first row of a group."""

    label: str
    note: str = ""
    n: int = 0
    best: bool = False
    cells: list[Cell | None] = field(default_factory=list)
    heading: str = ""


@dataclass
class Section:
    """Rows of a table under one heading."""

    title: str
    note: str
    lines: list[Line]


@dataclass
class Table:
    """A table: what its first column holds, headings of the others, and sections."""

    first: str
    headings: list[tuple[str, str]]
    sections: list[Section]


def number(metric: str, value: float | None) -> str:
    """A figure as it is printed, without its unit unless it is a percentage."""
    if value is None:
        return DASH
    if metric in RATES or metric in SHARES:
        return f"{100 * value:.1f}{PERCENT}"
    if metric in METRICS and METRICS[metric].unit == "dB":
        return f"{value:.2f}"
    return f"{value:.4f}" if metric == "linf" else f"{value:.3f}"


def interval(metric: str, row: Row) -> str:
    """The 95 % interval of a row, empty where there is none."""
    if row["ci_low"] is None or row["ci_high"] is None:
        return ""
    low, high = number(metric, row["ci_low"]), number(metric, row["ci_high"])
    return f"{low.removesuffix(PERCENT)}{BETWEEN}{high}"


def count(value: int) -> str:
    """A whole number with thin spaces between its thousands."""
    return f"{value:,}".replace(",", "\u202f")


def attack_title(attack: str, threat: str) -> str:
    """Heading of an attack, or of a change that is none."""
    if attack == "none":
        return "No attack"
    return f"{attack} · {'harmless change' if threat == 'none' else threat}"


def harmless(row: Row) -> bool:
    """Whether a row is of images that were changed without any harm being meant."""
    return bool(row["attack"] != "none" and row["threat"] == "none")


def purifier_title(purifier: str) -> str:
    """Label of a purifier."""
    return "no purifier" if purifier == "none" else purifier


def deployable(rows: Iterable[Row]) -> list[Row]:
    """Rows of methods that can be used where no clean original exists."""
    return [row for row in rows if row["knowledge"] != "reference"]


def told(rows: Iterable[Row]) -> list[Row]:
    """Rows of methods that are given the clean original."""
    return [row for row in rows if row["knowledge"] == "reference"]


def score_table(rows: Sequence[Row], *, ranked: bool) -> Table | None:
    """Attacks as sections, purifiers as rows, metrics as columns.

    Args:
        rows: of a summary.
        ranked: mark the purifier with the best accuracy under each attack; without a model, the
            one that brings what the model would see closest to the original.
    """
    chosen = [row for row in rows if row["policy"] == "none"]
    table = _table(
        chosen,
        "Purifier",
        section=lambda row: (attack_title(row["attack"], row["threat"]), ""),
        line=lambda row: (purifier_title(row["purifier"]), _known(row)),
    )
    if table is not None and ranked:
        calm = {attack_title(r["attack"], r["threat"]) for r in chosen if r["threat"] == "none"}
        for section in table.sections:
            if section.title not in calm:
                _mark(section, [name for name, _ in table.headings])
    return table


def _known(row: Row) -> str:
    """What a purifier is told, and whether the attack was made through another one."""
    through = row.get("through", "none")  # summaries of earlier versions lack it
    moved = through not in ("none", row["purifier"])
    return f"{row['knowledge']} \u00b7 transferred" if moved else str(row["knowledge"])


def _mark(section: Section, metrics: list[str]) -> None:
    metric = next((name for name in RANKED if name in metrics), None)
    if metric is None or len(section.lines) < 2:
        return
    position = metrics.index(metric)

    def value(line: Line) -> float:
        cell = line.cells[position]
        text = DASH if cell is None else cell.value.removesuffix(PERCENT)
        return -1.0 if text == DASH else float(text)

    top = max(value(line) for line in section.lines)
    leaders = [line for line in section.lines if value(line) == top]
    if top >= 0 and len(leaders) == 1:
        leaders[0].best = True


def detector_table(rows: Sequence[Row], thresholds: dict[str, float | None]) -> Table | None:
    """Detectors as sections, attacks as rows, and below them harmless changes."""
    observed = [row for row in rows if row["policy"] == "observe"]
    false = {
        row["detector"]: row
        for row in observed
        if row["metric"] == "false_positive_rate" and row["attack"] == "none"
    }

    def section(row: Row) -> tuple[str, str]:
        name = row["detector"]
        threshold = thresholds.get(name)
        note = "no threshold: too few images for the wanted rate"
        if threshold is not None:
            note = f"threshold {threshold:.4g}"
        if name in false:
            found = false[name]
            shown = number("false_positive_rate", found["value"])
            between = interval("false_positive_rate", found)
            note += f" · false positives {shown}"
            note += f" ({between})" if between else ""
            note += f" of {count(found['n'])} held-out clean images"
        return f"{name} · {row['knowledge']}", note

    def line(row: Row) -> tuple[str, str]:
        title = attack_title(row["attack"], row["threat"])
        return row["attack"] if harmless(row) else title, ""

    def known(row: Row) -> Row:
        lacks = row["metric"] == "true_positive_rate" and thresholds.get(row["detector"]) is None
        return {**row, "value": None, "ci_low": None, "ci_high": None} if lacks else row

    changed = [known(row) for row in observed if row["attack"] != "none"]
    return _table(
        sorted(changed, key=harmless) or observed,
        "Attack",
        section=section,
        line=line,
        group=lambda row: "Harmless changes" if harmless(row) else "",
    )


def policy_table(rows: Sequence[Row]) -> Table | None:
    """Attacks as sections; a row for each detector, policy and purifier."""
    chosen = [row for row in rows if row["policy"] in POLICIES]
    return _table(
        sorted(chosen, key=lambda row: row["attack"] != "none"),
        "Policy",
        section=lambda row: (attack_title(row["attack"], row["threat"]), ""),
        line=lambda row: (
            f"{row['policy']} · {purifier_title(row['purifier'])}",
            f"{row['detector']} · {row['knowledge']}",
        ),
    )


def _table(
    rows: Sequence[Row],
    first: str,
    *,
    section: Callable[[Row], tuple[str, str]],
    line: Callable[[Row], tuple[str, str]],
    group: Callable[[Row], str] = lambda _: "",
) -> Table | None:
    if not rows:
        return None
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    order = [name for name in TITLES if name in metrics]
    metrics = order + [name for name in metrics if name not in order]
    sections: dict[tuple[str, str], dict[tuple[str, str, str], dict[str, Row]]] = {}
    for row in rows:
        lines = sections.setdefault(section(row), {})
        lines.setdefault((group(row), *line(row)), {})[row["metric"]] = row
    return Table(
        first,
        [(name, TITLES.get(name, name)) for name in metrics],
        [
            Section(title, note, _headed(lines, metrics))
            for (title, note), lines in sections.items()
        ],
    )


def _headed(lines: dict[tuple[str, str, str], dict[str, Row]], metrics: list[str]) -> list[Line]:
    """The rows of a section; the first of each group bears the group's name."""
    made: list[Line] = []
    last = ""
    for (group, label, note), found in lines.items():
        made.append(_line(label, note, found, metrics))
        made[-1].heading, last = (group if group != last else ""), group
    return made


def _line(label: str, note: str, found: dict[str, Row], metrics: list[str]) -> Line:
    n = max(row["n"] for row in found.values())
    cells: list[Cell | None] = []
    for name in metrics:
        row = found.get(name)
        if row is None:
            cells.append(None)
            continue
        own = f"n {count(row['n'])}" if row["n"] != n else ""
        cells.append(Cell(number(name, row["value"]), interval(name, row), own))
    return Line(label, note, n, cells=cells)


def meanings(rows: Sequence[Row]) -> list[tuple[str, str, str, str]]:
    """Title, meaning, better direction and unit of every metric that the summary holds."""
    names = dict.fromkeys(row["metric"] for row in rows)
    listed: list[tuple[str, str, str, str]] = []
    for name in sorted(names, key=lambda n: list(TITLES).index(n) if n in TITLES else 99):
        if name in METRICS:
            metric = METRICS[name]
            listed.append((TITLES.get(name, name), metric.doc, metric.better, metric.unit))
        elif name in DETECTION:
            listed.append((TITLES[name], *DETECTION[name], ""))
    return listed
