"""What a run on a quality metric showed: sentences, and the leaderboard as a table."""

from __future__ import annotations

from collections.abc import Sequence

from flows.scorecard import BETWEEN, DASH, Cell, Line, Row, Section, Table, purifier_title
from tasks.leaderboard import MEASURES, Estimate, Standing

HEADINGS = {"gain": "Gain", "quality": "Quality", "srcc": "SRCC"}


def quality_verdict(rows: Sequence[Row], standings: Sequence[Standing]) -> list[str]:
    """Sentences on what the attacks did to the scores, and which purifier does best.

    Args:
        rows: of a summary.
        standings: the leaderboard.
    """
    said = [_attacks(rows)]
    bare = next((one for one in standings if one.purifier == "none"), None)
    usable = [
        o for o in standings if o.purifier != "none" and o.knowledge != "reference" and o.mean
    ]
    if bare is None or not bare.mean:
        return [text for text in said if text]
    said.append(
        f"Without a purifier the attacks change scores by {_shown(bare.mean['gain'])} of the clean "
        "score on average."
    )
    if usable:
        best = min(usable, key=lambda one: one.mean["gain"].value)
        said.append(
            f"The purifier that leaves least, {best.purifier}, leaves {_shown(best.mean['gain'])} "
            f"at a quality of {_shown(best.mean['quality'])} and a rank correlation of "
            f"{_shown(best.mean['srcc'])}{_cost(best)}."
        )
    front = [one.purifier for one in usable if one.front]
    if len(front) > 1:
        said.append(
            "No other purifier has both a lower gain and a higher quality than any of these: "
            f"{', '.join(front)}."
        )
    return [text for text in said if text]


def _attacks(rows: Sequence[Row]) -> str:
    shifts = [
        row
        for row in rows
        if row["metric"] == "score_shift"
        and row["purifier"] == "none"
        and row["attack"] != "none"
        and row["value"] is not None
    ]
    if not shifts:
        return "No attack was run."
    ranked = sorted(shifts, key=lambda row: -row["value"])
    strongest, weakest = ranked[0], ranked[-1]
    text = (
        f"{strongest['attack']} raises the mean score by {strongest['value']:.1f} standard "
        "deviations of the clean scores"
    )
    if len(ranked) > 1:
        text += f", {weakest['attack']}, the weakest of {len(ranked)}, by {weakest['value']:.1f}"
    return text + "."


def _cost(best: Standing) -> str:
    clean = best.attacks.get("none")
    if clean is None:
        return ""
    return f"; clean images it changes by {clean['gain']:.3f} of their score"


def _shown(one: Estimate) -> str:
    return f"{one.value:.3f} ({one.low:.3f}{BETWEEN}{one.high:.3f})"


def leaderboard_table(standings: Sequence[Standing]) -> Table | None:
    """Purifiers as rows; mean over all attacks, the difference from the baseline, and groups.

    Methods that are given the clean original stand in a section of their own.
    """
    if not standings:
        return None
    groups = list(dict.fromkeys(group for one in standings for group in one.groups))
    groups = [group for group in groups if group != "clean"] + ["clean"]
    differs = any(one.difference for one in standings)
    headings = [(f"all {name}", f"{HEADINGS[name]}, all") for name in MEASURES]
    if differs:
        headings += [(f"less {name}", f"{HEADINGS[name]} less baseline") for name in MEASURES]
    for group in groups:
        headings += [(f"{group} {name}", f"{HEADINGS[name]}, {group}") for name in MEASURES]
    sections = []
    for title, chosen in (
        ("", [one for one in standings if one.knowledge != "reference"]),
        ("Given the clean original", [one for one in standings if one.knowledge == "reference"]),
    ):
        lines = [_line(one, groups, differs) for one in chosen]
        if lines:
            sections.append(Section(title, "", lines))
    return Table("Purifier", headings, sections)


def _line(one: Standing, groups: Sequence[str], differs: bool) -> Line:
    cells: list[Cell | None] = [_cell(one.mean.get(name)) for name in MEASURES]
    if differs:
        cells += [_cell(one.difference.get(name), signed=True) for name in MEASURES]
    for group in groups:
        values = one.groups.get(group)
        cells += [None if values is None else Cell(_number(values[name]), "") for name in MEASURES]
    note = "on the front" if one.front else ""
    return Line(purifier_title(one.purifier), note, cells=cells)


def _cell(one: Estimate | None, *, signed: bool = False) -> Cell | None:
    if one is None:
        return None
    mark = "+" if signed else ""
    return Cell(
        _number(one.value, mark), f"{_number(one.low, mark)}{BETWEEN}{_number(one.high, mark)}"
    )


def _number(value: float, mark: str = "") -> str:
    return DASH if value != value else f"{value:{mark}.3f}"
