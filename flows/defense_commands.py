"""The command ``score-defense``: a user's file against every attack on a quality metric."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.command import (
    DEFAULT_STORE,
    JsonOption,
    LimitOption,
    SetOption,
    StoreOption,
    WaitOption,
    guarded,
    print_json,
)

FileArgument = Annotated[
    Path, typer.Argument(help="Python file with the class Defense.", metavar="FILE")
]


def score_defense(
    file: FileArgument,
    dataset: Annotated[
        Path | None,
        typer.Option(
            "--dataset",
            help="Folder, zip or Parquet file of images, or a folder or zip with clean and "
            "attacked sub-folders. Left out: crops of the built-in photographs.",
        ),
    ] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", help="Image-quality metric: linearity-small.")
    ] = None,
    spec: Annotated[
        Path | None,
        typer.Option("--spec", help="Specification with the data set, metric and attacks."),
    ] = None,
    baseline: Annotated[
        str, typer.Option("--baseline", help="half-size, or a purifier: 'jpeg(50)'.")
    ] = "half-size",
    time_limit: Annotated[
        float, typer.Option("--time-limit", min=0.001, help="Seconds an image.")
    ] = 10.0,
    memory_limit: Annotated[
        int, typer.Option("--memory-limit", min=400, help="Megabytes of resident memory.")
    ] = 4096,
    parameter_limit: Annotated[
        int | None,
        typer.Option("--parameter-limit", min=0, help="Parameters of its networks, at most."),
    ] = None,
    query_budget: Annotated[
        int | None,
        typer.Option(
            "--query-budget",
            min=1,
            help="Also attack with Square and NES, which ask for N scores of each image.",
            metavar="N",
        ),
    ] = None,
    resize: Annotated[
        str | None, typer.Option("--resize", help="Resize images: 299x299.", metavar="HxW")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    limit: LimitOption = None,
    assignments: SetOption = None,
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Score a defence of your own: Gain, Quality and SRCC by attack, against a baseline.

    FILE holds a class Defense with apply_defense(self, images): a float32 batch (n, c, h, w) in
    [0, 1] in, images of any size out. It runs in a process of its own that is handed attacked
    images and nothing else.
    """

    def action() -> None:
        from flows import engine

        engine.settle()
        from flows.requirements import raise_unmet
        from flows.score_defense import Wanted
        from flows.score_defense import score_defense as score

        wanted = Wanted(
            dataset=dataset,
            spec=spec,
            metric=metric,
            baseline=baseline,
            time_limit=time_limit,
            memory_limit=memory_limit,
            parameter_limit=parameter_limit,
            query_budget=query_budget,
            resize=_sides(resize),
            changes=assignments or [],
        )
        found = score(
            file,
            store,
            wanted,
            limit,
            wait=wait,
            on_wait=lambda: print("waiting for another run on this store", file=sys.stderr),
        )
        if as_json:
            print_json(found)
        else:
            print_scores(found)
        raise_unmet(found.get("missed", ()))

    guarded(action)


def _sides(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"\s*([1-9]\d*)\s*x\s*([1-9]\d*)\s*", text)
    if match is None:
        raise ValueError(f"--resize: expected height and width such as 299x299, got {text!r}")
    return int(match[1]), int(match[2])


def print_scores(found: dict[str, Any]) -> None:
    """Print one line an attack, the means, and what is known of the defence."""
    from rich.table import Table

    from flows.terminal import wide_console

    console, base = wide_console(), found["baseline"]
    about = found["defense"]
    console.print(
        f"[bold]{about['file']}[/bold]: {found['dataset']['images']} images, "
        f"{about['parameters']:,} parameters, {about['seconds_per_image']:.3f} s an image, "
        f"{about['peak_memory'] / 1e6:.0f} MB"
    )
    table = Table()
    table.add_column("attack", overflow="fold")
    for name in ("Gain", "Quality", "SRCC"):
        table.add_column(name, justify="right")
    table.add_column(f"Gain, {base['name']}", justify="right")
    table.add_column(f"Quality, {base['name']}", justify="right")
    table.add_column(f"SRCC, {base['name']}", justify="right")
    table.add_column("status", overflow="fold")
    for name, row in found["attacks"].items():
        own = [_shown(row[k]) for k in ("gain", "quality", "srcc")]
        their = [_shown(base["attacks"][name][k]) for k in ("gain", "quality", "srcc")]
        table.add_row(name, *own, *their, row["status"])
    table.add_section()
    means = [_between(found["mean"], k) for k in ("gain", "quality", "srcc")]
    table.add_row("mean", *means, *(_between(base, k) for k in ("gain", "quality", "srcc")), "")
    console.print(table)
    difference = found["difference"]
    if difference["gain"] is None:
        console.print("no means: the defence failed under some attack")
    else:
        shown = ", ".join(
            f"{title} {_between(difference, k, '+')}"
            for k, title in (("gain", "Gain"), ("quality", "Quality"), ("srcc", "SRCC"))
        )
        console.print(f"difference to {base['name']}: {shown} (a lower Gain is better)")
    for note in about["notes"]:
        console.print(f"note: {note}", markup=False)
    for name, means_ in about["enforcement"].items():
        if means_.startswith("not enforced"):
            console.print(f"{name}: {means_}", markup=False)
    print(f"report: {found['report']}")


def _shown(value: float | None, mark: str = "") -> str:
    return "-" if value is None else f"{value:{mark}.4f}"


def _between(part: dict[str, Any], name: str, mark: str = "") -> str:
    low, high = part[f"{name}_interval"]
    text = _shown(part[name], mark)
    return text if low is None else f"{text} ({_shown(low, mark)} to {_shown(high, mark)})"
