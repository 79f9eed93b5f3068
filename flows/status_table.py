"""The status of a run on the terminal: a table, one that stays up to date, or a line at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from flows.progress import in_words
from flows.terminal import wide_console
from tasks.sizes import size_in_words


def print_status(state: dict[str, Any]) -> None:
    """Print the status of a run."""
    wide_console().print(_shown(state, state["stages"]))


def show_live(states: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """Show one status after the other, and return the last one seen.

    On a terminal they are a table that changes in place, elsewhere a line each. Ctrl-C ends it.
    """
    console = Console()
    last: dict[str, Any] | None = None
    try:
        if not console.is_terminal:
            for last in states:
                print(status_line(last), flush=True)
            return last
        with Live(console=console, auto_refresh=False) as live:
            for last in states:
                shown = _shown(last, last["stages"])
                if len(console.render_lines(shown)) >= console.height:
                    shown = _shown(last, by_kind(last["stages"]))
                live.update(shown, refresh=True)
    except KeyboardInterrupt:
        pass
    return last


def print_json_lines(states: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """Print one status after the other, each as JSON on a line; Ctrl-C ends it."""
    last: dict[str, Any] | None = None
    try:
        for last in states:
            print(json.dumps(last), flush=True)
    except KeyboardInterrupt:
        pass
    return last


def status_line(state: dict[str, Any]) -> str:
    """A status in one line."""
    lately = sum(stage["last_minute"] for stage in state["stages"])
    parts = [
        f"{state['done']}/{state['total']} chunks",
        f"{lately:.1f} images/s in the last minute",
        *([f"{in_words(state['eta_seconds'])} left"] if state["eta_seconds"] else []),
        f"{state['failures']} failures",
        f"{state['rejected']} rejected",
        size_in_words(state["bytes"]),
        holder_line(state),
    ]
    return f"{state['time']} {', '.join(parts)}"


def holder_line(state: dict[str, Any]) -> str:
    """Whether a run writes to the store, and which."""
    holder = state["holder"]
    if holder is None:
        return "finished" if state["finished"] else "no run holds the store"
    if not {"host", "pid", "since"} <= holder.keys():
        return "a run holds the store"
    return f"process {holder['pid']} on {holder['host']} holds the store since {holder['since']}"


def by_kind(stages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a kind of stage, where there are too many stages for the screen."""
    rows: dict[str, dict[str, Any]] = {}
    for stage in stages:
        row = rows.setdefault(
            stage["kind"], {"stage": stage["kind"], "left_seconds": 0.0, **dict.fromkeys(SUMMED, 0)}
        )
        for name in SUMMED:
            row[name] += stage[name]
        unknown = row["left_seconds"] is None or stage["left_seconds"] is None
        row["left_seconds"] = None if unknown else row["left_seconds"] + stage["left_seconds"]
    for row in rows.values():
        row["images_per_second"] = row["images"] / row["seconds"] if row["seconds"] else None
    return list(rows.values())


SUMMED = ("done", "total", "images", "seconds", "last_minute", "bytes", "failures")


def _shown(state: dict[str, Any], rows: list[dict[str, Any]]) -> Group:
    table = Table(title=f"{state['name']}: {state['images']} images", title_justify="left")
    table.add_column("stage", overflow="fold")
    for name in ("done", "total", "images/s", "last minute", "left", "failures", "stored"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        left = row["left_seconds"]
        table.add_row(
            Text(row["stage"]),
            str(row["done"]),
            str(row["total"]),
            _rate(row["images_per_second"]),
            _rate(row["last_minute"] or None),
            "" if not left else in_words(left),
            str(row["failures"] or ""),
            size_in_words(row["bytes"]) if row["bytes"] else "",
        )
    table.add_section()
    lately = sum(row["last_minute"] for row in rows)
    eta = state["eta_seconds"]
    table.add_row(
        "all",
        str(state["done"]),
        str(state["total"]),
        "",
        _rate(lately or None),
        in_words(eta) if eta else "",
        str(state["failures"] or ""),
        size_in_words(state["bytes"]),
    )
    verdict = "finished" if state["finished"] else "not finished"
    lines = [f"{state['rejected']} source items rejected"] if state["rejected"] else []
    if state["holder"] is not None or not state["finished"]:
        verdict = f"{verdict}; {holder_line(state)}"
    return Group(table, *(Text(line) for line in (*lines, verdict)))


def _rate(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
