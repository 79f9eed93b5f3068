"""What the page of a scan shows: suspects as they are and as the model gets them, and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from storage.images import Pixels, read_images
from tasks.decision import Decision
from tasks.encoding import CRISP, Picture, picture, side_for
from tasks.examples import locate, seen_by_model
from tasks.scan import suspects_of
from tasks.survey import Survey

PICTURED = 200
"""Suspects that the page shows pictures of, at most."""
ROOM = 4_000_000
"""Bytes of all pictures of a page together, about, where targets are small."""
LARGEST = 320
"""Pixels a side up to which what the model gets is shown pixel for pixel."""
BINS = 48
TALL, LOWEST = 20.0, 0.4
"""Height of the highest bar, and of one with a single image among many."""
OUTERMOST = 0.002


@dataclass(frozen=True)
class Score:
    """What a detector says of an image."""

    label: str
    value: float
    threshold: float | None
    flagged: bool
    decides: bool


@dataclass(frozen=True)
class Suspect:
    """An image that the page shows.

    Args:
        rank: 1 for the worst.
        name: its name in the dataset.
        height, width: pixels.
        count: detectors that flag it.
        calibrated: its size is among those of the benign images.
        pictures: as it is, and as the pipeline makes it.
        scores: of each detector.
    """

    rank: int
    name: str
    height: int
    width: int
    count: int
    calibrated: bool
    pictures: list[Picture]
    scores: list[Score]


@dataclass(frozen=True)
class Bar:
    """A bin of a histogram that holds images: its place from 0, and its height in [0, 20]."""

    place: int
    height: float
    beyond: bool


@dataclass(frozen=True)
class Histogram:
    """The scores of a detector over all images of a scan, in 48 bins.

    Args:
        bars: the bins with images, from the lowest scores to the highest.
        line: place of the threshold among the bins, from 0 to 48; None without one.
        low, high: scores at the edges; those outside are drawn there.
    """

    bars: list[Bar]
    line: float | None
    low: float
    high: float


def pictured(
    state: Survey, table: pa.Table, decision: Decision, count: int = PICTURED
) -> list[Suspect]:
    """The worst suspects with their pictures.

    Args:
        state: a finished scan.
        table: its rows, from :func:`tasks.scan.scan_table`.
        decision: rule and thresholds.
        count: suspects to show, at most.
    """
    positions = {name: i for i, name in enumerate(table["id"].to_pylist())}
    rows = suspects_of(table).slice(0, count).to_pylist()
    images = _read(state, [positions[row["id"]] for row in rows])
    side = min(side_for(ROOM, 2 * len(rows)), _target_side(state))
    return [
        Suspect(
            rank=row["rank"],
            name=row["name"],
            height=row["height"],
            width=row["width"],
            count=row["count"],
            calibrated=row["calibrated"],
            pictures=_pictures(state, row["name"], image, side),
            scores=[
                Score(
                    label,
                    row[f"score_{label}"],
                    threshold.value,
                    row[f"flag_{label}"],
                    label in decision.rule.deciding,
                )
                for label, threshold in decision.thresholds.items()
            ],
        )
        for row, image in zip(rows, images, strict=True)
    ]


def _read(state: Survey, positions: Sequence[int]) -> list[Pixels]:
    """Images by their positions in the dataset; a chunk is read once, and kept no longer."""
    chunks: dict[int, list[tuple[int, int]]] = {}
    for place, position in enumerate(positions):
        chunk, inside = locate(state, position)
        chunks.setdefault(chunk, []).append((place, inside))
    found: dict[int, Pixels] = {}
    for chunk, wanted in chunks.items():
        images = read_images(state.bench.store.images(state.done[("ingest", chunk)].ref))
        found |= {place: images[inside].copy() for place, inside in wanted}
    return [found[place] for place in range(len(positions))]


def _target_side(state: Survey) -> int:
    """Side at which what the model gets is shown: its own, unless that is very large."""
    pipeline = state.bench.pipeline
    return LARGEST if pipeline is None else min(LARGEST, max(pipeline.target))


def _pictures(state: Survey, name: str, image: Pixels, side: int) -> list[Picture]:
    seen = seen_by_model(state.bench, image)
    whole, reduced = max(side, CRISP), max(_target_side(state), CRISP)
    return [
        picture("as it is", image, whole, subject=name),
        picture("as the model gets it", seen, reduced, subject=name),
    ]


def histograms(table: pa.Table, decision: Decision) -> dict[str, Histogram]:
    """The distribution of each detector's scores over all images, by label."""
    return {
        label: _histogram(table[f"score_{label}"].to_numpy(), threshold.value)
        for label, threshold in decision.thresholds.items()
    }


def _histogram(scores: NDArray[np.float64], threshold: float | None) -> Histogram:
    values = scores[np.isfinite(scores)]
    limit = [] if threshold is None else [threshold]
    inner = np.quantile(values, [OUTERMOST, 1 - OUTERMOST]) if len(values) else np.zeros(2)
    low, high = float(min([*inner, *limit])), float(max([*inner, *limit]))
    margin = 0.02 * ((high - low) or max(abs(high), 1.0))
    edges = np.linspace(low - margin, high + margin, BINS + 1)
    if limit:
        # a score at the threshold is not beyond it
        limit = [float(np.nextafter(limit[0], np.inf))]
        edges[int(np.abs(edges - limit[0]).argmin())] = limit[0]
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    bars = [
        Bar(i, max(LOWEST, TALL * float(n / counts.max())), bool(limit and edges[i] >= limit[0]))
        for i, n in enumerate(counts)
        if n
    ]
    line = float(np.searchsorted(edges, limit[0])) if limit else None
    return Histogram(bars, line, float(edges[0]), float(edges[-1]))
