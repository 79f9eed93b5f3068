"""The stages that one picture goes through for the app, and what is told of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from defender.explain import gradcams, seen_region
from defender.metrics.rates import conformal_threshold
from storage.images import Pixels
from tasks.chunk import Chunk
from tasks.compute import compute_chunk
from tasks.examples import seen_by_model
from tasks.faces import embeddings
from tasks.listening import listening
from tasks.nodes import Node
from tasks.preview_panes import Pane, Views, as_pixels, as_tensor, heat_pane, parts_panes
from tasks.specs import AttackSpec, label_of
from tasks.stopping import Stoppable
from tasks.survey import survey
from tasks.try_pictures import decoded, of_one
from tasks.workbench import Workbench

if TYPE_CHECKING:
    from tasks.preview import Preview

CALIBRATION = 40
"""Clean pictures that a detector's threshold is set on."""
EVERY = 0.05
"""Seconds between two words on how far a stage is, at least."""


@dataclass(frozen=True)
class Suspicion:
    """What a detector says.

    Args:
        detector: its label.
        clean: score of the original.
        attacked: score of the attacked picture.
        threshold: score above which a picture is suspect, None where none was set.
        fpr: share of clean pictures above it.
        pictures: clean ones that it was set on.
    """

    detector: str
    clean: float
    attacked: float
    threshold: float | None
    fpr: float
    pictures: int


@dataclass
class Told:
    """What happens while a picture is tried; all of it arrives in the thread that computes.

    Args:
        stage: what is being done now, and the share of it that is done, None where nobody knows.
        pane: one more picture to be shown.
        suspicion: what a detector says.
        took: a stage, and the seconds it took.
    """

    stage: Callable[[str, float | None], None] = lambda _name, _share: None
    pane: Callable[[Pane], None] = lambda _pane: None
    suspicion: Callable[[Suspicion], None] = lambda _found: None
    took: Callable[[str, float], None] = lambda _stage, _seconds: None


