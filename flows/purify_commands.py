"""The command ``purify``: any folder of images through purifiers, as files of another folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.command import (
    DEFAULT_STORE,
    JsonOption,
    LimitOption,
    StoreOption,
    WaitOption,
    guarded,
    print_json,
)
from flows.scan_commands import (
    AlgorithmOption,
    AntialiasOption,
    IncludeOption,
    LibraryOption,
    NameOption,
)

if TYPE_CHECKING:
    from flows.purify import PurifyOutcome


def purify(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder, zip or Parquet file of images, or a YAML file that states a dataset.",
            metavar="SOURCE",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the purified images.", metavar="FOLDER")
    ],
    purifiers: Annotated[
        list[str] | None,
        typer.Option(
            "--purifier",
            help='A purifier such as "median(3) > unsharp(1)"; several go to sub-folders.',
            metavar="SPEC",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of purifiers that draw.")] = 0,
    suffix: Annotated[
        str, typer.Option("--suffix", help="Of the files: .png, .bmp, .tif or -purified.png.")
    ] = ".png",
    colour: Annotated[
        str | None,
        typer.Option("--colour", help="Decode to rgb, grey, or keep what an image has: keep."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="For purifiers that work on a model.", metavar="NAME"),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            help="For purifiers that need to know the resize: size that the model gets, 224x224.",
            metavar="HxW",
        ),
    ] = None,
    library: LibraryOption = "opencv",
    algorithm: AlgorithmOption = "linear",
    antialias: AntialiasOption = False,
    include: IncludeOption = None,
    limit: LimitOption = None,
    chunk_size: Annotated[
        int | None,
        typer.Option("--chunk-size", min=1, help="Images a chunk; a kill costs one.", metavar="N"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files in FOLDER that others left there.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, say what is left, write nothing.")
    ] = False,
    name: NameOption = None,
    store: StoreOption = DEFAULT_STORE,
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Purify a folder of images into another folder; what is done is not done again."""
    pipeline = {"library": library, "algorithm": algorithm, "antialias": antialias}
    asked = {
        "source": source,
        "purifiers": purifiers,
        "out": out,
        "seed": seed,
        "suffix": suffix,
        "colour": colour,
        "model": model,
        "pipeline": None if target is None else {**pipeline, "target": target},
        "include": include,
        "limit": limit,
        "chunk_size": chunk_size,
        "overwrite": overwrite,
        "name": name,
    }

    def action() -> None:
        from flows import engine

        engine.settle()
        from flows.purify import plan_purify, run_purify
        from tasks.purify_folder_specs import parse_request

        request = parse_request(asked)
        if dry_run:
            plan = plan_purify(request, store)
            if as_json:
                print_json(plan)
            else:
                _print_plan(plan)
            return
        outcome = run_purify(request, store, wait=wait, on_wait=_waiting)
        if as_json:
            print_json(_in_json(outcome))
        else:
            _print_outcome(outcome)

    guarded(action)


def _waiting() -> None:
    print("waiting for another run on this store", file=sys.stderr)


def _in_json(outcome: PurifyOutcome) -> dict[str, Any]:
    left_out = ("spec", "log_sha256")
    return {
        "folder": str(outcome.folder),
        "chunk_tasks": outcome.chunk_tasks,
        "chunks": outcome.chunks,
        "seconds": {kind: round(spent, 3) for kind, spent in outcome.seconds.items()},
        "restored": outcome.restored,
        **{name: value for name, value in outcome.summary.items() if name not in left_out},
    }


def _print_outcome(outcome: PurifyOutcome) -> None:
    summary = outcome.summary
    for one in summary["purifiers"]:
        print(
            f"{one['folder']}: {_count(one['images'], 'image')} by {one['label']}{_distance(one)}"
        )
        if one["failed"]:
            print(f"  {_count(one['failed'], 'image')} could not be purified", file=sys.stderr)
    if outcome.restored:
        print(f"{_count(outcome.restored, 'changed or deleted file')} made again")
    if summary["rejected"]:
        print(f"{_count(summary['rejected'], 'file')} could not be used:", file=sys.stderr)
        for row in outcome.refused:
            print(f"  {row['name']} {row['reason']}", file=sys.stderr)
    print(f"{outcome.chunk_tasks} of {outcome.chunks} chunks were computed now")
    print(f"log: {summary['log']}")


def _distance(one: dict[str, Any]) -> str:
    if one["psnr"] is None:
        return ", unchanged" if one["unchanged"] else ""
    return f", PSNR to the originals {one['psnr']:.2f} dB"


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'s' * (number != 1)}"


def _print_plan(plan: dict[str, Any]) -> None:
    from flows.progress import in_words

    print(_count(plan["images"], "image"))
    for one in plan["purifiers"]:
        print(f"{one['folder']}: {one['purifier']}")
    for stage in plan["stages"]:
        left = f"{_count(stage['images_left'], 'image')} left" if stage["images_left"] else "done"
        if stage["images_left"] and stage["seconds"] is not None:
            left += f", about {in_words(stage['seconds'])} on one worker"
        print(f"  {stage['stage']}: {stage['done']} of {stage['total']} chunks, {left}")
    if plan["changed"]:
        print(f"{_count(plan['changed'], 'changed or deleted file')} would be made again")
