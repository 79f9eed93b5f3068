"""Two runs side by side, as a page and on the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

from markupsafe import Markup

from flows.report import fill
from flows.requirement_words import signed
from flows.scorecard import BETWEEN, DASH, TITLES, number
from tasks.comparison_plot import difference_plots
from tasks.requirements import where

Row = dict[str, Any]
WORDS = {"worse": "worse", "better": "better", "same": "equal", "unknown": "without a value"}


def lines(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows of a comparison in words."""
    return [
        {
            "metric": _metric(row),
            "where": where(row),
            "change": row["change"],
            "first": number(row["metric"], row["first"]["value"]),
            "second": number(row["metric"], row["second"]["value"]),
            "difference": signed(row["metric"], row["difference"]),
            "interval": span(row),
            "note": _note(row),
            "sure": sure(row),
        }
        for row in rows
    ]


def _metric(row: Row) -> str:
    name = str(row["metric"])
    return TITLES.get(name, name)


def sure(row: Row) -> bool:
    """Whether the interval of a difference leaves out 0."""
    found = row["interval"]
    return found is not None and (found["low"] > 0 or found["high"] < 0)


def span(row: Row) -> str:
    """The interval of a difference in words, empty where there is none."""
    found = row["interval"]
    if found is None:
        return ""
    low, high = (signed(row["metric"], found[end]) for end in ("low", "high"))
    return f"{low.removesuffix(' pp')}{BETWEEN}{high}"


def _note(row: Row) -> str:
    """What the interval is of, where that is not all of both runs."""
    found = row["interval"]
    if found is None:
        return str(row["no_interval"] or "")
    if found["all"]:
        return ""
    return (
        f"interval of {signed(row['metric'], found['difference'])} on the {found['images']} images "
        "that both have"
    )


def reasons(rows: Iterable[Row]) -> list[str]:
    """Why some differences have no interval."""
    return sorted({row["no_interval"] for row in rows if row["no_interval"]})


def one_sided(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Rows that one run alone has, in words."""
    return [
        {
            "metric": _metric(row),
            "where": where(row),
            "value": number(row["metric"], row["value"]),
        }
        for row in rows
    ]


def verdict(found: dict[str, Any]) -> list[str]:
    """What two runs differ in, in a few sentences."""
    rows = found["rows"]
    if not rows:
        return ["The runs have no figure in common."]
    counted = Counter(row["change"] for row in rows)
    parts = [
        f"{counted[kind]} {'is' if counted[kind] == 1 else 'are'} {word}"
        for kind, word in WORDS.items()
        if counted[kind]
    ]
    among = "the figure" if len(rows) == 1 else f"{len(rows)} figures"
    said = [f"Of {among} that both runs have, {_listed(parts)}."]
    clear = Counter(row["change"] for row in rows if sure(row))
    if any(row["interval"] for row in rows):
        beyond = [f"{clear[kind]} {kind}" for kind in ("worse", "better")]
        said.append(f"Intervals that leave out 0: {_listed(beyond)}.")
    worst = rows[0]
    if worst["change"] == "worse":
        figures = [number(worst["metric"], worst[run]["value"]) for run in ("first", "second")]
        name = _metric(worst)
        said.append(f"Worst: {name} of {where(worst)}, from {figures[0]} to {figures[1]}.")
    images = {one["field"] for one in found["differs"]}
    if "dataset.digest" in images:
        said.append("The runs are not of the same images.")
    if "model.digest" in images:
        said.append("The models differ.")
    return said


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def plain_value(value: Any) -> str:
    """A field's value in words."""
    if value is None:
        return DASH
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def render(found: dict[str, Any]) -> str:
    """Make the page of a comparison.

    Args:
        found: what :func:`tasks.comparison.compare` returned.

    Returns:
        HTML that refers to nothing outside itself; the same runs give the same text.
    """
    plots = difference_plots(found["rows"])
    shown = lines(found["rows"])
    title = f"{found['first']['title']} → {found['second']['title']}"
    context = {
        "summary": {"name": title, "version": version("image-defender")},
        "found": found,
        "verdict": verdict(found),
        "plots": [{"title": p.title, "alt": p.alt, "svg": Markup(p.svg)} for p in plots],
        "changed": [line for line in shown if line["change"] != "same"],
        "equal": [line for line in shown if line["change"] == "same"],
        "only": [
            (found[run]["title"], one_sided(found[f"only_{run}"])) for run in ("first", "second")
        ],
        "plain_value": plain_value,
        "reasons": reasons(found["rows"]),
        "partial": any(row["interval"] and not row["interval"]["all"] for row in found["rows"]),
    }
    return fill("compare.html", context)


def print_comparison(found: dict[str, Any]) -> None:
    """Print a comparison: what changed, what one run alone has, what else differs."""
    from rich.markup import escape
    from rich.table import Table

    from flows.terminal import wide_console

    console = wide_console()
    first, second = found["first"]["title"], found["second"]["title"]
    console.print(f"A: {first}   B: {second}", markup=False)
    for text in verdict(found):
        console.print(text, markup=False)
    changed = [line for line in lines(found["rows"]) if line["change"] != "same"]
    if changed:
        table = Table()
        for name in ("", "figure", "of"):
            table.add_column(name, overflow="fold")
        for name in ("A", "B", "B - A", "95 % interval"):
            table.add_column(name, justify="right", overflow="fold")
        for line in changed:
            words = (line["change"], line["metric"], line["where"], line["first"], line["second"])
            known = line["interval"].replace(BETWEEN, " to ")
            between = f"{known}\n{line['note']}".strip() if known else ""
            table.add_row(*map(escape, (*words, line["difference"], between)))
        console.print(table)
    for reason in reasons(row for row in found["rows"] if row["change"] != "same"):
        console.print(f"differences without an interval: {reason}")
    for run, title in (("first", "A"), ("second", "B")):
        rows = one_sided(found[f"only_{run}"])
        if rows:
            console.print(f"only in {title}: {len(rows)} figures")
            for one in rows:
                text = f"  {one['metric']} of {one['where']}: {one['value']}"
                console.print(text, markup=False)
    if found["differs"]:
        table = Table(title="what else differs", title_justify="left")
        for name in ("field", "A", "B"):
            table.add_column(name, overflow="fold")
        for one in found["differs"]:
            values = (plain_value(one[run]) for run in ("first", "second"))
            table.add_row(*map(escape, (one["field"], *values)))
        console.print(table)
