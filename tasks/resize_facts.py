"""What a report says of the resize in front of the model: how much an attack can hide from it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from defender.scaling import Pipeline
from defender.scaling.audit import Audit, audit, method_name, table
from tasks.columns import Columns
from tasks.counted import attacks, counted
from tasks.nodes import Node
from tasks.survey import Survey

Size = tuple[int, int]

LISTED = 6
"""Source sizes that are listed, the most frequent ones."""


@dataclass(frozen=True)
class Source:
    """A size of images in the dataset.

    Args:
        images: how many have it.
        audit: of the resize from this size.
    """

    images: int
    audit: Audit


@dataclass(frozen=True)
class Bound:
    """How close an attack's images come to the originals, and how close any could.

    Args:
        attack: label of the attack.
        images: how many have both figures.
        seen: mean PSNR of the resized attack image to the resized original, dB.
        bound: mean of the same plus the hiding gain of the image's size: what no image that is
            resized to the same picture exceeds, dB.
        measured: mean PSNR of the attack image to the original, dB.
        margin: smallest distance of an image from its bound, dB.
    """

    attack: str
    images: int
    seen: float
    bound: float
    measured: float
    margin: float


@dataclass(frozen=True)
class Resize:
    """The resize of a run.

    Args:
        method: library and algorithm.
        target: height and width the model sees.
        images: of the dataset.
        sources: the most frequent sizes, the most frequent first.
        more_sizes: how many sizes are not listed.
        more_images: how many images have these.
        others: an audit of every method that libraries offer, from the most frequent size.
        bounds: one an attack that hides pictures.
    """

    method: str
    target: Size
    images: int
    sources: list[Source]
    more_sizes: int
    more_images: int
    others: list[Audit]
    bounds: list[Bound]


def resize_facts(state: Survey, columns: Columns) -> Resize | None:
    """What is known of a run's resize, or None where it has none."""
    pipeline = state.bench.pipeline
    if pipeline is None:
        return None
    found = Counter(_sizes(columns)).most_common()
    listed = found[:LISTED]
    sources = [Source(images, audit(pipeline.scaler(size))) for size, images in listed]
    most = sources[0].audit.scaler
    hiding = [node for node in attacks(state) if "target" in node.inputs]
    bounds = [_bound(columns, pipeline, node) for node in hiding]
    return Resize(
        method=method_name(most),
        target=most.target,
        images=sum(images for _, images in found),
        sources=sources,
        more_sizes=len(found) - len(listed),
        more_images=sum(images for _, images in found[LISTED:]),
        others=[row[0] for row in table([(most.source, most.target)])],
        bounds=[bound for bound in bounds if bound is not None],
    )


def _sizes(columns: Columns) -> list[Size]:
    heights, widths = (columns.column("ingest", name).tolist() for name in ("height", "width"))
    return list(zip(heights, widths, strict=True))


def _bound(columns: Columns, pipeline: Pipeline, attack: Node) -> Bound | None:
    """The bound on the attack images of a run, or None where the columns do not allow one."""
    score = f"score/{attack.attack}/none"
    if not {"psnr", "scaled_psnr"} <= set(columns.table(score).schema.names):
        return None
    gains = {size: pipeline.scaler(size).hiding_gain() for size in set(_sizes(columns))}
    gain = np.array([gains[size] for size in _sizes(columns)])
    seen, measured = (
        columns.column(score, name).astype(np.float64) for name in ("scaled_psnr", "psnr")
    )
    usable = counted(columns) & np.isfinite(seen) & np.isfinite(measured)
    if not usable.any():
        return None
    bound = (seen + gain)[usable]
    return Bound(
        attack=attack.attack,
        images=int(usable.sum()),
        seen=float(seen[usable].mean()),
        bound=float(bound.mean()),
        measured=float(measured[usable].mean()),
        margin=float((bound - measured[usable]).min()),
    )
