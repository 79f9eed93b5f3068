"""What a run on a face encoder showed: sentences, the table of defences, and their errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flows.scorecard import BETWEEN, DASH, Cell, Line, Row, Section, Table, purifier_title

System = dict[str, Any]


def face_verdict(rows: Sequence[Row], systems: Sequence[System]) -> list[str]:
    """Sentences on what passes behind no defence and behind the best, and on what it costs.

    Args:
        rows: of a summary.
        systems: its section ``verification``.
    """
    said = []
    worst = {one["purifier"]: _worst(rows, one["purifier"]) for one in systems}
    bare = worst.get("none")
    if bare is not None:
        said.append(
            f"Without a defence, {_share(bare)} of the images that {bare['attack']} attacked pass "
            "as the person they impersonate."
        )
    rivals = {name: row for name, row in worst.items() if name != "none" and row is not None}
    known = [one for one in systems if one["purifier"] in rivals]
    if known:
        best = min(known, key=lambda one: rivals[one["purifier"]]["value"])
        row = rivals[best["purifier"]]
        said.append(
            f"Behind {best['purifier']}, whose worst attack is lowest, {_share(row)} of those of "
            f"{row['attack']} ({row['threat']}) pass; it refuses {100 * best['frr']:.1f}\u00a0% of "
            "the pairs of one person's clean pictures."
        )
        if not any(row["threat"] in ("bpda", "eot", "full-gradient") for row in rivals.values()):
            said.append("No attack knew a defence: these figures say nothing of one that does.")
    first = systems[0] if systems else None
    if first is not None:
        how = (
            "The threshold is the same for all defences"
            if first["fixed"]
            else "Each defence has its own threshold"
        )
        said.append(
            f"{how}; {first['people']} people on {first['images']:,} pictures give "
            f"{first['genuine_pairs']:,} pairs of one person and {first['impostor_pairs']:,} of "
            "two: smaller rates than one in that many cannot be told."
        )
    return said


def verification_table(rows: Sequence[Row], systems: Sequence[System]) -> Table | None:
    """Defences as rows: threshold, errors on clean pictures, and what of each attack passes.

    Args:
        rows: of a summary.
        systems: its section ``verification``.
    """
    if not systems:
        return None
    attacks = list(
        dict.fromkeys(
            row["attack"] for row in rows if row["attack"] != "none" and row["metric"] == "far"
        )
    )
    threats = {row["attack"]: row["threat"] for row in rows}
    headings = [
        ("threshold", "Threshold"),
        ("far", "FAR, clean"),
        ("frr", "FRR, genuine"),
        ("self", "FRR with self-pairs"),
        ("eer", "EER"),
        *((f"tpr {far}", f"TPR at FAR {far}") for far in systems[0]["tpr_at_far"]),
        *((f"attack {name}", f"FAR, {name} ({threats[name]})") for name in attacks),
    ]
    lines = []
    for one in systems:
        name = one["purifier"]
        cells: list[Cell | None] = [Cell(f"{one['threshold']:.4f}", "")]
        cells += [_cell(_find(rows, "none", name, metric)) for metric in ("far", "frr")]
        cells.append(Cell(_percent(one["frr_with_self_pairs"]), ""))
        cells.append(_cell(_find(rows, "none", name, "eer")))
        cells += [Cell(_percent(value), "") for value in one["tpr_at_far"].values()]
        cells += [_cell(_find(rows, attack, name, "far")) for attack in attacks]
        lines.append(Line(purifier_title(name), "", one["images"], cells=cells))
    return Table("Defence", headings, [Section("", "", lines)])


def _find(rows: Sequence[Row], attack: str, purifier: str, metric: str) -> Row | None:
    wanted = (attack, purifier, metric)
    return next(
        (r for r in rows if (r["attack"], r["purifier"], r["metric"]) == wanted),
        None,
    )


def _worst(rows: Sequence[Row], purifier: str) -> Row | None:
    found = [
        row
        for row in rows
        if row["metric"] == "far"
        and row["purifier"] == purifier
        and row["attack"] != "none"
        and row["value"] is not None
    ]
    return max(found, key=lambda row: row["value"], default=None)


def _percent(value: float | None) -> str:
    return DASH if value is None or value != value else f"{100 * value:.1f}\u00a0%"


def _cell(row: Row | None) -> Cell | None:
    if row is None:
        return None
    low, high = row["ci_low"], row["ci_high"]
    between = "" if low is None else f"{100 * low:.1f}{BETWEEN}{_percent(high)}"
    return Cell(_percent(row["value"]), between)


def _share(row: Row) -> str:
    cell = _cell(row)
    return "" if cell is None else f"{cell.value} ({cell.interval})"
