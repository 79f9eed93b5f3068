"""Tables on the terminal: score card, status, listings."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

SHOWN = ("accuracy", "attack_success", "label_recovery", "psnr", "ssim", "roc_auc")


def _value(row: dict[str, Any]) -> str:
    if row["value"] is None:
        return "-"
    if row["metric"] in ("psnr", "psnr_legacy"):
        return f"{row['value']:.2f}"
    return f"{row['value']:.4f}"


def _wide() -> Console:
    """A console that is wide enough for a table where there is no terminal to be too narrow."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def print_scorecard(summary: dict[str, Any]) -> None:
    """Print one line a combination; reference methods stand in a table of their own."""
    console = _wide()
    combinations: dict[tuple[str, ...], dict[str, str]] = {}
    for row in summary["rows"]:
        where = tuple(
            row[name] for name in ("attack", "detector", "policy", "purifier", "knowledge")
        )
        combinations.setdefault(where, {})[row["metric"]] = _value(row)
    metrics = [m for m in SHOWN if any(m in values for values in combinations.values())]
    for reference in (False, True):
        rows = [(k, v) for k, v in combinations.items() if (k[4] == "reference") == reference]
        if not rows:
            continue
        title = f"{summary['name']}: {summary['dataset']['images']} images"
        if reference:
            title = "given the clean original (not deployable, never ranked with the others)"
        table = Table(title=title, title_justify="left")
        for name in ("attack", "detector", "policy", "purifier", "knowledge"):
            table.add_column(name, overflow="fold")
        for metric in metrics:
            table.add_column(metric, justify="right", overflow="fold")
        for where, values in rows:
            table.add_row(*where, *(values.get(metric, "") for metric in metrics))
        console.print(table)
    if summary["dataset"]["rejected"]:
        console.print(f"{summary['dataset']['rejected']} source items rejected: rejected.parquet")


def print_status(state: dict[str, Any]) -> None:
    """Print chunks done and in all for each stage."""
    table = Table(title=f"{state['name']}: {state['images']} images", title_justify="left")
    table.add_column("stage", overflow="fold")
    table.add_column("done", justify="right")
    table.add_column("total", justify="right")
    for stage in state["stages"]:
        table.add_row(stage["stage"], str(stage["done"]), str(stage["total"]))
    table.add_section()
    table.add_row("all", str(state["done"]), str(state["total"]))
    _wide().print(table)
    print("finished" if state["finished"] else "not finished")


def print_listing(what: str, listed: list[dict[str, Any]]) -> None:
    """Print every entry of a listing with its parameters."""
    console = _wide()
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
