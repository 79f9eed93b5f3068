"""The picture grids of a report: what an attack and a purifier did to the best, median and worst.

The few images shown are read from their chunks, and a purifier's masks and layers are computed
anew for them, at the run's compute batch and with the seeds of their chunk, so that they belong
to the stored result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from defender.metrics import METRICS
from defender.norms import from_uint8, to_uint8
from storage.images import Pixels, read_images
from tasks.batches import batches
from tasks.chunk import Chunk
from tasks.encoding import (
    Picture,
    amplification,
    amplified,
    change_of,
    picture,
    side_for,
)
from tasks.plan import Node
from tasks.summary import Columns
from tasks.survey import Survey

ORDERS = (
    ("loss", "lower"),
    ("psnr", "higher"),
    ("ssim", "higher"),
    ("l2", "lower"),
    ("linf", "lower"),
    ("l2_moved", "lower"),
)
"""Columns by which images are ranked, the first that has values, and which end is best."""
WORDS = {"psnr": "PSNR", "ssim": "SSIM", "l2": "L2", "linf": "L\u221e", "l2_moved": "L2 moved"}
"""Names of these columns as they are printed."""
ROOM = 2_000_000
"""Bytes of all pictures of a report together, about."""
TYPICAL = 28_000
"""Bytes of a row of small pictures, about."""


@dataclass(frozen=True)
class Strip:
    """One image of a grid, as it was before, between and after.

    Args:
        rank: ``"best"``, ``"median"``, ``"worst"`` or its place between them.
        place: its rank among all images, from 1.
        name: its name in the dataset.
        truth: its true class, empty where it is not known.
        value: the figure it was ranked by.
        pictures: in the order of the columns.
    """

    rank: str
    place: int
    name: str
    truth: str
    value: str
    pictures: list[Picture]


@dataclass(frozen=True)
class Grid:
    """The pictures of an attack and a purifier.

    Args:
        attack: label of the attack.
        purifier: label of the purifier, ``"none"`` for the attack alone.
        knowledge: what the purifier is told.
        order: the figure by which images are ranked.
        images: how many images were ranked.
        factor: amplification of the difference.
        drift: largest deviation, in 255ths, of what was computed anew from what is stored.
        strips: best to worst.
    """

    attack: str
    purifier: str
    knowledge: str
    order: str
    images: int
    factor: int
    drift: int
    strips: list[Strip]

    @property
    def roles(self) -> list[str]:
        """Headings of the columns."""
        return [shown.role for shown in self.strips[0].pictures]

    @property
    def bytes(self) -> int:
        """Size of the pictures in the page."""
        return sum(len(shown.uri) for strip in self.strips for shown in strip.pictures)


@dataclass
class _Example:
    """An image to be shown."""

    rank: str
    place: int
    index: int
    chunk: int
    position: int
    clean: Pixels = field(repr=False)
    before: Pixels = field(repr=False)
    after: Pixels = field(repr=False)
    seed: torch.Tensor = field(repr=False)
    parts: dict[str, NDArray[Any]] = field(default_factory=dict, repr=False)
    masks: set[str] = field(default_factory=set)
    said: dict[str, tuple[int, float]] = field(default_factory=dict)


def all_grids(state: Survey, columns: Columns, count: int) -> tuple[list[Grid], int]:
    """The grids of a run, as many as a page can bear.

    Args:
        state: a finished run.
        columns: its per-image columns.
        count: images a grid, 0 for no grids; fewer are shown where there are very many grids.

    Returns:
        The grids in the order of the plan, and how many more there would have been.
    """
    kind = "purify" if state.bench.spec.purifiers else "attack"
    nodes = [node for node in state.plan if node.kind == kind and node.attack != "none"]
    if not count or not nodes:
        return [], 0
    count = max(1, min(count, ROOM // (len(nodes) * TYPICAL)))
    side = side_for(ROOM, len(nodes) * count * 6)
    grids: list[Grid] = []
    used = 0
    for node in nodes:
        if used > ROOM:
            break
        grids.append(example_grid(state, node, columns, count, side=side))
        used += grids[-1].bytes
    return grids, len(nodes) - len(grids)


def example_grid(
    state: Survey, node: Node, columns: Columns, count: int, *, side: int = 160
) -> Grid:
    """The pictures of one attack, alone or before a purifier.

    Args:
        state: a finished run.
        node: of kind ``attack`` or ``purify``.
        columns: the run's per-image columns.
        count: images to show, at least 1; they lie evenly between the best and the worst.
        side: longest side in pixels of pictures that are too large to be shown whole.
    """
    score = f"score/{node.attack}/{node.purifier}"
    order, ranked = _ranking(columns, score)
    examples = [
        _read(state, node, place, *_locate(state, int(ranked[place])), index=int(ranked[place]))
        for place in _places(len(ranked), count)
    ]
    for example in examples:
        example.rank = _rank(example.place - 1, len(ranked), len(examples))
    if node.kind == "purify":
        _compute_parts(state, node, examples)
    changes = [change_of(e.clean, e.before) for e in examples if e.clean.shape == e.before.shape]
    factor = amplification(changes)
    values = columns.column(score, order)
    return Grid(
        attack=node.attack,
        purifier=node.purifier,
        knowledge=_knowledge(state, node),
        order=WORDS.get(order, order),
        images=len(ranked),
        factor=factor,
        drift=max((_drift(example) for example in examples), default=0),
        strips=[
            Strip(
                rank=example.rank,
                place=example.place,
                name=str(columns.table("ingest").column("name")[example.index].as_py()),
                truth=_truth(state, columns, example.index),
                value=figure(order, float(values[example.index])),
                pictures=_pictures(state, node, columns, example, factor, side),
            )
            for example in examples
        ],
    )


def figure(name: str, value: float) -> str:
    """A column's value with its name and unit."""
    unit = METRICS[name].unit if name in METRICS and METRICS[name].unit == "dB" else ""
    text = f"{value:.2f}" if abs(value) >= 0.005 or not value else f"{value:.1e}"
    return f"{WORDS.get(name, name)} {text} {unit}".rstrip()


