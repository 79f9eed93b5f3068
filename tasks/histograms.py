"""Grey levels before and after: of an image, of its attack, and of what scaling leaves of that.

A scaling attack writes into the pixels that the resize considers. Resized down and up again, an
attack image shows the grey levels of the hidden picture, a clean image its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from defender.detectors.down_up import HistogramCosine, down_and_up
from defender.detectors.scoring import luma
from defender.norms import from_uint8
from defender.scaling import Pipeline
from storage.images import Pixels
from tasks.columns import Columns
from tasks.counted import attacks
from tasks.drawing import ATTACKED, CLEAN, TOLD, WIDTH, Plot, plain
from tasks.examples import read_example
from tasks.inline_svg import INK, inline
from tasks.nodes import Node
from tasks.pictures import ranking
from tasks.survey import Survey

ROW = 0.72
"""Inches of one histogram."""
LEVELS = 256
PEAK = 1.3
"""Height of a histogram, in units of a bar that 97 % of the grey levels do not exceed."""

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Levels:
    """The grey levels of one image of an attack.

    Args:
        name: the image's name in the dataset.
        clean: pixels of each of the 256 levels, of the original.
        attacked: of the attack image.
        again: of the attack image, resized down and up by the pipeline's own library.
        clean_cosine: of the histogram of the original and that of itself resized down and up.
        attacked_cosine: the same of the attack image: what the histogram detector takes.
    """

    name: str
    clean: Counts
    attacked: Counts
    again: Counts
    clean_cosine: float
    attacked_cosine: float


def histograms(state: Survey, columns: Columns) -> list[Plot]:
    """For each attack that hides a picture the grey levels of its median image, as plots."""
    pipeline = state.bench.pipeline
    if pipeline is None:
        return []
    hiding = [node for node in attacks(state) if "target" in node.inputs]
    return [_plot(node.attack, median_levels(state, columns, node, pipeline)) for node in hiding]


def median_levels(state: Survey, columns: Columns, node: Node, pipeline: Pipeline) -> Levels:
    """The grey levels of the image in the middle of an attack's ranking."""
    _, ranked = ranking(columns, node)
    place = (len(ranked) - 1) // 2
    example = read_example(state, node, place, int(ranked[place]))
    clean, _, clean_cosine = _levels(example.clean, pipeline)
    attacked, again, attacked_cosine = _levels(example.before, pipeline)
    name = str(columns.table("ingest").column("name")[example.index].as_py())
    return Levels(name, clean, attacked, again, clean_cosine, attacked_cosine)


def _levels(image: Pixels, pipeline: Pipeline) -> tuple[Counts, Counts, float]:
    """Histograms of an image (c, h, w) and of itself resized down and up, and their cosine."""
    images = from_uint8(torch.tensor(image if len(image) == 3 else image[:1])[None])
    first, second = (
        np.bincount(luma(pixels).numpy().ravel(), minlength=LEVELS).astype(np.int64)
        for pixels in down_and_up(images, pipeline)
    )
    score = HistogramCosine(pipeline)(images, seeds=torch.zeros(1, dtype=torch.int64))
    return first, second, 1 - float(score)


def _plot(attack: str, levels: Levels) -> Plot:
    """Histograms one below the other, each to a scale of its own; what is higher is cut."""
    rows = [
        ("original", levels.clean, CLEAN),
        ("attacked", levels.attacked, ATTACKED),
        ("attacked, resized down and up", levels.again, TOLD),
    ]
    tall = ROW * len(rows) + 0.56
    figure = Figure(figsize=(WIDTH, tall), facecolor="none")
    axes = figure.add_axes((0.03, 0.5 / tall, 0.94, 1 - 0.56 / tall))
    for i, (label, counts, colour) in enumerate(rows):
        base = float(len(rows) - 1 - i)
        top = max(1.0, PEAK * float(np.quantile(counts[1:-1], 0.97)))
        axes.stairs(
            base + np.minimum(counts / top, 1) * 0.62,
            np.arange(LEVELS + 1) - 0.5,
            baseline=base,
            fill=True,
            facecolor=(colour, 0.6),
            edgecolor="none",
        )
        axes.axhline(base, color=INK, linewidth=0.5, alpha=0.35)
        axes.text(0, base + 0.7, label, fontsize=8.5, va="bottom", color=INK)
    cosine = f"cosine {levels.attacked_cosine:.3f}, of the original {levels.clean_cosine:.3f}"
    axes.text(LEVELS - 1, 0.7, cosine, fontsize=8.5, ha="right", va="bottom", color=INK)
    axes.set_xlim(-0.5, LEVELS - 0.5)
    axes.set_ylim(-0.04, len(rows) - 0.02)
    axes.set_yticks([])
    axes.set_xticks([0, 64, 128, 192, 255])
    plain(axes, "grey level")
    title = f"Grey levels under {attack}"
    words = f"{title}, {levels.name}: histograms before and after resizing down and up: {cosine}"
    return Plot(title, words, inline(figure, f"levels {attack}"))
