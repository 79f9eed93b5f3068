"""Small trainings, driven without Prefect: begun, finished, killed and begun again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tasks.model_card import export, exported, weights_path
from tasks.spec_files import parse
from tasks.train_specs import TrainingSpec
from tasks.training import Trainer
from tasks.training_tasks import Card


def begun(kind: type[TrainingSpec], content: Mapping[str, Any], folder: Path) -> Trainer:
    """A training on a store in ``folder``, as a new process would make it; nothing is ingested."""
    return Trainer(parse(kind, dict(content), "spec"), folder, str(folder / "s"))


def ready(made: Trainer) -> Trainer:
    """The training with both data sets ingested and checked."""
    made.check()
    made.ingest("dataset")
    made.ingest("held_out")
    made.check_images()
    return made


def finish(training: Trainer) -> Card:
    """Train what is left, and export."""
    for epoch in range(training.epochs_done() + 1, training.recipe.epochs + 1):
        training.advance(epoch)
    return export(training)


def check_resumed(
    trainer: Callable[[Path], Trainer], home: Path, folder: Path, killed: int
) -> tuple[Card, Card]:
    """Check that a training killed after some epochs ends with the bytes of one that was not.

    Args:
        trainer: makes one on a store in a folder.
        home: where a training was finished undisturbed.
        folder: where another is killed.
        killed: epochs before that.

    Returns:
        The cards of the two.
    """
    first = trainer(folder)
    for epoch in range(1, killed + 1):
        first.advance(epoch)
    second = trainer(folder)
    assert second.epochs_done() == killed
    card = finish(second)
    whole = trainer(home)
    assert weights_path(second).read_bytes() == weights_path(whole).read_bytes()
    known = exported(whole)
    assert known is not None
    assert [r["loss"] for r in card["history"]] == [r["loss"] for r in known["history"]]
    return card, known