def class_name(state: Survey, number: int) -> str:
    """Name of a class, or its number where it has none."""
    names = state.bench.dataset.source.classes or ()
    return names[number] if 0 <= number < len(names) else f"class {number}"


def _ranking(columns: Columns, score: str) -> tuple[str, NDArray[np.int64]]:
    """The column that ranks the images, and their positions from best to worst."""
    known = columns.table(score).schema.names
    for name, better in ORDERS:
        if name not in known:
            continue
        values = columns.column(score, name).astype(np.float64)
        usable = np.flatnonzero(~np.isnan(values))
        if len(usable):
            signed = values[usable] if better == "lower" else -values[usable]
            return name, usable[np.argsort(signed, kind="stable")]
    confidence = columns.column(score, "confidence").astype(np.float64)
    return "confidence", np.argsort(-confidence, kind="stable")


def _places(total: int, count: int) -> list[int]:
    if count == 1:
        return [(total - 1) // 2]
    count = min(count, total)
    return sorted({round(i * (total - 1) / max(1, count - 1)) for i in range(count)})


def _rank(place: int, total: int, shown: int) -> str:
    if shown > 1 and place == 0:
        return "best"
    if shown > 1 and place == total - 1:
        return "worst"
    if abs(place - (total - 1) / 2) <= 0.5:
        return "median"
    return f"{100 * place / max(1, total - 1):.0f} % down"


def _locate(state: Survey, index: int) -> tuple[int, int]:
    """Number of the chunk that holds an image, and its position there."""
    for chunk in range(state.chunks):
        images = state.done[("ingest", chunk)].images
        if index < images:
            return chunk, index
        index -= images
    raise IndexError(f"expected an image of the dataset, got {index} beyond its end")


def _read(
    state: Survey, node: Node, place: int, chunk: int, position: int, *, index: int
) -> _Example:
    store = state.bench.store

    def stored(name: str) -> Pixels:
        return read_images(store.images(state.done[(name, chunk)].ref))[position]

    inputs = {role: state.done[(name, chunk)] for role, name in node.inputs.items()}
    whole = Chunk(state.bench, node, chunk, inputs, state.done[("ingest", chunk)])
    before = stored(f"attack/{node.attack}")
    return _Example(
        rank="",
        place=place + 1,
        index=index,
        chunk=chunk,
        position=position,
        clean=stored("ingest"),
        before=before,
        after=stored(node.name) if node.kind == "purify" else before,
        seed=whole.seeds()[position],
    )


def _compute_parts(state: Survey, node: Node, examples: Sequence[_Example]) -> None:
    """Masks and layers of the examples, padded to the compute batch they were stored with."""
    bench = state.bench
    purifier = bench.purifiers[node.position]
    seeds = torch.stack([example.seed for example in examples])
    clean = [example.clean for example in examples]
    for batch in batches([example.before for example in examples], bench.rule):
        images = batch.stack([example.before for example in examples], bench.device)
        reference = batch.stack(clean, bench.device) if "reference" in node.inputs else None
        parts = purifier.parts(images, seeds=batch.pick(seeds), reference=reference)
        for name, values in parts.items():
            masked = values.dtype == torch.bool
            pixels = values.to(torch.uint8) * 255 if masked else to_uint8(values)
            for position, array in zip(batch.index, pixels.cpu().numpy(), strict=False):
                examples[position].parts[name] = array
                if masked:
                    examples[position].masks.add(name)
            silent = masked or not bench.has_model
            if silent or name == "purified" or values.shape != images.shape:
                continue
            with torch.no_grad():
                confidence, prediction = bench.model(from_uint8(pixels)).softmax(1).max(1)
            for at, position in enumerate(batch.index):
                said = int(prediction[at]), float(confidence[at])
                examples[position].said[name] = said


def _drift(example: _Example) -> int:
    computed = example.parts.get("purified")
    if computed is None:
        return 0
    if computed.shape != example.after.shape:
        return 255
    return int(np.abs(change_of(computed, example.after)).max(initial=0))


def _knowledge(state: Survey, node: Node) -> str:
    if node.kind != "purify":
        return "none"
    return str(state.bench.purifiers[node.position].knowledge)


def _truth(state: Survey, columns: Columns, index: int) -> str:
    label = int(columns.column("ingest", "label")[index])
    return class_name(state, label) if label >= 0 else ""


def _pictures(
    state: Survey, node: Node, columns: Columns, example: _Example, factor: int, side: int
) -> list[Picture]:
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
