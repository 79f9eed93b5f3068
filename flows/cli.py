"""The command line. Commands import what they need when they run, so that help is instant."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from flows.app_commands import app as app_command
from flows.audit import audit_resize
from flows.command import (
    DEFAULT_STORE,
    Exit,
    JsonOption,
    LimitOption,
    QueryBudgetOption,
    RunnerOption,
    SetOption,
    SpecArgument,
    StoreOption,
    WaitOption,
    guarded,
    print_json,
    runner_change,
    with_budget,
)
from flows.compare_commands import compare
from flows.defense_commands import score_defense
from flows.observing import LogOption, MetricsPortOption, observed
from flows.patch_commands import apply_patch, print_patch
from flows.purify_commands import purify
from flows.scan_commands import calibrate, scan
from flows.server_commands import down, up
from flows.sweep_commands import sweep
from flows.verify_commands import verify_faces

app = typer.Typer(
    help="Attack, detect, purify and score whole image datasets; killable and resumable.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    epilog=(
        "Exit codes: 0 done; 1 failed; 2 wrong input (spec, dataset, model, usage); "
        "3 not finished; 4 damage or, on request, suspects found; 5 the store cannot be used; "
        "6 too little memory or disk; 7 a requirement is not met; 130 interrupted."
    ),
)


@app.command()
def run(
    spec: SpecArgument,
    store: StoreOption = DEFAULT_STORE,
    limit: LimitOption = None,
    assignments: SetOption = None,
    query_budget: QueryBudgetOption = None,
    wait: WaitOption = True,
    runner: RunnerOption = None,
    log: LogOption = None,
    metrics_port: MetricsPortOption = None,
    as_json: JsonOption = False,
) -> None:
    """Attack, detect, purify and score; what is already done is not done again."""
    changes = [*(assignments or []), *runner_change(runner)]

    def action() -> None:
        from flows import embedded, engine

        engine.settle()
        embedded.launch_for(spec, store, changes)
        from flows.evaluate import run as evaluate_run
        from flows.requirements import print_requirements, raise_unmet, requirements

        outcome = evaluate_run(
            str(spec),
            store,
            with_budget(spec, changes, query_budget),
            limit,
            wait=wait,
            on_wait=lambda: print("waiting for another run on this store", file=sys.stderr),
        )
        if as_json:
            print_json(
                {
                    "folder": str(outcome.folder),
                    "chunk_tasks": outcome.chunk_tasks,
                    "chunks": outcome.chunks,
                    "seconds": {k: round(v, 3) for k, v in outcome.seconds.items()},
                    "stages": outcome.stages,
                    **requirements(outcome.folder),
                }
            )
            raise_unmet(outcome.missed)
            return
        if outcome.summary is None:
            print(f"nothing to do: all {outcome.chunks} chunks are done and whole")
        else:
            from flows.terminal import print_scorecard

            print_scorecard(outcome.summary)
            print(f"{outcome.chunk_tasks} of {outcome.chunks} chunks were computed now")
        print_requirements(outcome.folder)
        print(f"report: {outcome.folder / 'report.html'}")
        raise_unmet(outcome.missed)

    guarded(observed(action, log, metrics_port))


@app.command()
def status(
    spec: SpecArgument,
    store: StoreOption = DEFAULT_STORE,
    limit: LimitOption = None,
    assignments: SetOption = None,
    query_budget: QueryBudgetOption = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again and again until the run has finished.")
    ] = False,
    every: Annotated[
        float, typer.Option(min=0.1, help="With --watch: seconds between looks.")
    ] = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Say how far a run is: chunks done and in all, stage by stage. Exit code 3 if unfinished."""

    def action() -> None:
        from flows import status_table
        from flows.inspect import open_run, run_status
        from flows.watch import watching

        changes = with_budget(spec, assignments, query_budget)
        if watch:
            states = watching(open_run(str(spec), store, changes, limit), every)
            show = status_table.print_json_lines if as_json else status_table.show_live
            state = show(states)
        else:
            state = run_status(str(spec), store, changes, limit)
            (print_json if as_json else status_table.print_status)(state)
        raise typer.Exit(Exit.DONE if state and state["finished"] else Exit.UNFINISHED)

    guarded(action)


@app.command()
def verify(
    spec: SpecArgument,
    store: StoreOption = DEFAULT_STORE,
    repair: Annotated[
        bool, typer.Option("--repair", help="Compute what is damaged again, and only that.")
    ] = False,
    limit: LimitOption = None,
    assignments: SetOption = None,
    query_budget: QueryBudgetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Re-hash everything a run has stored against the ledger. Exit code 4 if anything differs."""

    def action() -> None:
        from flows import engine

        engine.settle()
        from flows.inspect import verify_run

        changes = with_budget(spec, assignments, query_budget)
        found = verify_run(str(spec), store, changes, limit)
        outcome = None
        if repair and found["damage"]:
            from flows.evaluate import run as evaluate_run

            outcome = evaluate_run(str(spec), store, changes, limit)
            found["repaired"] = outcome.chunk_tasks
        if as_json:
            print_json(found)
        else:
            for item in found["damage"]:
                print(f"{item['stage']}: {item['path']}: {item['problem']}")
            print(f"{found['chunks']} chunks looked at, {len(found['damage'])} files damaged")
            if outcome is not None:
                print(f"{outcome.chunk_tasks} chunks were computed again")
        raise typer.Exit(Exit.DAMAGE if found["damage"] and outcome is None else Exit.DONE)

    guarded(action)


@app.command()
def report(
    spec: SpecArgument,
    store: StoreOption = DEFAULT_STORE,
    limit: LimitOption = None,
    assignments: SetOption = None,
    query_budget: QueryBudgetOption = None,
    browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Write the summary and report of a finished run anew, and say where they are."""

    def action() -> None:
        from flows.inspect import rewrite_report

        changes = with_budget(spec, assignments, query_budget)
        path = rewrite_report(str(spec), store, changes, limit)
        print(path)
        if browser:
            typer.launch(str(path))

    guarded(action)


@app.command()
def train(
    spec: SpecArgument,
    store: StoreOption = DEFAULT_STORE,
    assignments: SetOption = None,
) -> None:
    """Train a model as a specification says; killed anywhere, it goes on after the last epoch."""

    def action() -> None:
        from flows import engine

        engine.settle()
        from flows.train import run_training

        outcome = run_training(str(spec), store, assignments or [])
        print(outcome)

    guarded(action)


app.command()(compare)
app.command()(audit_resize)
app.command()(scan)
app.command()(calibrate)
app.command()(purify)
app.command()(score_defense)
app.command()(sweep)
app.command()(print_patch)
app.command()(apply_patch)
app.command()(verify_faces)
app.command()(up)
app.command()(down)
app.command(name="app")(app_command)


@app.command(name="list")
def list_command(
    what: Annotated[
        str,
        typer.Argument(
            help="datasets, models, quality-metrics, encoders, priors, attacks, detectors, "
            "purifiers or metrics.",
            metavar="WHAT",
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """List what a specification can name, with parameters, defaults, ranges and papers."""

    def action() -> None:
        from tasks.catalogue import KINDS, entries
        from tasks.errors import SpecError

        if what not in KINDS:
            raise SpecError(f"list: expected one of {', '.join(KINDS)}, got {what!r}")
        listed = entries(what)
        if as_json:
            print_json(listed)
        else:
            from flows.terminal import print_listing

            print_listing(what, listed)

    guarded(action)


def main() -> None:
    """Entry point of the console command."""
    app()


if __name__ == "__main__":
    main()
