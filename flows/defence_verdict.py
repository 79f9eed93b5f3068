"""Which defences of a run are broken by which attack: in sentences, and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flows.scorecard import BETWEEN, Cell, Line, Section, Table, purifier_title
from flows.verdict import shown

Defence = dict[str, Any]
Figure = dict[str, Any]

COLUMNS = (
    ("unaware", "Does not know it"),
    ("bpda", "BPDA"),
    ("eot", "EOT"),
    ("full-gradient", "Full gradient"),
    ("query", "Query"),
)
"""Kinds of attack, and the headings of their columns."""
STATUS = {
    "bare": "",
    "broken": "broken",
    "useless": "costs too much",
    "broken-by-tries": "broken by trying again",
    "undecided": "undecided",
    "untested": "not tested",
    "no-better": "no better than none",
    "holds": "not broken here",
}
NOUNS = {"accuracy": "accuracy", "label_recovery": "agreement", "far": "FAR"}


def defence_verdict(defences: Sequence[Defence]) -> list[str]:
    """A sentence or two on each defence, those that are broken first.

    Args:
        defences: the section of that name of a summary.

    Returns:
        One paragraph an entry.
    """
    bare = next((one for one in defences if one["status"] == "bare"), None)
    if bare is None:
        return []
    said = [_paragraph(one, bare) for status in STATUS for one in _all(defences, status)]
    untested = _all(defences, "untested")
    if untested:
        named = "; ".join(f"{one['purifier']}{_tried(one)}" for one in untested)
        said.append(
            f"Not tested by an attack that knows it, so that nothing can be said of one: {named}."
        )
    if not bare["broken_by"]:
        said.append(
            "No attack of this run breaks the bare model either: that a defence is not broken says "
            "little here."
        )
    said += [_sign(one, sign) for one in defences for sign in one["masked"]]
    return [sentence for sentence in said if sentence]


def definition(defences: Sequence[Defence]) -> str:
    """When a defence counts as broken."""
    metric = defences[0]["metric"]
    limits = sorted({one["limit"] for one in defences})
    values = " to ".join(_percent(value) for value in dict.fromkeys((limits[0], limits[-1])))
    if metric == "far":
        return (
            "A defence is broken where an attack brings FAR to ten times what the defence was "
            f"calibrated for, or to half of all pictures if that is less: here {values} or more, "
            "the whole 95\u00a0% interval included."
        )
    return (
        f"A defence is broken where an attack leaves no more than half of the {NOUNS[metric]} that "
        f"the bare model has on clean images: here {values} or less, the whole 95\u00a0% interval "
        "included."
    )


def defences_table(defences: Sequence[Defence], seconds: Mapping[str, float | None]) -> Table:
    """Defences as rows; the strongest attack of each kind, many draws, and seconds as columns.

    Args:
        defences: the section of that name of a summary.
        seconds: for an image, by purifier.
    """
    clean = "FRR, clean" if defences[0]["metric"] == "far" else "Clean"
    headings = [
        ("clean", clean),
        *COLUMNS,
        ("worst", "Worst of draws"),
        ("majority", "Majority of draws"),
        ("seconds", "s an image"),
    ]
    lines = []
    for one in defences:
        cells = [_cell(one["clean"], "")]
        for name, _ in COLUMNS:
            figure = one["strongest"].get(name)
            cells.append(_cell(figure, _origin(figure, one["purifier"], name)))
        for name in ("worst", "majority"):
            figure = one[name]
            note = f"{figure['attack']}, {one['draws']} draws" if figure else ""
            cells.append(_cell(figure, note))
        spent = seconds.get(one["purifier"])
        cells.append(None if spent is None else Cell(f"{spent:.3g}", ""))
        title = purifier_title(one["purifier"])
        lines.append(Line(title, STATUS[one["status"]], one["clean"]["n"], cells=cells))
    return Table("Defence", headings, [Section("", "", lines)])


def _all(defences: Sequence[Defence], status: str) -> list[Defence]:
    return [one for one in defences if one["status"] == status]


def _origin(figure: Figure | None, purifier: str, column: str) -> str:
    """The attack of a cell, and whether its queries were answered without the defence."""
    if figure is None:
        return ""
    apart = column == "query" and purifier != "none" and not figure["knows"]
    return f"{figure['attack']}{', made without it' if apart else ''}"


def _paragraph(one: Defence, bare: Defence) -> str:
    """What is to be said of a defence by itself."""
    name, status = str(one["purifier"]), str(one["status"])
    if status in ("bare", "untested"):
        return ""
    if status == "useless":
        return f"{name} costs too much: {_cost(one)}."
    if status == "broken":
        return _broken(one, bare)
    if status == "broken-by-tries":
        return (
            f"{name} is broken by whoever may try {one['draws']} times: behind the worst of as "
            f"many draws '{one['worst']['attack']}' {_leaves(one, one['worst'])}; a single draw is "
            f"not broken.{_untold(one)}{_bare(one, bare)}"
        )
    strongest = _strongest(one)
    if status == "undecided":
        return (
            f"{name} cannot be told from broken: {_named(strongest)} {_leaves(one, strongest)}, "
            f"and the limit is {_percent(one['limit'])}.{_untold(one)}{_bare(one, bare)}"
        )
    if status == "no-better":
        without = _strongest(bare)
        return (
            f"{name} holds no better than no defence: {_named(strongest)} "
            f"{_leaves(one, strongest)}, and without a defence '{without['attack']}' "
            f"{_leaves(bare, without)}."
        )
    knowing = _worst(one, [f for k, f in one["strongest"].items() if k != "unaware" and f["knows"]])
    rest = _unaware(one)
    return (
        f"{name} is not broken by the attacks of this run that know it: the strongest, "
        f"{_named(knowing)}, {_leaves(one, knowing)}{f'; {rest}' if rest else ''}."
    )


def _broken(one: Defence, bare: Defence) -> str:
    """By which attack a defence is broken, and what others come to."""
    first, *others = one["broken_by"]
    know = "" if first["knows"] else ", which does not even know it"
    text = f"{one['purifier']} is broken by {_named(first)}{know}: {_change(one, first)}"
    aware = _unaware(one) if first["knows"] else ""
    text += f"; {aware}." if aware else "."
    if others:
        text += f" It is also broken by {_listed(others)}."
    vote = one["majority"]
    if vote and not _beyond(one, vote):
        text += (
            f" Where the majority of {one['draws']} draws decides, "
            f"'{vote['attack']}' {_leaves(one, vote)}."
        )
    if one["costly"]:
        text += f" It also costs much: {_cost(one)}."
    return text + _bare(one, bare)


def _untold(one: Defence) -> str:
    return "" if one["tested"] else " It was not tested by an attack that knows it."


def _bare(one: Defence, bare: Defence) -> str:
    """That a defence is no better than none, where it is not."""
    if not one["no_better"] or not bare["strongest"]:
        return ""
    without = _strongest(bare)
    return (
        f" It holds no better than no defence, behind which '{without['attack']}' "
        f"{_leaves(bare, without)}."
    )


def _tried(one: Defence) -> str:
    """The strongest attack on a defence that none knows, in brackets."""
    if not one["strongest"]:
        return " (no attack was tried on it)"
    figure = _strongest(one)
    tail = ", no better than no defence" if one["no_better"] else ""
    return f" ({_named(figure)} {_leaves(one, figure)}{tail})"


def _unaware(one: Defence) -> str:
    figure = one["strongest"].get("unaware")
    if figure is None:
        return ""
    return f"the strongest that does not know it, {_named(figure)}, {_leaves(one, figure)}"


def _cost(one: Defence) -> str:
    value = shown(one["clean"], one["metric"])
    if one["metric"] == "far":
        return f"it refuses {value} of the pairs of one person's clean pictures"
    return f"it leaves {value} of {NOUNS[one['metric']]} on clean images, before any attack"


def _change(one: Defence, figure: Figure) -> str:
    before, after = _percent(one["unattacked"]), shown(figure, one["metric"])
    if one["metric"] == "far":
        return f"FAR rises from the {before} that it was calibrated for to {after}"
    return f"{NOUNS[one['metric']]} falls from {before} to {after}"


def _leaves(one: Defence, figure: Figure) -> str:
    value = shown(figure, one["metric"])
    return f"reaches {value}" if one["metric"] == "far" else f"leaves {value}"


def _strongest(one: Defence) -> Figure:
    return _worst(one, list(one["strongest"].values()))


def _worst(one: Defence, figures: Sequence[Figure]) -> Figure:
    """The worst of several figures for the defender."""
    sign = -1 if one["metric"] == "far" else 1
    return min(figures, key=lambda figure: sign * figure["value"])


def _beyond(one: Defence, figure: Figure) -> bool:
    """Whether a figure is beyond the limit or cannot be told from it."""
    if one["metric"] == "far":
        return bool(figure["ci_high"] >= one["limit"])
    return bool(figure["ci_low"] <= one["limit"])


def _named(figure: Figure) -> str:
    return f"'{figure['attack']}' ({figure['kind']})"


def _listed(figures: Sequence[Figure]) -> str:
    names = [_named(figure) for figure in figures]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _sign(one: Defence, found: dict[str, Any]) -> str:
    """A sign of masked gradients in words."""
    by, than = found["by"], found["than"]
    where = "of the bare model" if one["purifier"] == "none" else f"of {one['purifier']}"
    what = {
        "query": "which asks for answers only, does better than",
        "unaware": "which does not know it, does better than",
        "one-step": "a single step, does better than",
        "larger": "which may change an image less, does better than",
        "unbounded": "which may change an image into any other, fails on some",
    }[found["sign"]]
    against = f"{shown(by, one['metric'])}"
    if found["sign"] != "unbounded":
        what = f"{what} {_named(than)}"
        against += f" against {shown(than, one['metric'])}"
    return (
        f"The gradients {where} may be masked: {_named(by)}, {what}: {against}. Do not trust its "
        "figures under gradient attacks."
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f}\u00a0%"


def _cell(figure: Figure | None, note: str) -> Cell | None:
    if figure is None:
        return None
    between = f"{100 * figure['ci_low']:.1f}{BETWEEN}{_percent(figure['ci_high'])}"
    return Cell(_percent(figure["value"]), between, note)
