"""The commands ``scan`` and ``calibrate``: any folder of images, without a specification."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.command import (
    DEFAULT_STORE,
    Exit,
    JsonOption,
    LimitOption,
    StoreOption,
    WaitOption,
    guarded,
    print_json,
)

if TYPE_CHECKING:
    from flows.scan import ScanOutcome

PRINTED = 10
"""Suspects that the terminal names."""

FolderArgument = Annotated[Path, typer.Argument(help="Folder or zip of images.", metavar="FOLDER")]
TargetOption = Annotated[
    str, typer.Option("--target", help="Size that the model gets: 224x224.", metavar="HxW")
]
LibraryOption = Annotated[
    str, typer.Option("--library", help="What resizes: opencv, pillow or torch.")
]
AlgorithmOption = Annotated[
    str, typer.Option("--algorithm", help="How: nearest, linear, cubic, lanczos or area, ...")
]
AntialiasOption = Annotated[
    bool, typer.Option("--antialias", help="torch: antialiased linear or cubic.")
]
GreyOption = Annotated[bool, typer.Option("--grey", help="Decode to one channel.")]
IncludeOption = Annotated[
    str | None,
    typer.Option("--include", help="Images whose names fit only: train/*.", metavar="PATTERN"),
]
NameOption = Annotated[
    str | None, typer.Option("--name", help="Name of the run and of its folder in the store.")
]
DetectorOption = Annotated[
    list[str] | None,
    typer.Option("--detector", help="A detector; can be repeated.", metavar="NAME"),
]
RuleOption = Annotated[
    str,
    typer.Option("--rule", help="Suspect if flagged by any, by the majority, or by one NAME."),
]
FprOption = Annotated[
    float | None,
    typer.Option("--fpr", help="Share of benign images that may come out suspect: 0.01."),
]


def scan(
    folder: FolderArgument,
    target: TargetOption,
    library: LibraryOption = "opencv",
    algorithm: AlgorithmOption = "linear",
    antialias: AntialiasOption = False,
    thresholds: Annotated[
        Path | None, typer.Option("--thresholds", help="thresholds.json to decide by.")
    ] = None,
    benign: Annotated[
        Path | None,
        typer.Option("--benign", help="Folder or zip of clean images to set thresholds on."),
    ] = None,
    fpr: FprOption = None,
    detectors: DetectorOption = None,
    rule: RuleOption = "any",
    grey: GreyOption = False,
    name: NameOption = None,
    include: IncludeOption = None,
    limit: LimitOption = None,
    max_suspects: Annotated[
        int | None, typer.Option("--max-suspects", help="Exit code 7 with more suspects.")
    ] = None,
    max_share: Annotated[
        float | None,
        typer.Option("--max-share", help="Exit code 7 with a larger share of suspects, 0 to 1."),
    ] = None,
    max_drift: Annotated[
        float | None,
        typer.Option("--max-drift", help="Exit code 7 if that share is further from the last."),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    wait: WaitOption = True,
    fail: Annotated[
        bool, typer.Option("--fail-on-suspects", help="Exit code 4 if there are suspects.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Look for image-scaling attacks in a folder of images; what is done is not done again."""
    asked = _asked(folder, target, library, algorithm, antialias, grey, name)
    asked |= {"include": include, "limit": limit}
    asked |= {"detectors": detectors or [], "rule": rule, "fpr": fpr}
    asked |= {"thresholds": thresholds, "benign": benign}
    asked |= {"max_suspects": max_suspects, "max_share": max_share, "max_drift": max_drift}

    def action() -> None:
        from flows import engine

        engine.settle()
        from flows.requirements import raise_unmet
        from flows.scan import run_scan
        from tasks.scan_specs import parse_request

        outcome = run_scan(parse_request(asked, "scan"), store, wait=wait, on_wait=_waiting)
        if as_json:
            print_json(_in_json(outcome))
        else:
            _print_scan(outcome)
        raise_unmet(outcome.missed)
        raise typer.Exit(Exit.DAMAGE if fail and outcome.summary["suspects"] else Exit.DONE)

    guarded(action)


