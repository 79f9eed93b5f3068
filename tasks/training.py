"""A training that can be killed at any moment: it goes on after the last finished epoch."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from defender.training import TrainingState
from storage.chunks import Store
from storage.files import local_root, write_atomic
from storage.ledger import Mark, digest_of
from tasks.checkpoints import Checkpoints
from tasks.classifier_task import ClassifierTask
from tasks.devices import choose_device, cores, prepare
from tasks.errors import SpecError
from tasks.face_task import FaceTask
from tasks.models import digest_state, load_state
from tasks.prior_task import PriorTask
from tasks.purify_task import PurifyTask
from tasks.quality_task import QualityTask
from tasks.train_specs import (
    FaceTrainSpec,
    PriorTrainSpec,
    PurifyTrainSpec,
    QualityTrainSpec,
    TrainingSpec,
    TrainSpec,
    train_spec_of,
)
from tasks.training_data import Batch
from tasks.training_tasks import TrainingTask

RULES = 1
"""Version of what this module itself does to a training; raising it starts trainings anew."""

TASKS: dict[type[TrainingSpec], Callable[[Any, Path, str], TrainingTask]] = {
    TrainSpec: ClassifierTask,
    QualityTrainSpec: QualityTask,
    PurifyTrainSpec: PurifyTask,
    PriorTrainSpec: PriorTask,
    FaceTrainSpec: FaceTask,
}
"""What is particular to a training, by its specification."""

Listener = Callable[[str, int, int], None]


class Trainer:
    """One training: its images, its network, its states and its checkpoints.

    Args:
        spec: the validated specification.
        folder: folder against which the paths in it are resolved.
        store: URL of the store.
    """

    def __init__(self, spec: TrainingSpec, folder: Path, store: str) -> None:
        self.spec = spec
        self.folder = folder
        self.store = Store(local_root(store, "a training"))
        self.task: TrainingTask = TASKS[type(spec)](spec, folder, store)
        self.data, self.held_out = self.task.data, self.task.held_out
        self.recipe = self.task.recipe
        self.listener: Listener = lambda stage, done, total: None
        self._states: Iterator[TrainingState] | None = None
        self._epoch = -1
        self._seconds = 0.0

    @cached_property
    def device(self) -> torch.device:
        """Where the training computes."""
        device = choose_device(self.spec.compute.device)
        with self.threads():
            prepare(device)
        return device

    @contextlib.contextmanager
    def threads(self) -> Iterator[None]:
        """Give torch the threads of the specification for a while."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.spec.compute.threads or cores())
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def check(self) -> None:
        """Check everything that can be checked before images are decoded.

        Raises:
            SpecError, ModelError, StorageError: saying what is wrong and where.
        """
        _ = self.device
        self.task.network()
        self.data.check()
        self.held_out.check()

    def ingested(self) -> bool:
        """Whether both data sets are decoded and whole."""
        return self.data.ingested() and self.held_out.ingested()

    def ingest(self, part: str) -> dict[str, Any]:
        """Decode one of the two data sets, as far as that has not been done.

        Args:
            part: ``dataset`` or ``held_out``.
        """
        data = self.data if part == "dataset" else self.held_out
        data.ingest(lambda done, total: self.listener(part, done, total))
        return {"images": data.count, "rejected": data.rejected, "digest": data.digest}

    def check_images(self) -> None:
        """Check that the images suit the model and each other.

        Raises:
            SpecError, ModelError: naming the field and what was expected.
        """
        if self.steps_per_epoch == 0:
            raise SpecError(
                f"batch: expected at most {self.data.count}, the images of the data set, "
                f"got {self.spec.batch}"
            )
        self.task.check_images(self.device)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in the data set."""
        return self.data.count // self.spec.batch

    @cached_property
    def config(self) -> dict[str, Any]:
        """Everything that the trained weights depend on; both data sets must be ingested."""
        network = self.task.network()
        whole = self.data.nbytes <= self.spec.window_bytes
        return {
            "kind": "train",
            "rules": RULES,
            "recipe": repr(self.recipe),
            "network": self.task.name,
            "layers": repr(network),
            "shapes": {k: list(v.shape) for k, v in network.state_dict().items()},
            "images": self.data.digest,
            "seed": self.spec.seed,
            "batch": self.spec.batch,
            "window": None if whole else self.spec.window_bytes,
            "device": self.device.type,
            **self.task.config(),
        }

    @cached_property
    def fingerprint(self) -> str:
        """Name of the training's folder in the store."""
        return digest_of(self.config)[:24]

    @property
    def stage(self) -> Path:
        """Folder of the states."""
        return local_root(self.store.stage(self.fingerprint))

    @property
    def outputs(self) -> Path:
        """Folder of what the training leaves."""
        return local_root(self.store.run(self.spec.name))

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """The states that are stored."""
        inputs = {"config": digest_of(self.config)}
        return Checkpoints(self.stage, inputs)

    def epochs_done(self) -> int:
        """Number of the last epoch whose state is stored whole."""
        mark = self.checkpoints.latest()
        return 0 if mark is None else int(mark.receipt["epoch"])

    def advance(self, epoch: int) -> dict[str, Any]:
        """Make sure that an epoch, counted from 1, is finished and its state stored.

        Called again after a failure, or in another process, it goes on from the last whole
        checkpoint, to the same bits.

        Returns:
            What the history says of the epoch, with its number and seconds.

        Raises:
            FloatingPointError: where the loss is not finite.
            StorageError: where images are damaged or the store cannot be written.
        """
        with self.threads():
            try:
                if self._states is None or self._epoch >= epoch:
                    self._restart()
                while self._epoch < epoch:
                    self._one_epoch()
            except BaseException:
                self._states = None
                raise
        return self._record(epoch)

    def _record(self, epoch: int) -> dict[str, Any]:
        record = {"epoch": epoch, **self._history[epoch - 1]}
        seen = self.seen(epoch)
        return record if seen is None else {**record, self.task.figure: seen}

    def _restart(self) -> None:
        model = self.task.model(self.device)
        mark: Mark | None = self.checkpoints.latest()
        state = None if mark is None else self.checkpoints.load(mark, self.device)
        self._epoch = 0 if state is None else state.epoch
        self._seconds = 0.0 if mark is None else float(mark.receipt["seconds"])
        self._history = [] if state is None else state.history
        self._states = self.task.fit(self._batches, model, self.steps_per_epoch, state)

    def _batches(self, epoch: int) -> Iterator[Batch]:
        spec, steps = self.spec, self.steps_per_epoch
        order = self.data.batches(
            epoch, seed=spec.seed, batch=spec.batch, window_bytes=spec.window_bytes
        )
        for step, batch in enumerate(order):
            yield batch
            self.listener("train", epoch * steps + step + 1, self.recipe.epochs * steps)

    def _one_epoch(self) -> None:
        started = time.perf_counter()
        if self._states is None:
            raise RuntimeError("expected a training under way, got none")
        state = next(self._states)
        every = self.spec.evaluate_every
        if every and (state.epoch % every == 0 or state.epoch == self.recipe.epochs):
            self._look(state)
        self._seconds += time.perf_counter() - started
        self.checkpoints.save(state, self._seconds)
        self._epoch, self._history = state.epoch, state.history

    def _look(self, state: TrainingState) -> None:
        """Note what the averaged weights do on the held-out images."""
        model = self.task.model(self.device)
        load_state(model, state.average, "average")
        content = {"weights": digest_state(state.average), **self.task.look(model, self.device)}
        write_vouched(self._seen_path(state.epoch), content)

    def seen(self, epoch: int) -> float | None:
        """The figure of the averaged weights of an epoch on held-out images, if they were asked."""
        content = read_vouched(self._seen_path(epoch))
        return None if content is None else self.task.seen(content)

    def _seen_path(self, epoch: int) -> Path:
        folder = self.stage / "held-out" / self.held_out.digest[:24]
        return folder / f"epoch-{epoch:06d}.json"

    def final_state(self) -> tuple[TrainingState, float]:
        """The state after the last epoch, and the seconds that the training took.

        Raises:
            SpecError: where epochs are left.
        """
        mark = self.checkpoints.latest()
        if mark is None or mark.receipt["epoch"] != self.recipe.epochs:
            raise SpecError(f"training: expected {self.recipe.epochs} epochs to be finished")
        return self.checkpoints.load(mark, torch.device("cpu")), float(mark.receipt["seconds"])


def write_vouched(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object with a digest of itself, atomically."""
    data = json.dumps({**content, "digest": digest_of(content)}, indent=1, allow_nan=False)
    write_atomic(path, data.encode())


def read_vouched(path: Path) -> dict[str, Any] | None:
    """A JSON object as :func:`write_vouched` wrote it; None where it is absent or damaged."""
    try:
        content: Any = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.pop("digest", None) != digest_of(content):
        return None
    return content


_opened: dict[tuple[str, str, str], Trainer] = {}


def open_trainer(spec: str, folder: str, store: str) -> Trainer:
    """Look anew at a training, given as JSON, and at what the store holds of it."""
    _opened.clear()
    _opened[spec, folder, store] = Trainer(train_spec_of(spec), Path(folder), store)
    return _opened[spec, folder, store]


def trainer(spec: str, folder: str, store: str) -> Trainer:
    """The trainer that this process has opened last for a training, or a new one."""
    return _opened.get((spec, folder, store)) or open_trainer(spec, folder, store)
