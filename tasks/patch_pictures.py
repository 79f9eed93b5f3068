"""The fitted patches of a run as a page shows them: through the fitting, moving, and at the end."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from defender.norms import to_uint8
from storage.images import Pixels
from storage.scores import read_rows
from tasks.drawing import Plot
from tasks.encoding import Picture, picture
from tasks.nodes import Node
from tasks.outputs import safe_name
from tasks.patch_facts import made_on
from tasks.patch_plots import fitting_plots
from tasks.strips import class_name
from tasks.survey import Survey

FRAME, LAST = 320, 1600
"""Milliseconds that a frame of the animation is shown, and its last one."""


@dataclass(frozen=True)
class FittedPatch:
    """A patch that was fitted in a run.

    Args:
        label: of the attack.
        file: its name within the run's folder.
        cells: along a side.
        epochs: that it was fitted for.
        images: that it was fitted on.
        target: name of the class that it is meant to reach, empty for any other.
        models: labels of the models that it was fitted on.
        loss: of its last epoch, None where that is not known.
        success: share of the images that met the goal in the last epoch, None where not known.
        final: the patch, one pixel a cell.
        snapshots: the patch after some epochs, the first and the last of them included.
        animation: the snapshots as a moving picture, None where there is but one.
        plots: success and loss by epoch.
    """

    label: str
    file: str
    cells: int
    epochs: int
    images: int
    target: str
    models: list[str]
    loss: float | None
    success: float | None
    final: Picture
    snapshots: list[Picture]
    animation: Picture | None
    plots: list[Plot]


def fitted_patches(state: Survey) -> list[FittedPatch]:
    """The patches that were fitted in a finished run, in the order of the plan."""
    found = []
    for node in state.plan:
        if node.kind != "fit":
            continue
        (row,) = read_rows(state.bench.store.rows(state.done[(node.name, 0)].ref)).to_pylist()
        if row.get("history") is not None:
            found.append(_fitted(state, node, row))
    return found


def _fitted(state: Survey, node: Node, row: dict[str, Any]) -> FittedPatch:
    label, history = node.attack, json.loads(row["history"])
    target = state.bench.spec.attacks[node.position].target
    epochs = [int(epoch) for epoch in row["snapshot_epochs"]]
    thetas = [_pixels(values, row["shape"]) for values in row["snapshots"]]
    last = _pixels(row["values"], row["shape"])
    if not epochs or epochs[-1] != len(history):
        epochs, thetas = [*epochs, len(history)], [*thetas, last]
    subject, cells = f"patch {label}", last.shape[-1]
    snapshots = [
        picture(_when(epoch), pixels, cells, subject=subject, exact=True)
        for epoch, pixels in zip(epochs, thetas, strict=True)
    ]
    return FittedPatch(
        label=label,
        file=f"fitted/{safe_name(label)}.safetensors",
        cells=cells,
        epochs=len(history),
        images=int(row["images"]),
        target="" if target is None else class_name(state, target),
        models=made_on(state).get(label, []),
        loss=history[-1].get("loss") if history else None,
        success=history[-1].get("success") if history else None,
        final=picture("final colours", last, cells, subject=subject, exact=True),
        snapshots=snapshots,
        animation=_animated(snapshots, subject) if len(snapshots) > 1 else None,
        plots=fitting_plots(label, history),
    )


def _when(epoch: int) -> str:
    return "start" if epoch == 0 else f"epoch {epoch}"


def _pixels(values: bytes, shape: Sequence[int]) -> Pixels:
    """Stored float32 values of theta as uint8 (c, G, G)."""
    theta = torch.from_numpy(np.frombuffer(values, np.float32).reshape(shape).copy())
    made: Pixels = to_uint8(theta).numpy()
    return made


def _animated(snapshots: Sequence[Picture], subject: str) -> Picture:
    """An animated PNG of pictures, which goes on for ever."""
    first, *others = [
        Image.open(io.BytesIO(base64.b64decode(shown.uri.split(",")[1]))) for shown in snapshots
    ]
    sink = io.BytesIO()
    first.save(
        sink,
        "PNG",
        save_all=True,
        append_images=others,
        duration=[FRAME] * len(others) + [LAST],
        loop=0,
    )
    uri = f"data:image/png;base64,{base64.b64encode(sink.getvalue()).decode()}"
    role = f"animation of {len(snapshots)} snapshots"
    return Picture(role, f"{role} of {subject}", uri, first.width, first.height, True)
