"""The picture grids of a report: what attack and purifier did to the best, median and worst."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defender.metrics import METRICS
from tasks.columns import Columns
from tasks.counted import attacks, counted
from tasks.encoding import Picture, amplification, change_of, side_for
from tasks.examples import compute_parts, drift, read_example
from tasks.nodes import Node
from tasks.strips import pictures_of, true_class
from tasks.survey import Survey

ORDERS = (
    ("loss", "lower"),
    ("target_psnr", "lower"),
    ("scaled_psnr", "higher"),
    ("psnr", "higher"),
    ("ssim", "higher"),
    ("l2", "lower"),
    ("linf", "lower"),
    ("likeness", "higher"),
    ("l2_moved", "lower"),
)
"""Columns by which images are ranked, the first that has values, and which end is best. What was
hidden ranks attacked images only: a purified one that shows nothing at all is furthest from it."""
WORDS = {
    "target_psnr": "PSNR to hidden",
    "scaled_psnr": "PSNR scaled",
    "psnr": "PSNR",
    "ssim": "SSIM",
    "l2": "L2",
    "linf": "L\u221e",
    "l2_moved": "L2 moved",
    "likeness": "quality",
}
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


def all_grids(state: Survey, columns: Columns, count: int) -> tuple[list[Grid], int]:
    """The grids of a run, as many as a page can bear.

    Args:
        state: a finished run.
        columns: its per-image columns.
        count: images a grid, 0 for no grids; fewer are shown where there are very many grids.

    Returns:
        The grids of attacks in the order of the plan, and how many more there would have been.
    """
    nodes: list[Node] = []
    for attack in attacks(state):
        purified = [n for n in state.plan if n.kind == "purify" and n.attack == attack.attack]
        nodes += purified or [attack]
    if not count or not nodes:
        return [], 0
    count = max(1, min(count, ROOM // (len(nodes) * TYPICAL)))
    side = side_for(ROOM, len(nodes) * count * (6 if state.bench.pipeline is None else 9))
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
    order, ranked = ranking(columns, node)
    examples = [
        read_example(state, node, place, int(ranked[place]))
        for place in _places(len(ranked), count)
    ]
    for example in examples:
        example.rank = _rank(example.place - 1, len(ranked), len(examples))
    if node.kind == "purify":
        compute_parts(state, node, examples)
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
        drift=max((drift(example) for example in examples), default=0),
        strips=[
            Strip(
                rank=example.rank,
                place=example.place,
                name=str(columns.table("ingest").column("name")[example.index].as_py()),
                truth=true_class(state, columns, example.index),
                value=figure(order, float(values[example.index])),
                pictures=pictures_of(state, node, columns, example, factor, side),
            )
            for example in examples
        ],
    )


def figure(name: str, value: float) -> str:
    """A column's value with its name and unit."""
    unit = METRICS[name].unit if name in METRICS and METRICS[name].unit == "dB" else ""
    text = f"{value:.2f}" if abs(value) >= 0.005 or not value else f"{value:.1e}"
    return f"{WORDS.get(name, name)} {text} {unit}".rstrip()


def ranking(columns: Columns, node: Node) -> tuple[str, NDArray[np.int64]]:
    """The column that ranks attacked or purified images, and positions from best to worst."""
    score = f"score/{node.attack}/{node.purifier}"
    known = columns.table(score).schema.names
    among = counted(columns)
    for name, better in ORDERS:
        if name not in known or (name == "target_psnr" and node.kind == "purify"):
            continue
        values = columns.column(score, name).astype(np.float64)
        usable = np.flatnonzero(~np.isnan(values) & among)
        if len(usable):
            signed = values[usable] if better == "lower" else -values[usable]
            return name, usable[np.argsort(signed, kind="stable")]
    name = "confidence" if "confidence" in known else "score"
    values = columns.column(score, name).astype(np.float64)
    usable = np.flatnonzero(among)
    return name, usable[np.argsort(-values[usable], kind="stable")]


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


def _knowledge(state: Survey, node: Node) -> str:
    if node.kind != "purify":
        return "none"
    return str(state.bench.purifiers[node.position].knowledge)
