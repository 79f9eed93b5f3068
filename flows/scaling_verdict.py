"""What a run behind a resize showed, in a few sentences made from the rows of its summary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flows.scorecard import (
    TITLES,
    Cell,
    Line,
    Row,
    Section,
    Table,
    count,
    deployable,
    harmless,
    interval,
    number,
    told,
)
from flows.verdict import chosen, clean, measure, shown, under

Thresholds = dict[str, float | None]
TOGETHER = 3
"""Attacks up to which each has its sentences in the verdict itself."""


def scaling_verdict(
    rows: Sequence[Row], thresholds: Thresholds, resize: str
) -> tuple[list[str], Table | None]:
    """Sentences on the resize, clean accuracy, and what attacks, purifiers and detectors do.

    Args:
        rows: of a summary.
        thresholds: of the detectors, None where there were too few images.
        resize: what is to be said of the resize itself.

    Returns:
        Paragraphs of the verdict, and a table of the attacks where they are many.
    """
    plain = [row for row in rows if row["policy"] == "none"]
    observed = [row for row in deployable(rows) if row["policy"] == "observe"]
    metric = measure(plain)
    found = [row for row in plain if row["metric"] == metric and row["value"] is not None]
    without = "No model was asked: the figures compare what it would be shown."
    attacks = list(dict.fromkeys(r["attack"] for r in rows if r["threat"] != "none"))
    said = [resize, without if metric is None else clean(found, metric)]
    table = None
    if len(attacks) > TOGETHER:
        table = _table(attacks, plain, observed, thresholds, metric or "scaled_psnr")
        said.append(_goals_of_all(plain))
    else:
        for attack in attacks:
            start = _goals(attack, plain) or ("" if metric else f"{attack}: ")
            purified = _restored(attack, plain, metric)
            said.append(start + purified + _detected(attack, observed, thresholds))
    if not attacks:
        said.append("No attack was run.")
    if len(attacks) > 1:
        said.append(_purifier_of_all(attacks, plain, metric or "scaled_psnr"))
        said.append(_detector_of_all(attacks, observed, thresholds))
    said.append(_false_alarms(attacks, observed, thresholds))
    if told(plain):
        said.append("Methods that are given the clean original are listed apart and not ranked.")
    return [text.strip() for text in said if text], table


def _table(
    attacks: Sequence[str],
    plain: Sequence[Row],
    observed: Sequence[Row],
    thresholds: Thresholds,
    metric: str,
) -> Table:
    """The attacks with their goals, the best purifier and the best detector, one a row."""
    names = ("o1", "o2", "target_agreement", metric)
    lines = []
    for attack in attacks:
        cells = [_cell(chosen(plain, attack, "none", name)) for name in names]
        best = _best(r for r in plain if r["attack"] == attack and r["metric"] == metric)
        hit = _leader(_hits([attack], observed, thresholds).values(), observed)
        left = None if best is None else chosen(plain, attack, best["purifier"], "o1")
        cells += [_cell(best, "purifier"), _cell(left), _cell(hit, "detector")]
        n = max((row["n"] for row in plain if row["attack"] == attack), default=0)
        lines.append(Line(attack, n=n, cells=cells))
    headings = [(name, TITLES[name]) for name in names]
    headings += [
        ("best", f"{TITLES[metric]}, best purifier"),
        ("left", f"{TITLES['o1']} after it"),
        ("hit", "TPR, best detector"),
    ]
    return Table("Attack", *_without_empty(headings, lines))


def _cell(row: Row | None, field: str = "") -> Cell | None:
    """A figure, and beneath it its interval or the name of the method that it is of."""
    if row is None:
        return None
    small = row[field] if field else interval(row["metric"], row)
    return Cell(number(row["metric"], row["value"]), small)


def _without_empty(
    headings: list[tuple[str, str]], lines: list[Line]
) -> tuple[list[tuple[str, str]], list[Section]]:
    """Drop the columns in which no row has a figure."""
    kept = [i for i in range(len(headings)) if any(line.cells[i] for line in lines)]
    for line in lines:
        line.cells = [line.cells[i] for i in kept]
    return [headings[i] for i in kept], [Section("", "", lines)]


def _goals(attack: str, plain: Sequence[Row]) -> str:
    """Whether the hidden picture shows after the resize, and whether the attack shows before."""
    first, second, both, agreed = (
        chosen(plain, attack, "none", name)
        for name in ("o1", "o2", "scaling_success", "target_agreement")
    )
    if first is None:
        return ""
    text = f"{attack}: {number('o1', first['value'])} of the images show the hidden picture when "
    text += "resized (O1)"
    if second is not None:
        text += f", {number('o2', second['value'])} look like the original before that (O2)"
    if both is not None:
        text += f", {number('o1', both['value'])} do both"
    if agreed is not None:
        share = number("o1", agreed["value"])
        text += f". In {share} the model predicts what it predicts for the hidden picture"
    return f"{text}. "


def _goals_of_all(plain: Sequence[Row]) -> str:
    """The same of all attacks together, as ranges."""
    reached = {}
    for name in ("o1", "o2", "target_agreement"):
        of_metric = [r for r in plain if r["metric"] == name and r["purifier"] == "none"]
        values = [row["value"] for row in of_metric if row["value"] is not None]
        if values:
            reached[name] = f"{number(name, min(values))} to {number(name, max(values))}"
    if "o1" not in reached:
        return ""
    text = f"Of a scaling attack's images {reached['o1']} show the hidden picture when resized (O1)"
    if "o2" in reached:
        text += f", and {reached['o2']} look like the original before that (O2)"
    if "target_agreement" in reached:
        text += f"; in {reached['target_agreement']} the model predicts what it predicts for the "
        text += "hidden picture"
    return f"{text}."


def _restored(attack: str, plain: Sequence[Row], metric: str | None) -> str:
    """The best deployable purifier, and how often the hidden picture still shows after it."""
    text = ""
    if metric is not None:
        found = [row for row in plain if row["metric"] == metric and row["value"] is not None]
        text = under(attack, found, metric) + " "
    best = _best(
        r for r in plain if r["attack"] == attack and r["metric"] == (metric or "scaled_psnr")
    )
    if best is None:
        return text
    left = chosen(plain, attack, best["purifier"], "o1")
    if metric is None:
        text += f"The best purifier that could be deployed, {best['purifier']}, leaves a PSNR of "
        text += f"{shown(best, 'scaled_psnr')} dB to the resized original. "
    if left is not None:
        text += f"With it {shown(left, 'o1')} still show the hidden picture. "
    return text


def _best(rows: Iterable[Row]) -> Row | None:
    usable = [r for r in deployable(rows) if r["purifier"] != "none" and r["value"] is not None]
    return max(usable, key=lambda row: float(row["value"]), default=None)


def _purifier_of_all(attacks: Sequence[str], plain: Sequence[Row], metric: str) -> str:
    """The purifier whose worst result over all attacks is best."""
    of_attacks = [row for row in plain if row["attack"] in attacks and row["metric"] == metric]
    worst = _lowest(deployable(of_attacks), "purifier", len(attacks))
    bare = worst.pop("none", None)
    row = _best(worst.values())
    if row is None:
        return ""
    unit = " dB" if metric == "scaled_psnr" else ""
    names = {"accuracy": "accuracy", "scaled_psnr": "the PSNR to the resized original"}
    if bare is not None and row["value"] <= bare["value"]:
        return (
            f"No purifier that was tried on all attacks holds against each: the best, "
            f"{row['purifier']}, leaves {shown(row, metric)}{unit} under {row['attack']}."
        )
    text = (
        f"Of the purifiers {row['purifier']} holds best over all attacks: "
        f"{names.get(metric, 'agreement')} is {shown(row, metric)}{unit} or more, the least under "
        f"{row['attack']}"
    )
    if bare is not None:
        text += f"; without a purifier it falls to {number(metric, bare['value'])}{unit}"
    return f"{text}."


def _lowest(rows: Iterable[Row], field: str, wanted: int) -> dict[str, Row]:
    """The lowest row of each method, by its name, for those that have as many rows as wanted."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row["value"] is not None:
            found.setdefault(row[field], []).append(row)
    return {
        name: min(of_method, key=lambda row: float(row["value"]))
        for name, of_method in found.items()
        if len(of_method) == wanted
    }


