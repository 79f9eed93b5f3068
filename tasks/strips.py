"""The pictures of one image of a report, side by side: before, between and after."""

from __future__ import annotations

import numpy as np

from storage.images import Pixels
from tasks.encoding import Picture, amplified, change_of, picture
from tasks.examples import Example
from tasks.plan import Node
from tasks.summary import Columns
from tasks.survey import Survey


def class_name(state: Survey, number: int) -> str:
    """Name of a class, or its number where it has none."""
    names = state.bench.dataset.source.classes or ()
    return names[number] if 0 <= number < len(names) else f"class {number}"


def true_class(state: Survey, columns: Columns, index: int) -> str:
    """Name of an image's true class, empty where it is not known."""
    label = int(columns.column("ingest", "label")[index])
    return class_name(state, label) if label >= 0 else ""


def pictures_of(
    state: Survey, node: Node, columns: Columns, example: Example, factor: int, side: int
) -> list[Picture]:
    """The pictures of an image, in the order of the columns.

    Args:
        state: a finished run.
        node: of kind ``attack`` or ``purify``.
        columns: the run's per-image columns.
        example: the image.
        factor: amplification of the difference.
        side: longest side in pixels of pictures that are too large to be shown whole.
    """
    subject = str(columns.table("ingest").column("name")[example.index].as_py())
    label = int(columns.column("ingest", "label")[example.index])

    def seen(role: str, pixels: Pixels, prediction: int, confidence: float) -> Picture:
        caption = f"{class_name(state, prediction)}, {100 * confidence:.0f}\u00a0%"
        verdict = "" if label < 0 else "right" if prediction == label else "wrong"
        return picture(role, pixels, side, subject=subject, caption=caption, verdict=verdict)

    def scored(role: str, pixels: Pixels, attack: str, purifier: str) -> Picture:
        if not state.bench.has_model:
            return picture(role, pixels, side, subject=subject)
        name = f"score/{attack}/{purifier}"
        prediction = int(columns.column(name, "prediction")[example.index])
        confidence = float(columns.column(name, "confidence")[example.index])
        return seen(role, pixels, prediction, confidence)

    shown = [
        scored("original", example.clean, "none", "none"),
        scored("attacked", example.before, node.attack, "none"),
    ]
    if example.clean.shape == example.before.shape:
        change = change_of(example.clean, example.before)
        largest = int(np.abs(change).max(initial=0))
        caption = f"at most {largest}/255"
        pixels = amplified(change, factor)
        role = f"difference \u00d7 {factor}"
        shown.append(picture(role, pixels, side, subject=subject, caption=caption))
    for name, pixels in example.parts.items():
        if name == "purified":
            continue
        role = name.replace("_", " ")
        if name in example.said:
            shown.append(seen(role, pixels, *example.said[name]))
        elif name in example.masks:
            share = f"{100 * float((pixels > 0).mean()):.0f}\u00a0% of values"
            shown.append(picture(role, pixels, side, subject=subject, caption=share, exact=True))
        else:
            shown.append(picture(role, pixels, side, subject=subject))
    if node.kind == "purify":
        role = "combined" if "corrected" in example.parts else "purified"
        shown.append(scored(role, example.after, node.attack, node.purifier))
    return shown
