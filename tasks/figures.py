"""The plots of a report: distributions of per-image columns, and ROC curves, as inline SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tasks.columns import Columns
from tasks.counted import attacks, counted, harmless
from tasks.drawing import (
    ATTACKED,
    CLEAN,
    CURVES,
    PURIFIED,
    TOLD,
    WIDTH,
    Plot,
    plain,
    short,
)
from tasks.inline_svg import INK, inline
from tasks.nodes import Node
from tasks.roc import detector_roc
from tasks.survey import Survey

BINS = 48
ROW = 0.52
"""Inches of one distribution."""
MOST = 12
"""Distributions on the page of a run behind a resize, whose attacks and detectors are many."""


@dataclass(frozen=True)
class Ridge:
    """One distribution among others.

    Args:
        label: whose.
        values: one an image; those that are not finite are counted, not drawn.
        colour: of its area.
    """

    label: str
    values: NDArray[np.float64]
    colour: str


def plots(
    state: Survey, columns: Columns, thresholds: dict[str, float | None]
) -> tuple[list[Plot], int]:
    """The plots of a finished run, in reading order.

    Behind a resize, where ROC curves stand in plots of their own, the first :data:`MOST` only.

    Returns:
        The plots, and how many were left out.
    """
    planned = _planned(state, columns, thresholds)
    kept = planned if state.bench.pipeline is None else planned[:MOST]
    return [plot() for plot in kept], len(planned) - len(kept)


def _planned(
    state: Survey, columns: Columns, thresholds: dict[str, float | None]
) -> list[Callable[[], Plot]]:
    scaled = state.bench.pipeline is not None
    hostile = attacks(state)
    of_images: list[Callable[[], Plot]] = []
    for node in hostile or [state.plan.nodes["ingest"]]:
        ridges = _quality(state, columns, node)
        if ridges:
            of_images.append(partial(_closeness, node.attack, ridges, scaled=scaled))
        if state.bench.has_model:
            of_images.append(partial(_confidence, state, columns, node))
    of_scores: list[Callable[[], Plot]] = []
    every = [node for node in state.plan if node.kind == "attack"]
    for node in (n for n in state.plan if n.kind == "detect" and n.attack == "none"):
        tried = [a for a in every if f"detect/{a.attack}/{node.detector}" in state.plan.nodes]
        if not tried:
            continue
        of_scores.append(partial(_scores, columns, node, tried, thresholds.get(node.detector)))
        curves = [attack for attack in tried if attack in hostile]
        if curves and not scaled:
            of_scores.append(partial(detector_roc, columns, node, curves))
    return of_scores + of_images if scaled else of_images + of_scores


def _purified(state: Survey, attack: str) -> list[tuple[str, str, str]]:
    """Score node, label and colour of each purifier after an attack, reference methods last."""
    found = []
    for node in state.plan:
        if node.kind == "purify" and node.attack == attack:
            told = state.bench.purifiers[node.position].knowledge == "reference"
            label = f"{node.purifier} (given the original)" if told else node.purifier
            colour = TOLD if told else PURIFIED
            found.append((told, f"score/{attack}/{node.purifier}", label, colour))
    return [entry[1:] for entry in sorted(found, key=lambda entry: entry[0])]


def _quality(state: Survey, columns: Columns, source: Node) -> list[Ridge]:
    """PSNR against the clean image, before and after each purifier; behind a resize, as seen."""
    attack, among = source.attack, counted(columns)
    metric = "psnr" if state.bench.pipeline is None else "scaled_psnr"
    rows = [(f"score/{attack}/none", "attacked", ATTACKED)] if attack != "none" else []
    return [
        Ridge(label, columns.column(name, metric).astype(np.float64)[among], colour)
        for name, label, colour in rows + _purified(state, attack)
        if metric in columns.table(name).schema.names
    ]


def _closeness(attack: str, ridges: Sequence[Ridge], *, scaled: bool) -> Plot:
    what = "PSNR as the model sees it" if scaled else "PSNR"
    title = f"{what} after {attack}" if attack != "none" else f"{what} of purified clean images"
    label = "PSNR against the clean image" + (" resized" if scaled else "") + ", dB"
    return _ridges(title, ridges, label, f"psnr {attack}", digits=2)


def _confidence(state: Survey, columns: Columns, source: Node) -> Plot:
    """Distribution of the model's confidence in whatever class it predicts."""
    attack, among = source.attack, counted(columns)
    rows = [("score/none/none", "clean", CLEAN)]
    if attack != "none":
        rows.append((f"score/{attack}/none", "attacked", ATTACKED))
    ridges = [
        Ridge(label, columns.column(name, "confidence").astype(np.float64)[among], colour)
        for name, label, colour in rows + _purified(state, attack)
    ]
    title = f"Confidence under {attack}" if attack != "none" else "Confidence"
    label = "confidence in the predicted class"
    return _ridges(title, ridges, label, f"confidence {attack}", limits=(0.0, 1.0))


