"""The command line. Commands import what they need when they run, so that help is instant."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import typer

DEFAULT_STORE = "image-defender-store"

app = typer.Typer(
    help="Attack, detect, purify and score whole image datasets; killable and resumable.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    epilog=(
        "Exit codes: 0 done; 1 failed; 2 wrong input (spec, dataset, model, usage); "
        "3 not finished; 4 damage found; 5 the store cannot be used; 6 too little memory or disk; "
        "130 interrupted."
    ),
)

SpecArgument = Annotated[Path, typer.Argument(help="Specification file (YAML).", metavar="SPEC")]
StoreOption = Annotated[str, typer.Option("--store", help="Folder or file:// URL of the store.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a field: key=value, dotted keys.", metavar="KEY=VALUE"),
]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="Use the first N images only.", metavar="N")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Exit(IntEnum):
    """Exit codes of every command."""

    DONE = 0
    FAILED = 1
    INPUT = 2
    UNFINISHED = 3
    DAMAGE = 4
    STORE = 5
    BUDGET = 6
    INTERRUPTED = 130


def _exit_code(error: BaseException) -> Exit | None:
    """The exit code of an error that one sentence explains; None for a fault of ours."""
    from storage.errors import DamagedChunk, StorageError, StoreBusy, StoreError
    from tasks.errors import BudgetError, ModelError, SpecError

    kinds: list[tuple[type[BaseException] | tuple[type[BaseException], ...], Exit]] = [
        (KeyboardInterrupt, Exit.INTERRUPTED),
        (DamagedChunk, Exit.DAMAGE),
        ((StoreError, StoreBusy), Exit.STORE),
        (BudgetError, Exit.BUDGET),
        ((SpecError, ModelError, StorageError), Exit.INPUT),
        ((TypeError, ValueError, FloatingPointError, OSError, RuntimeError), Exit.FAILED),
    ]
    return next((code for kind, code in kinds if isinstance(error, kind)), None)


def _guarded(action: Callable[[], None]) -> None:
    """Run a command; turn an expected error into one line and an exit code."""
    try:
        action()
    except typer.Exit:
        raise
    except BaseException as error:
        code = _exit_code(error)
        if code is None:
            raise
        if code is Exit.INTERRUPTED:
            text = "interrupted; run the same command again to go on"
        else:
            text = " ".join(str(error).split()) or type(error).__name__
        print(f"error: {text}", file=sys.stderr)
        raise typer.Exit(code) from None


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=1))


@app.command()
def run(
    spec: SpecArgument,
    store: StoreOption = DEFAULT_STORE,
    limit: LimitOption = None,
    assignments: SetOption = None,
    wait: Annotated[bool, typer.Option(help="Wait while another run writes to the store.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Attack, detect, purify and score; what is already done is not done again."""

    def action() -> None:
        from flows import engine

        engine.settle()
        from flows.evaluate import run as evaluate_run

        outcome = evaluate_run(
            str(spec),
            store,
            assignments or [],
            limit,
            wait=wait,
            on_wait=lambda: print("waiting for another run on this store", file=sys.stderr),
        )
        if as_json:
            _print_json(
                {
                    "folder": str(outcome.folder),
                    "chunk_tasks": outcome.chunk_tasks,
                    "chunks": outcome.chunks,
                    "seconds": {k: round(v, 3) for k, v in outcome.seconds.items()},
                }
            )
            return
        if outcome.summary is None:
            print(f"nothing to do: all {outcome.chunks} chunks are done and whole")
        else:
            from flows.terminal import print_scorecard

            print_scorecard(outcome.summary)
            print(f"{outcome.chunk_tasks} of {outcome.chunks} chunks were computed now")
        print(f"report: {outcome.folder / 'report.html'}")

    _guarded(action)


@app.command()
def status(
    spec: SpecArgument,
    store: StoreOption = DEFAULT_STORE,
    limit: LimitOption = None,
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say how far a run is: chunks done and in all, stage by stage. Exit code 3 if unfinished."""

    def action() -> None:
        from flows.inspect import run_status

        state = run_status(str(spec), store, assignments or [], limit)
        if as_json:
            _print_json(state)
        else:
            from flows.terminal import print_status

            print_status(state)
        raise typer.Exit(Exit.DONE if state["finished"] else Exit.UNFINISHED)

    _guarded(action)


@app.command()
def verify(
    spec: SpecArgument,
    store: StoreOption = DEFAULT_STORE,
    repair: Annotated[
        bool, typer.Option("--repair", help="Compute what is damaged again, and only that.")
    ] = False,
    limit: LimitOption = None,
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Re-hash everything a run has stored against the ledger. Exit code 4 if anything differs."""

    def action() -> None:
        from flows import engine

        engine.settle()
        from flows.inspect import verify_run

        found = verify_run(str(spec), store, assignments or [], limit)
        outcome = None
        if repair and found["damage"]:
            from flows.evaluate import run as evaluate_run

            outcome = evaluate_run(str(spec), store, assignments or [], limit)
            found["repaired"] = outcome.chunk_tasks
        if as_json:
            _print_json(found)
        else:
            for item in found["damage"]:
                print(f"{item['stage']}: {item['path']}: {item['problem']}")
            print(f"{found['chunks']} chunks looked at, {len(found['damage'])} files damaged")
            if outcome is not None:
                print(f"{outcome.chunk_tasks} chunks were computed again")
        raise typer.Exit(Exit.DAMAGE if found["damage"] and outcome is None else Exit.DONE)

    _guarded(action)


@app.command()
def report(
    spec: SpecArgument,
    store: StoreOption = DEFAULT_STORE,
    limit: LimitOption = None,
    assignments: SetOption = None,
    browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Write the summary and report of a finished run anew, and say where they are."""

    def action() -> None:
        from flows.inspect import rewrite_report

        path = rewrite_report(str(spec), store, assignments or [], limit)
        print(path)
        if browser:
            typer.launch(str(path))

    _guarded(action)


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

    _guarded(action)


@app.command(name="list")
def list_command(
    what: Annotated[
        str,
        typer.Argument(
            help="datasets, models, attacks, detectors, purifiers or metrics.", metavar="WHAT"
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
            _print_json(listed)
        else:
            from flows.terminal import print_listing

            print_listing(what, listed)

    _guarded(action)


def main() -> None:
    """Entry point of the console command."""
    app()


if __name__ == "__main__":
    main()
