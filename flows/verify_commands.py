"""The command ``verify-faces``: how well an encoder tells people apart on a list of pairs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.command import (
    DEFAULT_STORE,
    Exit,
    JsonOption,
    StoreOption,
    WaitOption,
    guarded,
    print_json,
)

if TYPE_CHECKING:
    from flows.verify import VerifyOutcome

SHOWN = (1e-2, 1e-3, 1e-4)
"""False accept rates that the terminal shows, where there are pairs enough."""

PairsArgument = Annotated[
    Path,
    typer.Argument(
        help="CSV with name_a, name_b, same and perhaps fold; LFW's pairs.txt; of ijb, template_a "
        "and template_b.",
        metavar="PAIRS",
    ),
]
DatasetOption = Annotated[
    Path, typer.Option("--dataset", help="Folder or zip of images.", metavar="FOLDER")
]
EncoderOption = Annotated[
    str, typer.Option("--encoder", help="Encoder, as a specification has it.")
]
WeightsOption = Annotated[
    str | None, typer.Option("--weights", help="Its checkpoint: .safetensors or .pt.")
]
PurifierOption = Annotated[
    list[str] | None,
    typer.Option(
        "--purifier", help="Purify probes, as median(3); can be repeated.", metavar="NAME"
    ),
]
ProtocolOption = Annotated[
    str, typer.Option("--protocol", help="pairs, lfw (ten folds) or ijb (templates).")
]
TemplatesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--templates",
        help="CSV with name, template, media and person; can be repeated.",
        metavar="FILE",
    ),
]
FarOption = Annotated[
    float, typer.Option("--far", help="Share of impostor pairs that the threshold lets pass.")
]
ThresholdOption = Annotated[
    float | None, typer.Option("--threshold", help="Fixed similarity to accept from, [0, 1].")
]
IdentityOption = Annotated[
    str | None,
    typer.Option("--identity", help="Regular expression; its group in a name is the person."),
]


def verify_faces(
    pairs: PairsArgument,
    dataset: DatasetOption,
    encoder: EncoderOption = "mobilefacenet",
    weights: WeightsOption = None,
    normalisation: Annotated[
        str | None, typer.Option("--normalisation", help="imagenet, half, facenet or none.")
    ] = None,
    fit: Annotated[str, typer.Option("--fit", help="stretch or pad to the encoder's size.")] = (
        "stretch"
    ),
    scale: Annotated[
        float, typer.Option("--scale", help="Share of the encoder's input that an image fills.")
    ] = 1.0,
    side: Annotated[
        int | None, typer.Option("--side", min=1, help="Height and width that the encoder sees.")
    ] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Add the mirror image's embedding.")] = False,
    purifiers: PurifierOption = None,
    protocol: ProtocolOption = "pairs",
    templates: TemplatesOption = None,
    far: FarOption = 1e-3,
    threshold: ThresholdOption = None,
    identity: IdentityOption = None,
    include: Annotated[
        str | None,
        typer.Option("--include", help="Images whose names fit only: test/*.", metavar="PATTERN"),
    ] = None,
    resize: Annotated[
        str | None, typer.Option("--resize", help="Resize images: 112x112.", metavar="HxW")
    ] = None,
    align: Annotated[
        Path | None,
        typer.Option("--align", help="Align faces by this detector, an ONNX file of YuNet."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the run and of its folder in the store.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Copy figures and curves to this folder, too.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Judge a face encoder, and purifiers in front of it, on a list of pairs; resumable."""
    asked: dict[str, Any] = {
        "pairs": pairs,
        "dataset": dataset,
        "encoder": {
            "name": encoder,
            "weights": weights,
            "normalisation": normalisation,
            "fit": fit,
            "scale": scale,
            "side": side,
            "flip": flip,
        },
        "purifiers": purifiers or [],
        "protocol": protocol,
        "templates": templates or [],
        "faces": {"far": far, "threshold": threshold, "identity": identity},
        "include": include,
        "align": align,
        "name": name,
    }

    def action() -> None:
        from flows import engine

        engine.settle()
        from flows.verify import run_verification
        from storage.files import write_atomic
        from tasks.verify import OUTPUTS
        from tasks.verify_specs import parse_verification

        request = parse_verification({**asked, "resize": resize})
        outcome = run_verification(request, store, wait=wait, on_wait=_waiting)
        if out is not None:
            for made in OUTPUTS:
                write_atomic(out / made, (outcome.folder / made).read_bytes())
        if as_json:
            print_json({"folder": str(outcome.folder), **_plain(outcome)})
        else:
            _print(outcome)
            print(f"figures and curves: {outcome.folder if out is None else out}")
        raise typer.Exit(Exit.DONE)

    guarded(action)


def _waiting() -> None:
    print("waiting for another run on this store", file=sys.stderr)


def _plain(outcome: VerifyOutcome) -> dict[str, Any]:
    summary = {key: value for key, value in outcome.summary.items() if key != "spec"}
    systems = [
        {key: value for key, value in one.items() if key != "curve"} for one in summary["systems"]
    ]
    return {
        **summary,
        "systems": systems,
        "chunk_tasks": outcome.chunk_tasks,
        "chunks": outcome.chunks,
    }


def _print(outcome: VerifyOutcome) -> None:
    from rich.table import Table

    from flows.terminal import wide_console

    summary = outcome.summary
    first = summary["systems"][0]
    fars = [row["far"] for row in first["tpr_at_far"] if row["far"] in SHOWN]
    folds = "ten_fold" in first
    table = Table(
        title="below each rate its 95 % interval, people drawn again", title_justify="left"
    )
    for column in ("purifier", "threshold", "FAR", "FRR", "EER", "AUC"):
        table.add_column(column, justify="left" if column == "purifier" else "right")
    for one in fars:
        table.add_column(f"TPR at FAR {one:g}", justify="right")
    if folds:
        table.add_column("accuracy", justify="right")
    for one in summary["systems"]:
        told = {row["far"]: row for row in one["tpr_at_far"]}
        cells = [
            one["purifier"],
            f"{one['threshold']:.4f}",
            *(_share(one[rate]) for rate in ("far", "frr", "eer")),
            f"{one['auc']['value']:.4f}",
            *(_share({**told[far], "value": told[far]["tpr"]}) for far in fars),
        ]
        if folds:
            ten = one["ten_fold"]
            cells.append(f"{100 * ten['accuracy']:.2f} ± {100 * ten['std']:.2f} %")
        table.add_row(*cells)
    console = wide_console()
    console.print(
        f"[bold]{summary['name']}[/bold]: {first['genuine_pairs']:,} genuine and "
        f"{first['impostor_pairs']:,} impostor pairs of {first['people']:,} people"
    )
    console.print(table)
    print(f"{outcome.chunk_tasks} of {outcome.chunks} chunks were computed now")


def _share(row: dict[str, Any]) -> str:
    """A rate and its interval: over people, or Wilson's where that is a point or is not there."""
    low, high = row["by_identity"]
    name = ""
    if (low is None or low == high) and "wilson" in row:
        (low, high), name = row["wilson"], "Wilson "
    if low is None:
        return f"{100 * row['value']:.2f} %"
    return f"{100 * row['value']:.2f} %\n{name}{100 * low:.2f} to {100 * high:.2f}"