def _scores(columns: Columns, node: Node, tried: Sequence[Node], threshold: float | None) -> Plot:
    """Distribution of a detector's score on clean, attacked and harmlessly changed images."""
    state, among = columns.state, counted(columns)
    scores = columns.column(node.name, "score").astype(np.float64)[among]
    ridges = [Ridge("clean", scores, CLEAN)]
    for i, attack in enumerate(tried):
        values = columns.column(f"detect/{attack.attack}/{node.detector}", "score")
        colour = CURVES[i % len(CURVES)] if state.bench.pipeline is None else ATTACKED
        label = attack.attack
        if harmless(state, attack):
            label, colour = f"{attack.attack} (harmless)", CLEAN
        ridges.append(Ridge(label, values.astype(np.float64)[among], colour))
    title = f"Scores of {node.detector}"
    return _ridges(
        title, ridges, "score, larger is more suspicious", f"scores {node.name}", line=threshold
    )


def _ridges(
    title: str,
    ridges: Sequence[Ridge],
    label: str,
    salt: str,
    *,
    limits: tuple[float, float] | None = None,
    line: float | None = None,
    digits: int = 3,
) -> Plot:
    """Distributions one below the other on a common axis, medians marked."""
    finite = [ridge.values[np.isfinite(ridge.values)] for ridge in ridges]
    low, high = limits or _range([*finite, np.array([] if line is None else [line])])
    tall = ROW * len(ridges) + 0.56
    figure = Figure(figsize=(WIDTH, tall), facecolor="none")
    axes = figure.add_axes((0.03, 0.5 / tall, 0.94, 1 - 0.56 / tall))
    edges = np.linspace(low, high, BINS + 1)
    words = []
    for i, (ridge, values) in enumerate(zip(ridges, finite, strict=True)):
        base = float(len(ridges) - 1 - i)
        words.append(_ridge(axes, ridge, values, edges, base, digits))
    if line is not None:
        axes.axvline(line, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        words.append(f"threshold {line:.3g}")
    axes.set_xlim(low, high)
    axes.set_ylim(-0.04, len(ridges) - 0.02)
    axes.set_yticks([])
    plain(axes, label)
    return Plot(title, f"{title}: {'; '.join(words)}", inline(figure, salt))


def _ridge(
    axes: Axes,
    ridge: Ridge,
    values: NDArray[np.float64],
    edges: NDArray[np.float64],
    base: float,
    digits: int,
) -> str:
    """Draw one distribution; returns it in words."""
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    height = counts / max(1, counts.max()) * 0.56
    axes.stairs(
        base + height,
        edges,
        baseline=base,
        fill=True,
        facecolor=(ridge.colour, 0.5),
        edgecolor=ridge.colour,
        linewidth=0.8,
    )
    axes.axhline(base, color=INK, linewidth=0.5, alpha=0.35)
    left, right = edges[0], edges[-1]
    axes.text(left, base + 0.66, short(ridge.label), fontsize=8.5, va="bottom", color=INK)
    if not len(values):
        axes.text(
            right, base + 0.66, "no finite value", fontsize=8.5, ha="right", va="bottom", color=INK
        )
        return f"{ridge.label}: no finite value"
    median = float(np.median(values))
    axes.plot([median, median], [base, base + 0.56], color=INK, linewidth=1.4)
    text = f"median {median:.{digits}f}"
    missing = len(ridge.values) - len(values)
    if missing:
        text += f", {missing} not finite"
    axes.text(right, base + 0.66, text, fontsize=8.5, ha="right", va="bottom", color=INK)
    return f"{ridge.label}: {text}"


def _range(columns: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Axis limits: all but the outermost 0.2 % of values, which are drawn at the edges."""
    values = [column for column in columns if len(column)]
    if not values:
        return 0.0, 1.0
    low = min(float(np.quantile(column, 0.002)) for column in values)
    high = max(float(np.quantile(column, 0.998)) for column in values)
    spread = high - low or max(abs(high), 1.0) * 0.1
    return low - 0.02 * spread, high + 0.02 * spread