def _detected(attack: str, observed: Sequence[Row], thresholds: Thresholds) -> str:
    """The detector that tells an attack best at its threshold, and what it costs."""
    row = _leader(_hits([attack], observed, thresholds).values(), observed)
    if row is not None:
        return (
            f"The best detector, {row['detector']}, flags {shown(row, 'o1')} of them at its "
            f"threshold{_price(row['detector'], observed)}."
        )
    areas = [r for r in observed if r["attack"] == attack and r["metric"] == "roc_auc"]
    best = max(areas, key=lambda row: float(row["value"] or 0), default=None)
    if best is None:
        return ""
    return (
        f"The best detector is {best['detector']}, with a ROC-AUC of {shown(best, 'roc_auc')}; "
        "none has a threshold, for want of clean images."
    )


def _hits(
    attacks: Sequence[str], observed: Sequence[Row], thresholds: Thresholds
) -> dict[str, Row]:
    """For each detector with a threshold the lowest share of an attack's images it flags."""
    rates = [
        row
        for row in observed
        if row["attack"] in attacks
        and row["metric"] == "true_positive_rate"
        and thresholds.get(row["detector"]) is not None
    ]
    return _lowest(rates, "detector", len(attacks))


def _leader(hits: Iterable[Row], observed: Sequence[Row]) -> Row | None:
    """The rate that is furthest above the false positive rate of its detector."""

    def gain(row: Row) -> float:
        false = _false(row["detector"], observed)
        return float(row["value"]) - float((false and false["value"]) or 0)

    return max(hits, key=gain, default=None)


def _false(detector: str, observed: Sequence[Row]) -> Row | None:
    mine = [row for row in observed if row["detector"] == detector]
    return chosen(mine, "none", "none", "false_positive_rate")


def _price(detector: str, observed: Sequence[Row]) -> str:
    row = _false(detector, observed)
    if row is None or row["value"] is None:
        return ""
    return f", and {shown(row, 'o1')} of {count(row['n'])} held-out clean images"


def _detector_of_all(
    attacks: Sequence[str], observed: Sequence[Row], thresholds: Thresholds
) -> str:
    row = _leader(_hits(attacks, observed, thresholds).values(), observed)
    if row is None:
        return ""
    least = f" or more of the images of each attack, the least of {row['attack']}"
    if row["value"] == 1:
        least = " of the images of every attack"
    return (
        f"Of the detectors {row['detector']} holds best: it flags {shown(row, 'o1')}{least}"
        f"{_price(row['detector'], observed)}."
    )


def _false_alarms(attacks: Sequence[str], observed: Sequence[Row], thresholds: Thresholds) -> str:
    """How often the best detector flags images that were changed without harm."""
    best = _leader(_hits(attacks, observed, thresholds).values(), observed)
    if best is None:
        return ""
    flagged = [r for r in observed if harmless(r) and r["detector"] == best["detector"]]
    most = max(flagged, key=lambda row: float(row["value"] or 0), default=None)
    if most is None:
        return ""
    return (
        f"Of images that were changed harmlessly {best['detector']} flags {shown(most, 'o1')} at "
        f"most, after {most['attack']}."
    )
