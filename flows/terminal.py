"""Tables on the terminal: score card, status, listings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

SHOWN = (
    *("gain", "gain_mean", "gain_worst", "quality", "srcc", "score_shift"),
    *("far", "far_mean", "far_worst", "far_majority"),
    *("frr", "frr_mean", "frr_worst", "frr_majority", "eer", "similarity"),
    *("accuracy", "accuracy_mean", "accuracy_worst", "accuracy_majority"),
    *("balanced_accuracy", "attack_success", "label_recovery"),
    *("o1", "o2", "scaled_psnr", "psnr", "ssim"),
)
DETECTION = ("false_positive_rate", "true_positive_rate", "roc_auc", "tpr_at_fpr_0.01")
PARTS = (
    ("", ("attack", "purifier", "knowledge"), SHOWN, ("none",)),
    ("detectors", ("detector", "attack", "knowledge"), DETECTION, ("observe",)),
    (
        "policies",
        ("attack", "detector", "policy", "purifier", "knowledge"),
        SHOWN,
        ("reject", "purify-if-flagged"),
    ),
)
"""Title, columns, metrics and policies of each table of a score card."""


def _value(row: dict[str, Any]) -> str:
    if row["value"] is None:
        return "-"
    if "psnr" in row["metric"]:
        return f"{row['value']:.2f}"
    return f"{row['value']:.4f}"


def wide_console() -> Console:
    """A console that is wide enough for a table where there is no terminal to be too narrow."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def print_scorecard(summary: dict[str, Any]) -> None:
    """Print one line a combination; reference methods stand in tables of their own."""
    console = wide_console()
    console.print(f"[bold]{summary['name']}[/bold]: {summary['dataset']['images']} images")
    for reference in (False, True):
        rows = [row for row in summary["rows"] if (row["knowledge"] == "reference") == reference]
        if reference and rows:
            console.print("given the clean original (not deployable, never ranked with the others)")
        for title, columns, metrics, policies in PARTS:
            chosen = [row for row in rows if row["policy"] in policies]
            _print_part(console, title, columns, metrics, chosen)
    if summary["dataset"]["rejected"]:
        console.print(f"{summary['dataset']['rejected']} source items rejected: rejected.parquet")


def score_lines(
    rows: Sequence[dict[str, Any]], columns: Sequence[str]
) -> dict[tuple[str, ...], dict[str, str]]:
    """Values by metric, for every combination of columns that has any."""
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        lines.setdefault(tuple(row[name] for name in columns), {})[row["metric"]] = _value(row)
    return lines


def _print_part(
    console: Console,
    title: str,
    columns: Sequence[str],
    shown: Sequence[str],
    rows: Sequence[dict[str, Any]],
) -> None:
    """Print one table, without the metrics that none of its lines has."""
    lines = score_lines(rows, columns)
    metrics = [name for name in shown if any(name in values for values in lines.values())]
    if not metrics:
        return
    table = Table(title=title or None, title_justify="left")
    for name in columns:
        table.add_column(name, overflow="fold")
    for metric in metrics:
        table.add_column(metric, justify="right", overflow="fold")
    for where, values in lines.items():
        table.add_row(*where, *(values.get(metric, "") for metric in metrics))
    console.print(table)


def print_listing(what: str, listed: list[dict[str, Any]]) -> None:
    """Print every entry of a listing with its parameters."""
    console = wide_console()
    for entry in listed:
        traits = ", ".join(
            f"{name}: {entry[name]}"
            for name in ("threat", "budget", "knowledge", "better", "kind")
            if entry.get(name)
        )
        console.print(f"[bold]{entry['name']}[/bold]" + (f"  ({traits})" if traits else ""))
        if entry.get("doc"):
            console.print(f"  {entry['doc']}", markup=False)
        if entry.get("paper"):
            console.print(f"  paper: {entry['paper']}", markup=False, style="dim")
        if entry.get("parameters"):
            table = Table(box=None, show_header=False, padding=(0, 2), pad_edge=True)
            for parameter in entry["parameters"]:
                table.add_row(
                    f"  {parameter['name']}",
                    f"= {parameter['default']}",
                    parameter.get("range", ""),
                    parameter.get("doc", ""),
                )
            console.print(table)
    console.print(f"[dim]{len(listed)} {what}[/dim]")
