"""What a run showed, in a few sentences made from the rows of its summary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flows.scorecard import count, deployable, harmless, interval, number, told

Row = dict[str, Any]

THREATS = {
    "oblivious": "made without regard to any purifier",
    "grey": "made by someone who knows the kind of defence, not its parameters",
    "bpda": "made through the purifier it names",
    "eot": "made through the purifier it names, averaged over draws",
    "full-gradient": "made with the gradient of the whole defence",
    "query": "made from the model's answers alone",
    "precomputed": "made elsewhere",
    "control": "no attack: as much is changed, but at random",
}


def verdict(rows: Sequence[Row]) -> list[str]:
    """Sentences on clean accuracy, accuracy under each attack, and the best deployable purifier.

    Args:
        rows: of a summary.

    Returns:
        One paragraph an entry.
    """
    plain = [row for row in rows if row["policy"] == "none"]
    metric = measure(plain)
    if metric is None:
        return ["The run measured neither accuracy nor label recovery, so there is no verdict."]
    found = [row for row in plain if row["metric"] == metric and row["value"] is not None]
    said = [clean(found, metric)]
    attacks = dict.fromkeys(row["attack"] for row in found if row["attack"] != "none")
    for attack in attacks:
        said.append(under(attack, found, metric))
    if not attacks:
        said.append("No attack was run.")
    if told(plain):
        said.append("Methods that are given the clean original are listed apart and not ranked.")
    return [sentence for sentence in said if sentence]


ADAPTIVE = {"grey", "bpda", "eot", "full-gradient"}


def caveat(rows: Sequence[Row], *, resized: bool = False) -> str:
    """How far the figures carry against attackers who know the defence.

    Args:
        rows: of a summary.
        resized: the run has a resize in front of its model, whose attacks can be adapted to
            detectors, too.
    """
    if resized:
        return _caveat_behind_resize(rows)
    purified = [r for r in rows if r["threat"] != "none" and r["purifier"] != "none"]
    if not purified:
        return ""
    adaptive = dict.fromkeys(row["attack"] for row in purified if row["threat"] in ADAPTIVE)
    if adaptive:
        return (
            f"Adapted to a purifier: {', '.join(adaptive)}. A purifier that no attack was made "
            "through may fall to one that is."
        )
    return (
        "No attack of this run was made through a purifier. An attacker who knows the defence "
        "may do better than these figures say."
    )


def _caveat_behind_resize(rows: Sequence[Row]) -> str:
    attacks = [row for row in rows if row["threat"] != "none"]
    adapted = dict.fromkeys(row["attack"] for row in attacks if row["threat"] in ADAPTIVE)
    if adapted:
        return (
            f"Adapted to a defence: {', '.join(adapted)}. A purifier or detector that no attack "
            "was adapted to may fall to one that is."
        )
    if not any(row["purifier"] != "none" or row["detector"] != "none" for row in attacks):
        return ""
    return (
        "No attack of this run was adapted to a purifier or detector. An attacker who knows the "
        "defence may do better than these figures say."
    )


def threats(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """The threat models that the summary names, with their meaning."""
    names = dict.fromkeys(row["threat"] for row in rows if row["threat"] != "none")
    return [(name, THREATS.get(name, "")) for name in names]


def measure(rows: Sequence[Row]) -> str | None:
    """The figure that sentences about purifiers rest on, None where there is none."""
    names = {row["metric"] for row in rows}
    return next((name for name in ("accuracy", "label_recovery") if name in names), None)


def chosen(
    rows: Sequence[Row], attack: str, purifier: str, metric: str | None = None
) -> Row | None:
    """The row of an attack and a purifier, of a metric where the rows are of several."""
    for row in rows:
        if (row["attack"], row["purifier"]) == (attack, purifier) and metric in (
            None,
            row["metric"],
        ):
            return row
    return None


def shown(row: Row, metric: str) -> str:
    """The figure of a row with its interval."""
    between = interval(metric, row)
    return number(metric, row["value"]) + (f" ({between})" if between else "")


def clean(rows: Sequence[Row], metric: str) -> str:
    """A sentence on images that nobody attacked."""
    if metric != "accuracy":
        return (
            "The dataset has no labels: figures say how often the model still predicts "
            "what it predicts for the clean image."
        )
    row = chosen(rows, "none", "none")
    if row is None:
        return ""
    return (
        f"Without an attack the model classifies {shown(row, metric)} of "
        f"{count(row['n'])} images correctly."
    )


def under(attack: str, rows: Sequence[Row], metric: str) -> str:
    """Sentences on one attack and the best deployable purifier after it."""
    bare = chosen(rows, attack, "none")
    if bare is None:
        return ""
    what = "accuracy is" if metric == "accuracy" else "the prediction stays the same for"
    text = f"{'After' if harmless(bare) else 'Under'} {attack} {what} {shown(bare, metric)}."
    purified = [r for r in rows if r["attack"] == attack and r["purifier"] != "none"]
    usable = deployable(purified)
    if usable:
        text += _best(usable, bare, rows, metric)
    elif purified:
        text += " No purifier that could be deployed was run."
    return text


def _best(usable: Sequence[Row], bare: Row, rows: Sequence[Row], metric: str) -> str:
    best = max(usable, key=lambda row: row["value"])
    if best["value"] <= bare["value"]:
        return (
            f" No purifier that could be deployed raises it; the best, {best['purifier']}, "
            f"leaves {shown(best, metric)}."
        )
    text = (
        f" The best purifier that could be deployed, {best['purifier']}, brings it to "
        f"{shown(best, metric)}"
    )
    cost = _cost(best["purifier"], rows, metric)
    return text + (f" {cost}." if cost else ".")


def _cost(purifier: str, rows: Sequence[Row], metric: str) -> str:
    """What a purifier costs on clean images, in points."""
    before, after = chosen(rows, "none", "none"), chosen(rows, "none", purifier)
    if before is None or after is None:
        return ""
    points = 100 * (before["value"] - after["value"])
    shown = f"{abs(points):.1f} points"
    if abs(points) < 0.05:
        return "at no cost on clean images"
    if points < 0:
        return f"and gains {shown} on clean images"
    unit = "accuracy" if metric == "accuracy" else "agreement"
    return f"and costs {shown} of {unit} on clean images"