class Trial:
    """One picture on its way.

    Args:
        asked: what to do with it.
        store: folder of its own.
        told: hears of it.
        stop: set by whoever wants it to end.
    """

    def __init__(self, asked: Preview, store: str, told: Told, stop: threading.Event) -> None:
        self.asked = asked
        self.told = told
        self.stop = stop
        self.bench = Workbench(asked.spec, asked.folder, store)
        self.attack = asked.spec.attacks[0] if asked.spec.attacks else None

    def run(self) -> None:
        """Do everything, stage by stage."""
        self._thread, self._said = threading.current_thread(), 0.0
        mode = Stoppable(self.stop, self._stepped)
        with mode, listening(self._within):
            self._mode = mode
            with self._stage("model"):
                self.asked.subjects.give(self.bench)
                self._insert_pictures()
                self.bench.check()
                self.bench.catalogue(keep=False)
                self.state = survey(self.bench)
            self._ingest()
            self._attack()
            self._detect()
            self._purify()
            self._thresholds()

    def _insert_pictures(self) -> None:
        bench, asked = self.bench, self.asked
        bench.dataset = of_one(asked.picture, asked.spec.dataset, asked.folder)
        if asked.other is not None and bench.targets and bench.targets[0] is not None:
            pool = bench.targets[0]
            pool.pool = of_one(asked.other, asked.spec.dataset, asked.folder)
            pool.other_class, pool.in_order = False, False

    def _ingest(self) -> None:
        with self._stage("decode"):
            self._compute("ingest")
        if not self.state.done[("ingest", 0)].images:
            decoded(self.asked.picture, self.asked.spec.dataset)  # says why
        self.clean = self._images("ingest")
        chunk = self._chunk(self.state.plan.nodes["ingest"])
        label = int(chunk.labels_of(chunk.rows)[0])
        self.views = Views(
            self.bench,
            self.clean,
            label,
            self.asked.picture.classes or (),
            threshold=self.asked.spec.faces.threshold,
        )
        if self.bench.has_encoder:
            other = self.asked.other
            shown = self.clean if other is None else decoded(other, self.asked.spec.dataset)
            self.views.enrolled = embeddings(self.bench, [shown])
            if other is not None:
                self.told.pane(Pane("enrolled", shown, said="who is to be taken for"))
        with self._stage("ask"):
            self.told.pane(self.views.answered("original", self.clean))
            self._seen("model sees", self.clean)
            self._explain("original", self.clean)

    def _attack(self) -> None:
        self.attacked = self.clean
        if self.attack is None:
            return
        name = f"attack/{label_of(self.attack)}"
        needed = [*self._suppliers(name), name]
        for one in needed:
            if (one, 0) in self.state.done:
                continue
            kind = self.state.plan.nodes[one].kind
            with self._stage(kind):
                self._compute(one)
        self.attacked = self._images(name)
        node = self.state.plan.nodes[name]
        if not self.bench.has_encoder and "target" in node.inputs:
            hidden = self._images(node.inputs["target"])
            self.told.pane(self.views.answered("to be hidden", hidden))
        with self._stage("ask"):
            self.told.pane(self.views.answered("attacked", self.attacked))
            difference = self.views.difference(self.attacked)
            if difference is not None:
                self.told.pane(difference)
            self._seen("model sees of it", self.attacked)
            self._explain("attacked", self.attacked)

    def _suppliers(self, name: str) -> Iterator[str]:
        for supplier in self.state.plan.nodes[name].inputs.values():
            yield from self._suppliers(supplier)
            yield supplier

    def _detect(self) -> None:
        self.suspicions: list[Suspicion] = []
        for position, spec in enumerate(self.asked.spec.detectors):
            with self._stage("detect"):
                clean = self._score(position, self.clean, self.clean)
                attacked = self._score(position, self.attacked, self.clean)
                mask = self._mask(position)
            found = Suspicion(label_of(spec), clean, attacked, None, spec.fpr, 0)
            self.suspicions.append(found)
            self.told.suspicion(found)
            if mask is not None:
                said = f"{100 * float(mask.float().mean()):.0f} % of values"
                self.told.pane(
                    Pane(f"where {label_of(spec)} looks", as_pixels(mask), mask=True, said=said)
                )

    def _score(self, position: int, pixels: Pixels, clean: Pixels) -> float:
        detector = self.bench.detectors[position]
        return float(detector(as_tensor(pixels, self.bench.device), **self._told(detector, clean)))

    def _mask(self, position: int) -> Tensor | None:
        detector = self.bench.detectors[position]
        image = as_tensor(self.attacked, self.bench.device)
        mask: Tensor | None = detector.map(image, **self._told(detector, self.clean))
        return mask

    def _told(self, detector: Any, clean: Pixels) -> dict[str, Any]:
        """What a detector is given besides the picture."""
        told = detector.knowledge == "reference"
        reference = as_tensor(clean, self.bench.device) if told else None
        return {"seeds": self._seeds("detect"), "reference": reference}

    def _purify(self) -> None:
        for position, spec in enumerate(self.asked.spec.purifiers):
            purifier = self.bench.purifiers[position]
            device = self.bench.device
            reference = as_tensor(self.clean, device) if purifier.knowledge == "reference" else None
            with self._stage("purify"):
                parts = purifier.parts(
                    as_tensor(self.attacked, device),
                    seeds=self._seeds("purify"),
                    reference=reference,
                )
                purified = as_pixels(parts["purified"])
            for pane in parts_panes(parts):
                self.told.pane(pane)
            role = "combined" if "corrected" in parts else f"purified by {label_of(spec)}"
            with self._stage("ask"):
                self.told.pane(self.views.answered(role, purified))
                self._seen("model sees of that", purified)
                self._explain("purified", purified)

    def _thresholds(self) -> None:
        album = self.asked.calibration
        if album is None or not self.suspicions:
            return
        places = range(min(CALIBRATION, len(album)))
        scores: list[list[float]] = [[] for _ in self.suspicions]
        with self._stage("calibrate"):
            for place in places:
                self.told.stage("calibrate", place / len(places))
                pixels = decoded(album.take(place), self.asked.spec.dataset)
                for position, values in enumerate(scores):
                    values.append(self._score(position, pixels, pixels))
        for old, values in zip(self.suspicions, scores, strict=True):
            threshold = conformal_threshold(values, old.fpr)
            known = threshold if threshold < float("inf") else None
            self.told.suspicion(
                Suspicion(old.detector, old.clean, old.attacked, known, old.fpr, len(values))
            )

    def _seen(self, role: str, pixels: Pixels) -> None:
        """What the model is shown, where its pipeline resizes."""
        if self.bench.pipeline is None:
            return
        seen = seen_by_model(self.bench, pixels)
        self.told.pane(self.views.answered(role, pixels, seen=seen))

    def _explain(self, what: str, pixels: Pixels) -> None:
        wanted = self.asked.spec.explain
        if wanted is None:
            return
        image = as_tensor(pixels, self.bench.device)
        region = seen_region(self.bench.model, (image.shape[2], image.shape[3]))
        maps = gradcams(self.bench.model, image, [None], wanted.layer, region=region)
        self.told.pane(heat_pane(f"heat map, {what}", pixels, maps[0, 0]))

    def _compute(self, name: str) -> None:
        node = self.state.plan.nodes[name]
        for index in self.state.indices(node):
            work = self.state.work(node, index)
            if work is None:
                raise RuntimeError(f"expected the inputs of {name}, got none")
            mark = compute_chunk(self.bench, node, index, work.inputs, work.source)
            self.state.record(work, mark)

    def _chunk(self, node: Node) -> Chunk:
        done = self.state.done[("ingest", 0)]
        return Chunk(self.bench, node, 0, {"images": done}, done)

    def _images(self, name: str) -> Pixels:
        given = self.state.done[(name, 0)]
        chunk = Chunk(self.bench, self.state.plan.nodes[name], 0, {"images": given}, given)
        return chunk.images("images")[0]

    def _seeds(self, kind: str) -> Tensor:
        return self._chunk(Node(kind, kind)).seeds()

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        self._now, self._base = name, self._mode.gradients
        self.told.stage(name, None)
        begun = time.perf_counter()
        yield
        self.told.took(name, time.perf_counter() - begun)

    def _stepped(self, gradients: int) -> None:
        steps = self._steps()
        done = gradients - self._base
        if self._now == "attack" and steps and (self._is_due() or done >= steps):
            self.told.stage("attack", min(1.0, done / steps))

    def _is_due(self) -> bool:
        """Whether it is time to say how far the work is; more often nobody can look."""
        now = time.monotonic()
        due = now - self._said >= EVERY
        if due:
            self._said = now
        return due

    def _steps(self) -> int:
        attack: AttackSpec | None = self.attack
        if attack is None:
            return 0
        algorithm = self.bench.attacks[0]
        steps = int(getattr(algorithm, "steps", 0) or 0)
        return steps * max(1, int(getattr(algorithm, "restarts", 1) or 1)) * attack.draws

    def _within(self, stage: str, done: int, total: int) -> None:
        if threading.current_thread() is self._thread and (self._is_due() or done == total):
            self.told.stage(stage.partition("/")[0], done / max(1, total))
