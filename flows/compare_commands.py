"""The command ``compare``: what changed between two runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.command import DEFAULT_STORE, JsonOption, StoreOption, guarded, print_json

RunArgument = typer.Argument(
    help="A run's folder, its summary.json, a file of its history, or its name in the store; "
    "NAME@1 is its result before the present one.",
    metavar="RUN",
)


def compare(
    first: Annotated[str, RunArgument],
    second: Annotated[str, RunArgument],
    store: StoreOption = DEFAULT_STORE,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write a page with plots to this file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what changed from the first run to the second, what got worse in front."""

    def action() -> None:
        from storage.files import write_atomic
        from tasks.comparison import compare as compare_runs
        from tasks.comparison import open_finished

        found = compare_runs(open_finished(first, store), open_finished(second, store))
        if out is not None:
            from flows.compare_page import render

            write_atomic(out, render(found).encode())
        if as_json:
            print_json(found)
            return
        from flows.compare_page import print_comparison

        print_comparison(found)
        if out is not None:
            print(f"page: {out}")

    guarded(action)
