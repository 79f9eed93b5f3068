"""What all commands share: their common options, exit codes, and how errors become one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import typer

DEFAULT_STORE = "image-defender-store"

SpecArgument = Annotated[Path, typer.Argument(help="Specification file (YAML).", metavar="SPEC")]
StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        help="Folder of the store, or its file://, s3://, gs:// or az:// URL; train, sweep and "
        "purify need a folder.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a field: key=value, dotted keys.", metavar="KEY=VALUE"),
]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="Use the first N images only.", metavar="N")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunnerOption = Annotated[
    str | None,
    typer.Option(
        "--runner",
        help="threads, processes, dask, or dask:tcp://HOST:PORT: what computes the chunks; "
        "the same as --set compute.runner=...",
    ),
]
QueryBudgetOption = Annotated[
    int | None,
    typer.Option(
        "--query-budget",
        min=1,
        help="Scores that each query attack (NES, Square) asks for an image; the same as "
        "--set attacks.I.queries=N for each of them.",
        metavar="N",
    ),
]
WaitOption = Annotated[bool, typer.Option(help="Wait while another run writes to the store.")]


class Exit(IntEnum):
    """Exit codes of every command."""

    DONE = 0
    FAILED = 1
    INPUT = 2
    UNFINISHED = 3
    DAMAGE = 4
    STORE = 5
    BUDGET = 6
    REQUIREMENT = 7
    INTERRUPTED = 130


def _exit_code(error: BaseException) -> Exit | None:
    """The exit code of an error that one sentence explains; None for a fault of ours."""
    from storage.errors import DamagedChunk, StorageError, StoreBusy, StoreError
    from tasks.errors import (
        BudgetError,
        DefenseError,
        ModelError,
        RequirementError,
        SandboxError,
        SpecError,
    )

    kinds: list[tuple[type[BaseException] | tuple[type[BaseException], ...], Exit]] = [
        (KeyboardInterrupt, Exit.INTERRUPTED),
        (DamagedChunk, Exit.DAMAGE),
        ((StoreError, StoreBusy), Exit.STORE),
        (BudgetError, Exit.BUDGET),
        (RequirementError, Exit.REQUIREMENT),
        ((SpecError, ModelError, StorageError, DefenseError), Exit.INPUT),
        (SandboxError, Exit.FAILED),
        ((TypeError, ValueError, FloatingPointError, OSError, RuntimeError), Exit.FAILED),
        (ModuleNotFoundError, Exit.FAILED),
    ]
    return next((code for kind, code in kinds if isinstance(error, kind)), None)


def guarded(action: Callable[[], None]) -> None:
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


def print_json(content: Any) -> None:
    """Print a result as JSON."""
    print(json.dumps(content, indent=1))


def runner_change(runner: str | None) -> list[str]:
    """The change of a specification that the option ``--runner`` stands for."""
    return [] if runner is None else [f"compute.runner={runner}"]


def with_budget(spec: Path, assignments: Sequence[str] | None, queries: int | None) -> list[str]:
    """Changes of a specification, those that the option ``--query-budget`` stands for with them.

    Raises:
        SpecError: where it has no attack that asks for scores only.
    """
    given = list(assignments or ())
    if queries is None:
        return given
    from tasks.query_budget import query_changes

    return [*given, *query_changes(spec, given, queries)]
