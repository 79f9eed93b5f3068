"""The commands ``print-patch`` and ``apply-patch``: fitted patches on paper and on pictures."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.command import JsonOption, guarded, print_json

SHOWN = 10
"""Pictures that cannot be used which the terminal names."""
EVERY = 15.0
"""Seconds between lines of progress."""

ArtefactArgument = Annotated[
    Path,
    typer.Argument(
        help="Fitted patch: a safetensors file of one tensor (c, G, G) in [0, 1], or a folder "
        "that holds one.",
        metavar="ARTEFACT",
    ),
]


def print_patch(
    artefact: ArtefactArgument,
    size_cm: Annotated[
        float, typer.Option("--size-cm", help="Side of the printed square in centimetres: 10.")
    ],
    out: Annotated[
        Path, typer.Option("--out", help="File to write: patch.pdf or patch.png.", metavar="FILE")
    ],
    dpi: Annotated[
        float,
        typer.Option("--dpi", help="PNG: pixels an inch, about; a cell has whole pixels."),
    ] = 300.0,
    page: Annotated[
        str | None,
        typer.Option("--page", help="PDF: a4 (the default), letter, or fit: around the patch."),
    ] = None,
    copies: Annotated[
        int, typer.Option("--copies", min=1, help="PDF: squares, as many a page as fit.")
    ] = 1,
    chart: Annotated[
        bool,
        typer.Option("--chart/--no-chart", help="PDF: grey wedge and colours of the patch."),
    ] = True,
    marks: Annotated[
        bool, typer.Option("--marks", help="PNG: crop marks; a PDF always has them.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a fitted patch for the printer, at a stated size, as PDF or PNG."""

    def action() -> None:
        from tasks.printing import PrintRequest
        from tasks.printing import print_patch as write

        facts = write(PrintRequest(artefact, out, size_cm, dpi, page, copies, chart, marks))
        if as_json:
            print_json(facts)
            return
        size, grid = facts["size_mm"], facts["grid"]
        words = f"{size:.2f} x {size:.2f} mm, {grid} x {grid} cells of {facts['cell_mm']:.4g} mm"
        if "pixels" in facts:
            words += f" ({facts['cell_pixels']} pixels at {facts['dpi']:.2f} dpi)"
        else:
            words += f", {facts['copies']} on {facts['pages']} page(s), {facts['page']}"
        print(f"{facts['out']}: {words}, theta {facts['digest'][:12]}")
        print("print at 100 %, without colour correction")

    guarded(action)


def apply_patch(
    artefact: ArtefactArgument,
    images: Annotated[
        list[Path],
        typer.Argument(help="Folder or zip of images, or image files.", metavar="IMAGES"),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", help="Folder for the patched images, as PNG.", metavar="FOLDER"),
    ],
    size: Annotated[
        float, typer.Option("--size", help="Side of the patch as a share of the shorter side.")
    ] = 0.15,
    place: Annotated[
        str,
        typer.Option("--place", help="random, centre, upper-left, upper-right, lower-left, ..."),
    ] = "random",
    seed: Annotated[int, typer.Option("--seed", help="Seed of random places.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Paste a fitted patch on images; what is already pasted is not pasted again."""

    def action() -> None:
        from tasks.printing_paste import PasteRequest
        from tasks.printing_paste import apply_patch as paste

        request = PasteRequest(artefact, tuple(images), out, size, place, seed)
        found = paste(request, _listener())
        if as_json:
            print_json(found)
        else:
            _print_pasted(found)

    guarded(action)


def _listener() -> Any:
    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            print(f"{done:,} of {total:,} images", file=sys.stderr)

    return tell


def _print_pasted(found: dict[str, Any]) -> None:
    there = found["images"] - found["pasted"]
    print(f"{found['out']}: {found['pasted']:,} images patched now, {there:,} were there already")
    if found["rejected"]:
        print(f"{found['rejected']:,} could not be used, see rejected.csv", file=sys.stderr)
    for name, reason in list(found["reasons"].items())[:SHOWN]:
        print(f"  {name} {reason}", file=sys.stderr)
