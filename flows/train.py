"""The train flow: decode two data sets, train epoch by epoch, export weights and a model card."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from flows import embedded
from flows.artifacts import artifact_key, publish_page
from flows.names import BEGUN, run_name
from flows.train_progress import TrainProgress
from storage.files import check_writable, exclusive
from tasks.card_words import words_of
from tasks.model_card import export, exported, in_words, weights_path
from tasks.prefect_task import worth_retrying
from tasks.train_specs import load_train_spec
from tasks.training import Trainer, open_trainer, trainer
from tasks.training_tasks import Card

Call = list[str]
"""What travels to a task: the specification as JSON, its folder, and the store."""

ARTIFACT_SECONDS = 5.0
"""Seconds between updates of the dashboard's progress artifact, at least."""


@dataclass(frozen=True)
class TrainOutcome:
    """What a training came to.

    Args:
        folder: the run's folder in the store.
        weights: the exported weights.
        trained: epochs that were trained now; the others had been finished before.
        epochs: epochs in all.
        card: the model card.
    """

    folder: Path
    weights: Path
    trained: int
    epochs: int
    card: Card

    def __str__(self) -> str:
        return (
            f"{words_of(self.card).headline(self.card)}\n"
            f"{self.trained} of {self.epochs} epochs were trained now\n"
            f"weights: {self.weights}\n"
            f"card: {self.folder / 'card.md'}"
        )


def run_training(
    spec: str,
    store: str,
    assignments: Sequence[str] = (),
    *,
    wait: bool = True,
    on_wait: Callable[[], None] | None = None,
) -> TrainOutcome:
    """Train as a specification says; killed anywhere, it goes on after the last finished epoch.

    A training whose weights and card are there and whole does not start Prefect.

    Args:
        spec: path of the specification file.
        store: folder or URL of the store.
        assignments: changes to the specification, each ``key=value``.
        wait: wait while another run writes to the store.
        on_wait: called before another run is waited for.

    Raises:
        SpecError, ModelError, StorageError: saying what is wrong, in one sentence.
        FloatingPointError: where the loss is not finite.
    """
    opened = open_trainer(*call_of(spec, store, assignments))
    check_writable(opened.store.root)
    with exclusive(opened.store.root, wait=wait, on_wait=on_wait):
        opened.check()
        done = _finished(opened)
    if done is not None:
        return done
    embedded.start()
    return train(spec, store, list(assignments))


def call_of(spec: str, store: str, assignments: Sequence[str] = ()) -> Call:
    """Read a specification and describe the training in plain JSON.

    Raises:
        SpecError: naming the file, the field and what was expected.
    """
    path = Path(spec)
    content = load_train_spec(path, assignments)
    return [content.model_dump_json(), str(path.parent.resolve()), store]


def may_pass(failed: Any, run: Any, state: Any) -> bool:
    """Whether a failure may pass: a loss that is not finite comes again, to the bit."""
    error = state.result(raise_on_failure=False)
    return not isinstance(error, FloatingPointError) and worth_retrying(failed, run, state)


def _finished(opened: Trainer) -> TrainOutcome | None:
    if not opened.ingested():
        return None
    card = exported(opened)
    return None if card is None else _outcome(opened, 0, card)


def _outcome(opened: Trainer, trained: int, card: Card) -> TrainOutcome:
    folder = opened.outputs
    return TrainOutcome(folder, weights_path(opened), trained, opened.recipe.epochs, card)


@task(
    name="ingest",
    task_run_name="ingest/{part}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=may_pass,
)
def ingest(call: Call, part: str) -> dict[str, Any]:
    """Decode one of the two data sets; chunks that are done are not done again."""
    return trainer(*call).ingest(part)


@task(
    name="epoch",
    task_run_name="epoch/{epoch:03d}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=may_pass,
)
def train_epoch(call: Call, epoch: int) -> dict[str, Any]:
    """Train one epoch and store the state after it."""
    return trainer(*call).advance(epoch)


@task(
    name="export",
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=may_pass,
)
def export_weights(call: Call) -> Card:
    """Write the averaged weights, ask them about every held-out image, and write the card."""
    return export(trainer(*call))


@flow(name="train", flow_run_name=run_name, on_running=BEGUN, validate_parameters=True)
def train(
    spec: str,
    store: str = "image-defender-store",
    assignments: list[str] | None = None,
) -> TrainOutcome:
    """Train a model as a specification says; resumable after every epoch.

    Args:
        spec: path of the specification file.
        store: folder or URL of the store.
        assignments: changes to the specification, each ``key=value``.
    """
    call = call_of(spec, store, assignments or ())
    opened = open_trainer(*call)
    check_writable(opened.store.root)
    retries = opened.spec.compute.retries
    with TrainProgress() as progress:
        opened.listener = progress
        with exclusive(opened.store.root):
            opened.check()
            for part in ("dataset", "held_out"):
                ingest.with_options(retries=retries)(call, part)
            opened.check_images()
            done = _finished(opened)
        if done is not None:
            _publish(opened, done.card)
            return done
        # the store stays free for other runs while epochs are trained
        with exclusive(opened.store.stage(opened.fingerprint)):
            trained = _train_epochs(opened, call, progress)
            with exclusive(opened.store.root):
                card = export_weights.with_options(retries=retries)(call)
    _publish(opened, card)
    return _outcome(opened, trained, card)


def _publish(opened: Trainer, card: Card) -> None:
    """Publish the card of a finished training with its figures, and a link to its file."""
    name = opened.spec.name
    create_markdown_artifact(
        markdown=in_words(card),
        key=f"{artifact_key(name)}-card",
        description=f"Model card of {name}",
    )
    publish_page(name, opened.outputs / "card.md", "model card")


def _train_epochs(opened: Trainer, call: Call, progress: TrainProgress) -> int:
    epochs, before = opened.recipe.epochs, opened.epochs_done()
    one_epoch = train_epoch.with_options(retries=opened.spec.compute.retries)
    artifact: Any = create_progress_artifact(
        progress=100 * before / epochs,
        key=f"{artifact_key(opened.spec.name)}-epochs",
        description=f"Epochs of {opened.spec.name}",
    )
    updated = time.monotonic()
    for epoch in range(before + 1, epochs + 1):
        record = one_epoch(call, epoch)
        progress.epoch(record, epochs)
        if epoch == epochs or time.monotonic() - updated > ARTIFACT_SECONDS:
            updated = time.monotonic()
            update_progress_artifact(artifact, progress=100 * epoch / epochs)
    return epochs - before
