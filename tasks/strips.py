"""The pictures of one image of a report, side by side: before, between and after."""

from __future__ import annotations

from typing import Any

import numpy as np

from storage.images import Pixels
from tasks.columns import Columns
from tasks.encoding import Picture, amplified, change_of, picture
from tasks.examples import Example, seen_by_model
from tasks.nodes import Node
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
    row = _Row(state, columns, example, side)
    attacked, purified = f"score/{node.attack}/none", f"score/{node.attack}/{node.purifier}"
    role = "combined" if "corrected" in example.parts else "purified"
    row.answered("original", example.clean, "score/none/none")
    if state.bench.pipeline is None:
        row.answered("attacked", example.before, attacked)
        row.change(factor)
        row.parts(answered=state.bench.has_model)
        if node.kind == "purify":
            row.answered(role, example.after, purified)
        return row.pictures
    row.compared("attacked", example.before, attacked)
    row.change(factor)
    row.seen("model sees", example.before, attacked, "target_psnr")
    row.hidden(node.attack)
    row.parts(answered=False)
    if node.kind == "purify" and state.bench.purifiers[node.position].keeps_size:
        row.compared(role, example.after, purified)
        row.seen("model sees", example.after, purified, "scaled_psnr")
    elif node.kind == "purify":
        row.seen(f"{role}, as seen", example.after, purified, "scaled_psnr")
    return row.pictures


class _Row:
    """Collects the pictures of an image."""

    def __init__(self, state: Survey, columns: Columns, example: Example, side: int) -> None:
        self.state = state
        self.columns = columns
        self.example = example
        self.side = side
        self.subject = str(columns.table("ingest").column("name")[example.index].as_py())
        self.label = int(columns.column("ingest", "label")[example.index])
        self.pictures: list[Picture] = []

    def answered(self, role: str, pixels: Pixels, score: str, note: str = "") -> None:
        """With what the model or metric said of it when it was scored, where there is one."""
        if self.state.bench.has_model:
            prediction = int(self._values(score, "prediction")[self.example.index])
            confidence = float(self._values(score, "confidence")[self.example.index])
            self._said(role, pixels, prediction, confidence, note)
        elif self.state.bench.has_metric:
            value = float(self._values(score, "score")[self.example.index])
            self._add(role, pixels, caption=f"score {value:.4g}", note=note)
        elif "similarity" in self.columns.table(score).schema.names:
            value = float(self._values(score, "similarity")[self.example.index])
            self._add(role, pixels, caption=f"similarity {value:.3f}", note=note)
        else:
            self._add(role, pixels, note=note)

    def compared(self, role: str, pixels: Pixels, score: str) -> None:
        """With how close it is to the original."""
        self._add(role, pixels, note=self._decibels(score, "psnr"))

    def change(self, factor: int) -> None:
        """What the attack changed, where it kept the size."""
        if self.example.clean.shape != self.example.before.shape:
            return
        change = change_of(self.example.clean, self.example.before)
        largest = int(np.abs(change).max(initial=0))
        role = f"difference \u00d7 {factor}"
        self._add(role, amplified(change, factor), caption=f"at most {largest}/255")

    def seen(self, role: str, pixels: Pixels, score: str, column: str) -> None:
        """What the pipeline makes of it, and how close that is to the picture of a column."""
        note = self._decibels(score, column) or self._decibels(score, "scaled_psnr")
        self.answered(role, seen_by_model(self.state.bench, pixels), score, note)

    def hidden(self, attack: str) -> None:
        """The picture that the attack hid, if it hid one, with what the model says of it."""
        if self.example.hidden is None:
            return
        node, index = self.state.plan.nodes[f"attack/{attack}"], self.example.index
        caption = note = ""
        if self.state.bench.has_model:
            said = self._values(f"score/{attack}/none", "target_prediction")[index]
            caption = class_name(self.state, int(said))
        pool = self.state.bench.targets[node.position]
        label = int(self._values(node.inputs["target"], "target_label")[index])
        if label >= 0 and pool is not None and pool.pool is self.state.bench.dataset:
            note = f"truly {class_name(self.state, label)}"
        role = "to be taken for" if self.state.bench.has_encoder else "hidden picture"
        self._add(role, self.example.hidden, caption=caption, note=note)

    def parts(self, *, answered: bool) -> None:
        """Masks and layers of the purifier."""
        for name, pixels in self.example.parts.items():
            if name == "purified":
                continue
            role = name.replace("_", " ")
            if answered and name in self.example.said:
                self._said(role, pixels, *self.example.said[name])
            elif name in self.example.masks:
                share = f"{100 * float((pixels > 0).mean()):.0f}\u00a0% of values"
                self._add(role, pixels, caption=share, exact=True)
            else:
                self._add(role, pixels)

    def _values(self, score: str, column: str) -> Any:
        return self.columns.column(score, column)

    def _decibels(self, score: str, column: str) -> str:
        if column not in self.columns.table(score).schema.names:
            return ""
        value = float(self._values(score, column)[self.example.index])
        to = "hidden" if column == "target_psnr" else "original"
        return "" if np.isnan(value) else f"{value:.1f}\u00a0dB to {to}"

    def _said(
        self, role: str, pixels: Pixels, prediction: int, confidence: float, note: str = ""
    ) -> None:
        caption = f"{class_name(self.state, prediction)}, {100 * confidence:.0f}\u00a0%"
        verdict = "" if self.label < 0 else "right" if prediction == self.label else "wrong"
        self._add(role, pixels, caption=caption, verdict=verdict, note=note)

    def _add(self, role: str, pixels: Pixels, **words: Any) -> None:
        self.pictures.append(picture(role, pixels, self.side, subject=self.subject, **words))
