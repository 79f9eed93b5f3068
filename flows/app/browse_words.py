"""Stored runs as HTML: lists, facts, requirements, files. Every text from the store is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from typing import Any
from urllib.parse import quote

from tasks.stored_runs import Overview

DASH = "\u2013"
CLASSES = {"finished": "good", "going on": "going", "not finished": "muted", "damaged": "bad"}


def count(value: int) -> str:
    """A whole number with thin spaces between its thousands."""
    return f"{value:,}".replace(",", "\u202f")


def sentence(text: str) -> str:
    """Something that went wrong, in a sentence."""
    return f'<p class="problem" role="alert">{escape(text)}</p>'


def run_list(runs: Sequence[Overview]) -> str:
    """The runs of a store as a table."""
    headings = ("Run", "State", "Kind", "Data set", "Model", "Images", "When")
    head = "".join(f'<th scope="col">{name}</th>' for name in headings)
    body = "".join(_run(one) for one in runs)
    return (
        '<div class="br-scroll" tabindex="0" role="region" aria-label="Runs">'
        f'<table class="br-table br-runs"><thead><tr>{head}</tr></thead><tbody>{body}</tbody>'
        "</table></div>"
    )


def _run(one: Overview) -> str:
    images = DASH if one.images is None else count(one.images)
    cells = (
        ("State", f'<span class="br-state {CLASSES[one.state]}">{one.state}</span>'),
        ("Kind", escape(one.kind) or DASH),
        ("Data set", escape(one.dataset) or DASH),
        ("Model", escape(one.model) or DASH),
        ("Images", images),
        ("When", moment(one.when)),
    )
    told = f'<p class="bad small">{escape(one.problem)}</p>' if one.problem else ""
    body = "".join(f'<td data-label="{name}">{text}</td>' for name, text in cells)
    link = f'<a href="{address(one.name)}">{escape(one.name)}</a>'
    return f'<tr><th scope="row">{link}{told}</th>{body}</tr>'


def moment(when: datetime | None) -> str:
    """A date and time, UTC."""
    if when is None:
        return DASH
    return f'<time datetime="{when.isoformat()}">{when:%Y-%m-%d %H:%M} UTC</time>'


def address(run: str) -> str:
    """Where a run is looked at."""
    return f"/browse/{quote(run, safe='')}"


def file_address(run: str, name: str) -> str:
    """Where an output of a run is served."""
    return f"/stored/{quote(run, safe='')}/files/{quote(name)}"


def facts(one: Overview) -> str:
    """What a run is."""
    told = [
        ("State", f'<span class="br-state {CLASSES[one.state]}">{one.state}</span>'),
        ("Kind", escape(one.kind)),
        ("Data set", escape(one.dataset)),
        ("Model", escape(one.model)),
        ("Images", "" if one.images is None else count(one.images)),
        ("Begun" if one.begun is not None else "Finished", moment(one.when)),
    ]
    return "".join(f"<div><dt>{name}</dt><dd>{text}</dd></div>" for name, text in told if text)


def pages(one: Overview) -> str:
    """Links that open the stored pages of a run."""
    return "".join(
        f'<a class="br-link" target="_blank" rel="noopener" '
        f'href="{file_address(one.name, name)}">{escape(name)}</a> '
        for name in one.pages
    )


def files(one: Overview) -> str:
    """The outputs of a run, each a link."""
    names = sorted(one.files, key=lambda name: (name.count("/"), name))
    lines = "".join(
        f'<li><a href="{file_address(one.name, name)}">{escape(name)}</a></li>' for name in names
    )
    return (
        f'<details class="br-more"><summary>{count(len(names))} files, each as its index vouches '
        f'for it</summary><ul class="br-files">{lines}</ul></details>'
    )


def requirements(told: Sequence[dict[str, Any]], verdicts: Iterable[str]) -> str:
    """The requirements of a run, and whether they are met.

    Args:
        told: of :func:`flows.requirement_words.sections`.
        verdicts: of :func:`flows.requirement_words.verdict`.
    """
    lines = []
    for one in told:
        for number, line in enumerate(one["lines"]):
            kind, word = ("good", "met") if line["passed"] else ("bad", "not met")
            wanted = escape(one["text"]) if number == 0 else ""
            where = "<br>".join(escape(part) for part in (line["where"], *line["notes"]))
            lines.append(
                f'<tr><th scope="row"><span class="br-state {kind}">{word}</span> {wanted}</th>'
                f"<td>{where}</td><td>{escape(line['value'])}</td>"
                f"<td>{escape(line['last'])}</td><td>{escape(line['difference'])}</td></tr>"
            )
    head = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("Requirement", "Of", "Value", "Last run", "Difference")
    )
    said = "".join(f"<p>{escape(text)}</p>" for text in verdicts)
    return (
        f'{said}<div class="br-scroll" tabindex="0" role="region" aria-label="Requirements">'
        f'<table class="br-table"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def rejected(total: int, lines: Sequence[dict[str, Any]]) -> str:
    """Source items that could not be used, with the reasons."""
    if not total:
        return '<p class="muted">None: every source item could be used.</p>'
    body = "".join(
        f'<tr><th scope="row">{escape(str(line.get("name")))}</th>'
        f"<td>{escape(str(line.get('reason')))}</td></tr>"
        for line in lines
    )
    more = total - len(lines)
    rest = f'<p class="muted">and {count(more)} more</p>' if more > 0 else ""
    return (
        '<div class="br-scroll" tabindex="0" role="region" aria-label="Rejected">'
        '<table class="br-table"><thead><tr><th scope="col">Name</th><th scope="col">Reason</th>'
        f"</tr></thead><tbody>{body}</tbody></table></div>{rest}"
    )
