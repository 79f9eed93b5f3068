"""Images of a report with the heat maps that were made of them, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from defender.explain import overlay
from defender.norms import from_uint8
from storage.images import Pixels, read_images
from tasks.columns import Columns
from tasks.counted import attacks, counted
from tasks.encoding import Picture, picture, side_for
from tasks.examples import locate
from tasks.nodes import CALM, Node
from tasks.patch_stages import CLASSES, SIDES
from tasks.strips import class_name, true_class
from tasks.survey import Survey

ROOM = 1_500_000
"""Bytes of all pictures with heat maps together, about."""
MOST = 3
"""Images an attack, at most."""
PURIFIED = 2
"""Purifiers that are shown, those that leave the best accuracy."""


@dataclass(frozen=True)
class Framed:
    """A picture, and where in it a patch is.

    Args:
        shown: the picture.
        box: left, top, width and height in percent of the picture, None where there is no patch.
    """

    shown: Picture
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class HeatStrip:
    """One image: clean, attacked and purified, each with its heat maps.

    Args:
        name: its name in the dataset.
        truth: its true class, empty where it is not known.
        pictures: in reading order.
    """

    name: str
    truth: str
    pictures: list[Framed]


@dataclass(frozen=True)
class HeatGrid:
    """The images of an attack with their heat maps.

    Args:
        attack: label of the attack.
        fooled: images that the model gets right when clean and as the attack wants after it.
        strips: some of them, or of all images where there are none.
    """

    attack: str
    fooled: int
    strips: list[HeatStrip]


def heat_grids(state: Survey, columns: Columns, count: int) -> list[HeatGrid]:
    """Images with heat maps, for every attack that heat maps were made of, controls left out.

    Args:
        state: a finished run.
        columns: its per-image columns.
        count: images an attack, at most :data:`MOST`; 0 for none.
    """
    chosen = [
        node
        for node in attacks(state)
        if f"explain/{node.attack}/none" in state.plan.nodes
        and state.bench.attacks[node.position].threat not in CALM
    ]
    count = min(count, MOST)
    if not chosen or not count:
        return []
    each = 5 + 2 * PURIFIED
    count = max(1, min(count, ROOM // (len(chosen) * each * 4_000)))
    side = side_for(ROOM, len(chosen) * count * each)
    return [_Grid(state, columns, node, side).made(count) for node in chosen]


class _Grid:
    """Makes the strips of one attack.

    Args:
        state: a finished run.
        columns: its per-image columns.
        node: the attack.
        side: longest side in pixels of pictures that are too large to be shown whole.
    """

    def __init__(self, state: Survey, columns: Columns, node: Node, side: int) -> None:
        self.state = state
        self.columns = columns
        self.node = node
        self.side = side
        self.labels = columns.column("ingest", "label")
        self.boxed = state.bench.attacks[node.position].budget == "patch"

    def made(self, count: int) -> HeatGrid:
        """The strips of so many images."""
        fooled, indices = self._chosen(count)
        attack = self.node.attack
        purifiers = self._purifiers()
        named = [("ingest", "none", "none"), (self.node.name, attack, "none")]
        named += [(f"purify/{attack}/{one}", attack, one) for one in purifiers]
        strips: dict[int, list[Framed]] = {index: [] for index in indices}
        for source, of, purifier in named:
            pixels = _stored(self.state, source, indices)
            heat = _stored(self.state, f"explain/{of}/{purifier}", indices)
            for index in indices:
                strips[index] += self._pictures(index, pixels[index], heat[index], of, purifier)
        names = self.columns.table("ingest").column("name")
        return HeatGrid(
            attack,
            fooled,
            [
                HeatStrip(
                    str(names[index].as_py()),
                    true_class(self.state, self.columns, index),
                    strips[index],
                )
                for index in indices
            ],
        )

    def _chosen(self, count: int) -> tuple[int, list[int]]:
        """How many images the attack fooled, and positions of some, from sure to unsure."""
        clean = self.columns.column("score/none/none", "prediction")
        score = f"score/{self.node.attack}/none"
        after = self.columns.column(score, "prediction")
        target = self.state.bench.spec.attacks[self.node.position].target
        known = counted(self.columns)
        truth = np.where(self.labels >= 0, self.labels, clean)
        met = after != truth if target is None else (after == target) & (truth != target)
        fooled = np.flatnonzero(known & (clean == truth) & met)
        among = fooled if len(fooled) else np.flatnonzero(known)
        sure = self.columns.column(score, "confidence")[among]
        ranked = among[np.argsort(-sure, kind="stable")]
        # the middles of equal parts: neither the surest nor the least sure one
        places = {int((i + 0.5) * len(ranked) / count) for i in range(count)}
        return len(fooled), [int(ranked[place]) for place in sorted(places)]

    def _purifiers(self) -> list[str]:
        """Labels of the purifiers that leave the model right most often, deployable ones only."""
        known = counted(self.columns)
        found: list[tuple[float, str]] = []
        for node in self.state.plan:
            if node.kind != "purify" or node.attack != self.node.attack:
                continue
            if self.state.bench.purifiers[node.position].knowledge != "reference":
                name = f"score/{node.attack}/{node.purifier}"
                right = self.columns.column(name, "prediction") == self._truth()
                found.append((-float(right[known].mean()), node.purifier))
        return [label for _, label in sorted(found)[:PURIFIED]]

    def _truth(self) -> NDArray[np.int64]:
        clean = self.columns.column("score/none/none", "prediction")
        return np.where(self.labels >= 0, self.labels, clean)

    def _pictures(
        self, index: int, pixels: Pixels, heat: Pixels, attack: str, purifier: str
    ) -> list[Framed]:
        """An image, and the heat maps of the predicted and, if another, the true class."""
        score = f"score/{attack}/{purifier}"
        predicted = int(self.columns.column(score, "prediction")[index])
        confidence = float(self.columns.column(score, "confidence")[index])
        label = int(self.labels[index])
        box = None if attack == "none" or not self.boxed else self._box(index, pixels)
        verdict = "" if label < 0 else "right" if predicted == label else "wrong"
        role = "clean" if attack == "none" else "attacked" if purifier == "none" else purifier
        said = f"{class_name(self.state, predicted)}, {100 * confidence:.0f}\u00a0%"
        subject = str(self.columns.table("ingest").column("name")[index].as_py())
        shown = [
            picture(role, pixels, self.side, subject=subject, caption=said, verdict=verdict),
        ]
        asked = [predicted] if label in (-1, predicted) else [predicted, label]
        for which, number in zip(range(len(CLASSES)), asked, strict=False):
            laid = _laid(pixels, heat[which])
            caption = f"for {class_name(self.state, number)}"
            of = f"{role} {subject}"
            shown.append(picture("heat map", laid, self.side, subject=of, caption=caption))
        return [Framed(one, box) for one in shown]

    def _box(self, index: int, pixels: Pixels) -> tuple[float, float, float, float]:
        """Left, top, width and height of the patch in percent."""
        top, left, tall, wide = (
            float(self.columns.column(self.node.name, name)[index]) for name in SIDES
        )
        height, width = pixels.shape[1:]
        return 100 * left / width, 100 * top / height, 100 * wide / width, 100 * tall / height


def _stored(state: Survey, name: str, indices: Sequence[int]) -> dict[int, Pixels]:
    """Stored images of a node by position in the dataset, each chunk being read once."""
    found: dict[int, Pixels] = {}
    places = {index: locate(state, index) for index in indices}
    for chunk in sorted({chunk for chunk, _ in places.values()}):
        images = read_images(state.bench.store.images(state.done[(name, chunk)].ref))
        found |= {i: images[at].copy() for i, (own, at) in places.items() if own == chunk}
    return found


def _laid(pixels: Pixels, heat: Pixels) -> Pixels:
    """A heat map (h, w) in colour over its image; one of another size is brought to the image's."""
    image = from_uint8(torch.from_numpy(np.ascontiguousarray(pixels[:3])))
    warm = from_uint8(torch.from_numpy(np.ascontiguousarray(heat)))
    if warm.shape != image.shape[1:]:
        size = list(image.shape[1:])
        warm = torch.nn.functional.interpolate(warm[None, None], size, mode="bilinear")[0, 0]
    made: Pixels = overlay(image if len(image) == 3 else image[:1], warm).numpy()
    return made
