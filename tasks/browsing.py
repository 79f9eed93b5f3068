"""The images of a stored run: filtered, ordered, a page at a time; nothing is computed anew.

Only the columns that are asked for are read, as arrays of numbers, and a bounded number of them is
kept. Pictures are not read here: see :mod:`tasks.stored_pictures`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.bounded import Bounded
from tasks.stored_images import StoredImages, StoredNode
from tasks.views import DETECTOR, ORDERS, Answer, Flag, Page, Pane, Shot, View

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

PAGE = 24
"""Images of a page."""
KEPT = 96 << 20
"""Bytes of columns and orders that are kept, at most."""
WORSE_WHEN_HIGH = (
    "linf",
    "l2",
    "linf_moved",
    "l2_moved",
    "loss",
    "gain",
    "target_psnr",
    "o1",
    "o2",
)
"""Columns of which the defender wants low values; of the others it wants high ones."""
UNORDERED = ("label", "prediction", "target_prediction", "person", "score")
"""Columns of numbers that have no better or worse."""

_columns: Bounded[NDArray[Any]] = Bounded(KEPT, size=lambda array: array.nbytes + 100)


class Gallery:
    """The images of a run, to be looked at.

    Args:
        run: where its rows and pictures are.
    """

    def __init__(self, run: StoredImages) -> None:
        self.run = run

    # what can be chosen

    @property
    def attacks(self) -> list[str]:
        """Labels of the attacks, ``"none"`` last."""
        return [*(node.attack for node in self.run.of("attack")), "none"]

    def purifiers(self, attack: str) -> list[str]:
        """Labels of the purifiers that were tried on an attack, ``"none"`` last."""
        tried = [node.purifier for node in self.run.of("purify") if node.attack == attack]
        return [*tried, "none"]

    def detectors(self, attack: str) -> list[str]:
        """Labels of the detectors that were tried on an attack."""
        return [node.detector for node in self.run.of("detect") if node.attack == attack]

    def shows(self, view: View) -> list[str]:
        """The filters that mean something for an attack and a purifier."""
        found = ["all"]
        if self._answered(view):
            if view.attack == "none":
                found.append("wrong")
            elif view.purifier == "none":
                found.append("fooled")
            else:
                found += ["fooled", "restored", "wrong"]
        if self.detectors(view.attack):
            found.append("flagged")
        return found

    def columns(self, view: View) -> list[str]:
        """What images can be ordered by."""
        types = self.run.types(self._score(view.attack, view.purifier))
        numeric = [
            name
            for name, kind in types.items()
            if name not in UNORDERED and (pa.types.is_floating(kind) or pa.types.is_integer(kind))
        ]
        gain = ["gain"] if self._judged(view) and view != View() else []
        return [*gain, *numeric, *(DETECTOR + label for label in self.detectors(view.attack))]

    def settled(self, view: View) -> View:
        """The view with what the run does not have replaced by what it has."""
        attack = view.attack if view.attack in self.attacks else self.attacks[0]
        offered = self.purifiers(attack)
        purifier = view.purifier if view.purifier in offered else "none"
        known = self.detectors(attack)
        detector = view.detector if view.detector in known else (known[0] if known else "")
        made = View(attack, purifier, "all", detector, "", "place", view.search[:200])
        columns = self.columns(made)
        by = view.by if view.by in columns else (columns[0] if columns else "")
        show = view.show if view.show in self.shows(made) else "all"
        order = view.order if view.order in ORDERS and by else "place"
        return View(attack, purifier, show, detector, by, order, made.search)

    # what is shown

    def page(self, view: View, number: int = 1, size: int = PAGE) -> Page:
        """A page of images.

        Args:
            view: of :meth:`settled`.
            number: of the page, from 1; the last one where there are fewer.
            size: images of a page.

        Raises:
            DamagedChunk: where the rows cannot be read.
        """
        rows = self.rows(view)
        pages = max(1, math.ceil(len(rows) / size))
        number = min(max(1, number), pages)
        chosen = rows[(number - 1) * size : number * size]
        shots = list(self._shots(view, chosen)) if len(chosen) else []
        return Page(shots, number, pages, len(rows), self.run.count)

    def rows(self, view: View) -> NDArray[np.int64]:
        """Numbers of the rows that a view leaves, in its order."""
        key = (self.run.digest, view)
        return _columns.get(key, lambda: self._chosen(view))

    def _chosen(self, view: View) -> NDArray[np.int64]:
        mask = self._shown(view)
        if view.search:
            fits = pc.match_substring(self.run.names, view.search, ignore_case=True)
            mask = mask & fits.to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(mask)
        if view.order == "place" or not view.by:
            return rows
        good = self._goodness(view)[rows]
        unknown = np.isnan(good)
        key = np.where(unknown, 0.0, good if view.order == "worst" else -good)
        # what is not known comes last either way; equal ones stay in their places
        return np.asarray(rows[np.lexsort((key, unknown))], dtype=np.int64)

    def _shown(self, view: View) -> Mask:
        there = self.run.there(self._score(view.attack, view.purifier))
        there = there & self.run.there(self._score(view.attack, "none"))
        if view.show == "flagged":
            threshold = self.run.thresholds.get(view.detector)
            if threshold is None:
                return np.zeros_like(there)
            node = self.run.node("detect", view.attack, detector=view.detector)
            return np.asarray(there & (self._numbers(node, "score") > threshold))
        if view.show == "all" or not self._answered(view):
            return there
        final = self._predictions(view.attack, view.purifier)
        if view.attack == "none":
            return np.asarray(there & (final != self._truth))
        fooled = there & self._fooled(view.attack)
        if view.show == "restored":
            return np.asarray(fooled & (final == self._truth))
        return np.asarray(fooled & (final != self._truth)) if view.show == "wrong" else fooled

    def _fooled(self, attack: str) -> Mask:
        """Images of which the attack reached its goal, as the score card counts them."""
        prediction, clean = self._predictions(attack, "none"), self._predictions("none", "none")
        target = self.run.node("attack", attack).config.get("target")
        if target is None:
            return np.asarray((clean == self._truth) & (prediction != self._truth))
        return np.asarray((prediction == int(target)) & (self._truth != int(target)))

    @cached_property
    def _truth(self) -> NDArray[np.int64]:
        """True labels; where there are none, what the model says of the clean image."""
        labels = self._whole(self._score("none", "none"), "label")
        if not self._answers("none", "none"):
            return labels
        return np.where(labels >= 0, labels, self._predictions("none", "none"))

    def _goodness(self, view: View) -> Numbers:
        """The higher, the better for the defender; NaN where it is not known."""
        if view.by.startswith(DETECTOR):
            label = view.by.removeprefix(DETECTOR)
            scores = self._numbers(self.run.node("detect", view.attack, detector=label), "score")
            return -scores if view.attack == "none" else scores
        values = self._values(view, view.by)
        if view.by == "confidence":
            # the worst answers are wrong and sure
            right = self._predictions(view.attack, view.purifier) == self._truth
            return np.where(right, values, -values)
        high = view.by in WORSE_WHEN_HIGH or (view.by == "similarity" and self._impersonates(view))
        return -values if high else values

    def _impersonates(self, view: View) -> bool:
        if view.attack == "none":
            return False
        return self.run.node("attack", view.attack).config.get("aim") == "impersonate"

    def _values(self, view: View, name: str) -> Numbers:
        """A column of the pictures that come last in a strip."""
        node = self._score(view.attack, view.purifier)
        if name != "gain":
            return self._numbers(node, name)
        # imported here because it brings torch along
        from defender.metrics.quality import relative_gain

        clean = self._score("none", "none")
        return relative_gain(self._numbers(clean, "score"), self._numbers(node, "score"))

    # the images of a page

    def _shots(self, view: View, rows: NDArray[np.int64]) -> Iterator[Shot]:
        names = self.run.names.take(pa.array(rows)).to_pylist()
        places = self.run.places[rows].tolist()
        labels = self._whole(self._score("none", "none"), "label")[rows].tolist()
        figures = {name: self._values(view, name)[rows] for name in self._figures(view)}
        ordered = None
        if view.order != "place" and not view.by.startswith(DETECTOR):
            ordered = self._values(view, view.by)[rows]
        flags = [
            (label, self._numbers(self.run.node("detect", view.attack, detector=label), "score"))
            for label in self.detectors(view.attack)
        ]
        columns = [list(self._panes(view, rows, i)) for i in range(len(rows))]
        for i, place in enumerate(places):
            yield Shot(
                place,
                str(names[i]),
                self._class(labels[i]) if labels[i] >= 0 else "",
                columns[i],
                [
                    (name, float(values[i]))
                    for name, values in figures.items()
                    if not math.isnan(values[i])
                ],
                [self._flag(label, float(scores[rows[i]])) for label, scores in flags],
                None if ordered is None else (view.by, float(ordered[i])),
            )

    def _figures(self, view: View) -> list[str]:
        hidden = ("confidence", "loss", "linf_moved", "l2_moved", "target_linf", "similarity")
        return [
            name
            for name in self.columns(view)
            if name not in hidden and not name.startswith(DETECTOR)
        ]

    def _panes(self, view: View, rows: NDArray[np.int64], i: int) -> Iterator[Pane]:
        row = int(rows[i])
        yield self._pane("clean", self.run.node("ingest"), "none", "none", row)
        if view.attack != "none":
            attacked = self.run.node("attack", view.attack)
            yield self._pane("attacked", attacked, view.attack, "none", row)
            yield Pane("difference", attacked.number, difference=True)
        if view.purifier != "none":
            node = self.run.node("purify", view.attack, purifier=view.purifier)
            yield self._pane("purified", node, view.attack, view.purifier, row)

    def _pane(self, role: str, node: StoredNode, attack: str, purifier: str, row: int) -> Pane:
        scored = self._score(attack, purifier)
        if self._answers(attack, purifier):
            said = int(self._predictions(attack, purifier)[row])
            label = int(self._whole(self._score("none", "none"), "label")[row])
            right = None if label < 0 else said == label
            confidence = float(self._numbers(scored, "confidence")[row])
            return Pane(role, node.number, answer=Answer(self._class(said), confidence, right))
        for name in ("score", "similarity"):
            if name in self.run.types(scored):
                return Pane(
                    role, node.number, score=(name, float(self._numbers(scored, name)[row]))
                )
        return Pane(role, node.number)

    def _flag(self, label: str, score: float) -> Flag:
        threshold = self.run.thresholds.get(label)
        return Flag(label, score, None if threshold is None else score > threshold)

    def _class(self, number: int) -> str:
        names = self.run.classes
        return names[number] if 0 <= number < len(names) else f"class {number}"

    # columns

    def _score(self, attack: str, purifier: str) -> StoredNode:
        return self.run.node("score", attack, purifier=purifier)

    def _answers(self, attack: str, purifier: str) -> bool:
        return "prediction" in self.run.types(self._score(attack, purifier))

    def _answered(self, view: View) -> bool:
        """Whether a model said what all pictures of a strip show."""
        parts = (("none", "none"), (view.attack, "none"), (view.attack, view.purifier))
        return all(self._answers(*part) for part in parts)

    def _judged(self, view: View) -> bool:
        """Whether a quality metric scored the clean and the last picture of a strip."""
        nodes = (self._score("none", "none"), self._score(view.attack, view.purifier))
        return all("score" in self.run.types(node) for node in nodes)

    def _predictions(self, attack: str, purifier: str) -> NDArray[np.int64]:
        return self._whole(self._score(attack, purifier), "prediction")

    def _whole(self, node: StoredNode, name: str) -> NDArray[np.int64]:
        """A column of whole numbers, -1 where there is none."""
        values = self._column(node, name)
        if values.dtype.kind == "f":
            values = np.where(np.isnan(values), -1, values)
        return np.asarray(values, dtype=np.int64)

    def _numbers(self, node: StoredNode, name: str) -> Numbers:
        values = self._column(node, name)
        return np.asarray(values, dtype=np.float64)

    def _column(self, node: StoredNode, name: str) -> NDArray[Any]:
        key = (self.run.digest, node.name, name)
        return _columns.get(key, lambda: self.run.column(node, name))
