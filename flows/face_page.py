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
            f"the pairs of one person's clean pictures{_of_draws(best)}."
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
        whose = " of the victims" if first.get("of") == "victims" else ""
        said.append(
            f"{how}; {first['people']} people on {first['images']:,} pictures{whose} give "
            f"{first['genuine_pairs']:,} pairs of one person and {first['impostor_pairs']:,} of "
            "two: smaller rates than one in that many cannot be told."
        )
    return said


def verification_table(rows: Sequence[Row], systems: Sequence[System]) -> Table | None:
    """Defences as rows: threshold, errors on clean pictures, and what of each attack passes.

    Of a random defence every figure is a mean over its draws.

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
    rates = [one["far"] for one in systems[0]["tpr_at_far"]]
    pairs = systems[0]["impostor_pairs"]
    headings = [
        ("threshold", "Threshold"),
        ("far", "FAR, clean"),
        ("frr", "FRR, genuine"),
        ("self", "FRR with self-pairs"),
        ("eer", "EER"),
        *((f"tpr {far:g}", f"TPR at FAR {far:g} ({pairs:,} impostor pairs)") for far in rates),
        *((f"attack {name}", f"FAR, {name} ({threats[name]})") for name in attacks),
    ]
    lines = []
    for one in systems:
        name = one["purifier"]
        cells: list[Cell | None] = [Cell(f"{one['threshold']:.4f}", "")]
        cells += [_cell(_find(rows, "none", name, metric)) for metric in ("far", "frr")]
        cells.append(Cell(_percent(one["frr_with_self_pairs"]), ""))
        cells.append(_cell(_find(rows, "none", name, "eer")))
        cells += [_tpr(row) for row in one["tpr_at_far"]]
        cells += [_cell(_find(rows, attack, name, "far")) for attack in attacks]
        draws = f"mean of {one['draws']} draws" if one["draws"] > 1 else ""
        lines.append(Line(purifier_title(name), draws, one["images"], cells=cells))
    return Table("Defence", headings, [Section("", "", lines)])


def _of_draws(one: System) -> str:
    return f", both in the mean over {one['draws']} draws" if one["draws"] > 1 else ""


def _find(rows: Sequence[Row], attack: str, purifier: str, metric: str) -> Row | None:
    """A figure: of a random defence the mean over its draws."""
    for name in (f"{metric}_mean", metric):
        for row in rows:
            if (row["attack"], row["purifier"], row["metric"]) == (attack, purifier, name):
                return row
    return None


def _worst(rows: Sequence[Row], purifier: str) -> Row | None:
    attacks = dict.fromkeys(row["attack"] for row in rows if row["attack"] != "none")
    found = [_find(rows, attack, purifier, "far") for attack in attacks]
    there = [row for row in found if row is not None and row["value"] is not None]
    return max(there, key=lambda row: row["value"], default=None)


def _percent(value: float | None) -> str:
    return DASH if value is None or value != value else f"{100 * value:.1f}\u00a0%"


def _between(ends: Sequence[float | None]) -> str:
    low, high = ends
    return "" if low is None else f"{100 * low:.1f}{BETWEEN}{_percent(high)}"


def _cell(row: Row | None) -> Cell | None:
    """A figure, its interval, and Wilson's beneath it; one that is Wilson's itself says so."""
    if row is None:
        return None
    between = _between((row["ci_low"], row["ci_high"]))
    plain = row.get("wilson")
    if plain is None:
        return Cell(_percent(row["value"]), between)
    if row["interval"] == "wilson":
        return Cell(_percent(row["value"]), f"Wilson {between}")
    return Cell(_percent(row["value"]), between, f"Wilson {_between(plain)}")


def _tpr(row: dict[str, Any]) -> Cell:
    plain = f"Wilson {_between(row['wilson'])}"
    between = _between(row["by_identity"])
    low, high = row["by_identity"]
    if low is None or low == high:
        return Cell(_percent(row["tpr"]), plain)
    return Cell(_percent(row["tpr"]), between, plain)


def _share(row: Row) -> str:
    cell = _cell(row)
    return "" if cell is None else f"{cell.value} ({cell.interval})"
