"""The command ``sweep``: a search for the best purifiers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.command import (
    DEFAULT_STORE,
    JsonOption,
    LimitOption,
    QueryBudgetOption,
    SetOption,
    SpecArgument,
    StoreOption,
    WaitOption,
    guarded,
    print_json,
    with_budget,
)

if TYPE_CHECKING:
    from flows.sweep import SweepOutcome


def sweep(
    spec: SpecArgument,
    trials: Annotated[
        int | None,
        typer.Option("--trials", min=1, help="Try N purifiers in all.", metavar="N"),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    limit: LimitOption = None,
    assignments: SetOption = None,
    query_budget: QueryBudgetOption = None,
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Search for the purifiers that do best; finished trials are not done again."""
    changes = [*(assignments or ()), *([f"sweep.trials={trials}"] if trials else ())]

    def action() -> None:
        from flows import engine

        engine.settle()
        from flows.sweep import run_sweep

        outcome = run_sweep(
            str(spec),
            store,
            with_budget(spec, changes, query_budget),
            limit,
            wait=wait,
            on_wait=lambda: print("waiting for another run on this store", file=sys.stderr),
        )
        if as_json:
            print_json(_in_json(outcome))
            return
        print_front(outcome.summary)
        print(
            f"{outcome.trials} of {len(outcome.summary['trials'])} trials were done now, "
            f"{outcome.chunk_tasks} chunks were computed"
        )
        print(f"report: {outcome.folder / 'sweep.html'}")

    guarded(action)


def _in_json(outcome: SweepOutcome) -> dict[str, Any]:
    summary = outcome.summary
    kept = ("name", "objectives", "constraints", "baselines")
    return {
        "folder": str(outcome.folder),
        "trials": len(summary["trials"]),
        "trials_now": outcome.trials,
        "chunk_tasks": outcome.chunk_tasks,
        **{name: summary[name] for name in kept},
        "front": [summary["trials"][number - 1] for number in summary["front"]],
    }


def print_front(summary: dict[str, Any]) -> None:
    """Print the purifiers of the front, and what they are compared with."""
    from rich.table import Table

    from flows.scorecard import purifier_title
    from flows.sweep_page import columns, figure, verdict
    from flows.terminal import wide_console

    console = wide_console()
    console.print(verdict(summary), markup=False, highlight=False)
    table = Table()
    table.add_column("trial", justify="right")
    table.add_column("purifier", overflow="fold")
    for column in columns(summary):
        table.add_column(column.title, justify="right", overflow="fold")
    for number in summary["front"]:
        one = summary["trials"][number - 1]
        table.add_row(str(number), one["purifier"], *(figure(one, c) for c in columns(summary)))
    table.add_section()
    for one in summary["baselines"]:
        name = purifier_title(one["purifier"])
        table.add_row("", name, *(figure(one, c) for c in columns(summary)))
    console.print(table)