def calibrate(
    folder: FolderArgument,
    target: TargetOption,
    library: LibraryOption = "opencv",
    algorithm: AlgorithmOption = "linear",
    antialias: AntialiasOption = False,
    fpr: FprOption = None,
    detectors: DetectorOption = None,
    rule: RuleOption = "any",
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the thresholds to this file, too.")
    ] = None,
    grey: GreyOption = False,
    name: NameOption = None,
    include: IncludeOption = None,
    limit: LimitOption = None,
    store: StoreOption = DEFAULT_STORE,
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Set the thresholds of a scan on a folder of clean images; what is done is not done again."""
    asked = _asked(folder, target, library, algorithm, antialias, grey, name)
    asked |= {"include": include, "limit": limit}
    asked |= {"detectors": detectors or [], "rule": rule, "fpr": fpr}

    def action() -> None:
        from flows import engine

        engine.settle()
        from flows.scan import run_calibration
        from storage.files import write_atomic
        from tasks.scan_specs import parse_request

        request = parse_request(asked, "calibrate")
        outcome = run_calibration(request, store, wait=wait, on_wait=_waiting)
        made = outcome.folder / "thresholds.json"
        if out is not None:
            write_atomic(out, made.read_bytes())
        if as_json:
            print_json(_in_json(outcome))
        else:
            _print_calibration(outcome)
            print(f"thresholds: {made if out is None else out}")

    guarded(action)


def _asked(
    folder: Path,
    target: str,
    library: str,
    algorithm: str,
    antialias: bool,
    grey: bool,
    name: str | None,
) -> dict[str, Any]:
    pipeline = {
        "library": library,
        "algorithm": algorithm,
        "antialias": antialias,
        "target": target,
    }
    colour = "grey" if grey else "rgb"
    return {"path": folder, "pipeline": pipeline, "colour": colour, "name": name}


def _waiting() -> None:
    print("waiting for another run on this store", file=sys.stderr)


def _in_json(outcome: ScanOutcome) -> dict[str, Any]:
    return {
        "folder": str(outcome.folder),
        "chunk_tasks": outcome.chunk_tasks,
        "chunks": outcome.chunks,
        "seconds": {kind: round(spent, 3) for kind, spent in outcome.seconds.items()},
        **{name: value for name, value in outcome.summary.items() if name != "spec"},
    }


def _print_scan(outcome: ScanOutcome) -> None:
    from flows.scan_page import chance, verdict
    from tasks.scan import worst

    print(f"{verdict(outcome.summary)} {chance(outcome.summary)}")
    several = len(outcome.summary["detectors"])
    for row in worst(outcome.folder, PRINTED):
        print(f"  {row['rank']:>4}  {row['name']}  ({row['count']} of {several} detectors)")
    _print_rest(outcome)
    print(f"suspects: {outcome.folder / 'suspects.csv'}")
    print(f"report: {outcome.folder / 'scan.html'}")


def _print_calibration(outcome: ScanOutcome) -> None:
    rate = f"{100 * outcome.summary['expected_rate']:.3g} %"
    print(
        f"{len(outcome.summary['thresholds'])} detectors calibrated on "
        f"{outcome.summary['images']} images: {rate} of such images come out suspect at most"
    )
    for label, value in outcome.summary["thresholds"].items():
        print(f"  {label}  {'none: too few images' if value is None else f'{value:.6g}'}")
    _print_rest(outcome)


def _print_rest(outcome: ScanOutcome) -> None:
    if outcome.summary["rejected"]:
        print(f"{outcome.summary['rejected']} files rejected: rejected.parquet")
    print(f"{outcome.chunk_tasks} of {outcome.chunks} chunks were computed now")
