from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from defender.models.classifiers import Normalised, shapes_cnn
from defender.training import ClassifierTraining, TrainingState
from storage.ledger import Ledger
from tasks.checkpoints import Checkpoints
from tasks.errors import ModelError, SpecError
from tasks.models import MODELS
from tasks.training import Trainer
from tests.tasks import small_training as small

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of a training that nothing disturbs."""
    return small.finish(small.trainer(tmp_path_factory.mktemp("undisturbed")))


class Stop(Exception):
    pass


def stop_at(step: int) -> Callable[[str, int, int], None]:
    def listener(stage: str, done: int, total: int) -> None:
        if stage == "train" and done == step:
            raise Stop

    return listener


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_new_process_goes_on_after_the_last_finished_epoch(
    tmp_path: Path, undisturbed: bytes, epochs: int
) -> None:
    first = small.trainer(tmp_path)
    for epoch in range(1, epochs + 1):
        first.advance(epoch)
    second = small.trainer(tmp_path)
    assert second.epochs_done() == epochs
    assert small.finish(second) == undisturbed


def test_dropout_is_drawn_anew_and_yet_the_same_after_a_restart(tmp_path: Path) -> None:
    network = {"name": "python:tests.tasks.small_networks:with_dropout"}
    whole = small.finish(small.trainer(tmp_path / "whole", model=network))
    first = small.trainer(tmp_path / "killed", model=network)
    first.advance(1)
    torch.rand(7)
    assert small.finish(small.trainer(tmp_path / "killed", model=network)) == whole


@pytest.mark.parametrize("again", ["the same object", "a new process"])
@pytest.mark.parametrize("step", [2, 10, 18])
def test_interrupted_inside_an_epoch(
    tmp_path: Path, undisturbed: bytes, step: int, again: str
) -> None:
    training = small.trainer(tmp_path)
    training.listener = stop_at(step)
    with pytest.raises(Stop):
        small.finish(training)
    assert training.epochs_done() == (step - 1) // 6
    training.listener = lambda stage, done, total: None
    if again == "a new process":
        training = small.trainer(tmp_path)
    assert small.finish(training) == undisturbed


def test_killed_between_a_checkpoint_and_its_mark(
    tmp_path: Path, undisturbed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = small.trainer(tmp_path)
    training.advance(1)
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "write", lambda self, mark: (_ for _ in ()).throw(Stop()))
        with pytest.raises(Stop):
            training.advance(2)
    assert training.checkpoints.path(2).exists()
    again = small.trainer(tmp_path)
    assert again.epochs_done() == 1
    assert small.finish(again) == undisturbed


@pytest.mark.parametrize("moment", ["inside an epoch", "while a checkpoint is written"])
def test_sigkill(tmp_path: Path, undisturbed: bytes, moment: str) -> None:
    slow_disk = (
        "import os, time; os.fsync = lambda f: (print('writing', flush=True), time.sleep(9))"
    )
    script = "from tests.tasks.small_training import *; t = trainer(Path(sys.argv[1]));"
    if moment == "inside an epoch":
        script, marker = f"{script} main(sys.argv[1])", "train 8"
    else:
        script, marker = f"{script} t.advance(1)\n{slow_disk}\nmain(sys.argv[1])", "writing"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout or ():
            if line.strip() == marker:
                process.kill()
    assert process.returncode == -9
    training = small.trainer(tmp_path)
    assert training.epochs_done() == 1
    assert small.finish(training) == undisturbed
    assert not list(training.checkpoints.folder.rglob("*.tmp"))


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "mark"])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_used(
    tmp_path: Path, undisturbed: bytes, damage: str
) -> None:
    training = small.trainer(tmp_path)
    training.advance(2)
    path = training.checkpoints.path(2)
    if damage == "flipped":
        flip_a_byte(path)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "gone":
        path.unlink()
    else:
        flip_a_byte(training.checkpoints.ledger.path("epoch-000002"))
    again = small.trainer(tmp_path)
    assert again.epochs_done() == 1
    assert small.finish(again) == undisturbed


def test_no_whole_checkpoint_starts_from_the_beginning(tmp_path: Path, undisturbed: bytes) -> None:
    training = small.trainer(tmp_path)
    training.advance(2)
    for epoch in (1, 2):
        flip_a_byte(training.checkpoints.path(epoch))
    again = small.trainer(tmp_path)
    assert again.epochs_done() == 0
    assert small.finish(again) == undisturbed


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    training = small.trainer(tmp_path)
    small.finish(training)
    kept = sorted(path.name for path in training.checkpoints.path(1).parent.iterdir())
    assert kept == ["epoch-000002.pt", "epoch-000003.pt"]
    assert training.checkpoints.ledger.keys() == ["epoch-000002", "epoch-000003"]


def test_a_state_stored_by_other_code_is_taken_over(tmp_path: Path, undisturbed: bytes) -> None:
    """One epoch by hand, with the generator itself, from images in memory."""
    training = small.trainer(tmp_path)
    chunks = [training.data.chunk(i) for i in range(training.data.chunk_count)]
    images = torch.stack([torch.from_numpy(image) for chunk in chunks for image in chunk])
    labels = torch.arange(small.COUNT) % 10

    def batches(epoch: int) -> Any:
        order = torch.randperm(
            small.COUNT, generator=torch.Generator().manual_seed(3 * 1_000_003 + epoch)
        )
        for i in range(small.COUNT // small.BATCH):
            chosen = order[i * small.BATCH : (i + 1) * small.BATCH]
            yield images[chosen], labels[chosen]

    torch.manual_seed(3)
    shipped = MODELS["shapes-cnn"]
    model = Normalised(shapes_cnn(), shipped.mean, shipped.std)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    recipe = ClassifierTraining(epochs=small.EPOCHS, peak_lr=0.05, padding=2, cutout=4)
    torch.set_num_threads(1)
    state = next(recipe.fit(batches, model, steps_per_epoch=6, seed=3))
    torch.save(state.as_dict(), tmp_path / "state.pt")

    stored = TrainingState(**torch.load(tmp_path / "state.pt", weights_only=True))
    training.checkpoints.save(stored, seconds=12.0)
    again = small.trainer(tmp_path)
    assert again.epochs_done() == 1
    assert small.finish(again) == undisturbed
    assert again.final_state()[1] >= 12.0


def test_an_epoch_that_is_finished_is_not_trained_again(tmp_path: Path) -> None:
    training = small.trainer(tmp_path)
    record = training.advance(2)
    again = small.trainer(tmp_path)
    again.listener = stop_at(again.steps_per_epoch + 1)
    assert again.advance(2) == record
    assert again.advance(1)["epoch"] == 1


def test_a_checkpoint_of_other_inputs_is_not_used(tmp_path: Path) -> None:
    training = small.trainer(tmp_path)
    training.advance(1)
    other = Checkpoints(training.checkpoints.folder, {"config": "other"})
    assert other.latest() is None


def test_history_and_looks_at_the_held_out_images(tmp_path: Path) -> None:
    training = small.trainer(tmp_path, evaluate_every=2)
    records = [training.advance(epoch) for epoch in (1, 2, 3)]
    assert ["held_out" in record for record in records] == [False, True, True]
    assert training.seen(1) is None
    other = small.trainer(
        tmp_path, evaluate_every=2, held_out={"kind": "builtin:shapes", "count": 40}
    )
    assert other.fingerprint == training.fingerprint
    assert other.epochs_done() == 3
    assert other.seen(2) is None, "a share of other images must not be shown"


CHANGES: list[dict[str, Any]] = [
    {"seed": 4},
    {"batch": 60},
    {"training": {"peak_lr": 0.1}},
    {"training": {"precision": "bf16"}},
    {"model": {"name": "shapes-cnn", "mean": [0.4, 0.4, 0.4]}},
    {"model": "cifar-resnet"},
    {"dataset": {"count": 299}},
    {"dataset": {"seed": 1}},
    {"window_bytes": 400_000},
    {"training": {"gamma": 0.1}},
    {"training": {"class_weights": "balanced"}},
    {"pipeline": {"target": "16x16"}},
    {"pipeline": {"target": "16x16", "algorithm": "area"}},
]


def test_everything_that_weights_depend_on_is_in_the_fingerprint(tmp_path: Path) -> None:
    prints = [small.trainer(tmp_path, **change).fingerprint for change in [{}, *CHANGES]]
    assert len(set(prints)) == len(prints)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"half": True},
        {"out": "other.safetensors"},
        {"compute": {"threads": 2}},
        {"window_bytes": 1 << 29},
        {"held_out": {"kind": "builtin:shapes", "count": 50}},
    ],
)
def test_what_weights_do_not_depend_on_is_not(tmp_path: Path, change: dict[str, Any]) -> None:
    plain, changed = small.trainer(tmp_path), small.trainer(tmp_path, **change)
    assert plain.fingerprint == changed.fingerprint


def test_a_loss_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    training = small.trainer(tmp_path, training={"peak_lr": 1e25})
    with pytest.raises(FloatingPointError, match="training loss"):
        small.finish(training)


def test_threads_are_given_back(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    training = small.trainer(tmp_path, compute={"threads": 2})
    with training.threads():
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == before


def test_lower_precision_trains(tmp_path: Path) -> None:
    training = small.trainer(tmp_path, training={"precision": "bf16", "epochs": 1})
    assert training.advance(1)["loss"] > 0
    assert next(iter(training.final_state()[0].weights.values())).dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"batch": 301}, "batch: expected at most 300, .* got 301"),
        ({"held_out": {"colour": "grey"}}, "held_out.colour: expected 3 channels"),
        ({"model": "python:tests.tasks.small_networks:three_classes"}, "3 outputs, .* label 9"),
        ({"model": "python:tests.tasks.small_networks:for_grey"}, "cannot take images"),
        ({"model": "python:tests.tasks.small_networks:images_out"}, r"expected logits \(n, cl"),
        ({"model": "python:tests.tasks.small_networks:nothing"}, "to return a torch module"),
        ({"model": "resnet"}, "model.name: expected one of cifar-resnet, .*, xray-cnn, python:"),
        ({"dataset": {"knd": 1}}, "dataset.knd: unknown option"),
        ({"held_out": {"kind": "zip", "path": "no.zip"}}, "held_out: expected a dataset 'no.zip'"),
        ({"held_out": {"kind": "tar"}}, "held_out.kind: expected one of"),
    ],
)
def test_mistakes_are_named_before_training(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    from storage.errors import StorageError

    with pytest.raises((SpecError, ModelError, StorageError), match=expected):
        small.trainer(tmp_path, **change)


def test_epochs_left_are_not_exported(tmp_path: Path) -> None:
    training: Trainer = small.trainer(tmp_path)
    training.advance(1)
    with pytest.raises(SpecError, match="expected 3 epochs to be finished"):
        training.final_state()
