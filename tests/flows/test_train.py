from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from prefect.states import Completed, Failed
from typer.testing import CliRunner

import flows.train
from defender.training import TrainingState
from flows.cli import app
from flows.train import TrainOutcome, call_of, may_pass, run_training
from flows.train_progress import TrainProgress
from storage.errors import StoreBusy, StoreError
from storage.files import exclusive
from tasks.checkpoints import Checkpoints
from tasks.errors import SpecError
from tasks.training import open_trainer, trainer
from tests.tasks import small_training as small


@pytest.fixture
def no_prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError("Prefect was started")

    monkeypatch.setattr(flows.train, "train", refuse)


def test_the_flow_survives_a_fault_and_ends_as_an_undisturbed_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plain").mkdir()
    expected = small.finish(small.trainer(tmp_path / "plain"))
    save, failures = Checkpoints.save, [2]

    def faulty(self: Checkpoints, state: TrainingState, seconds: float) -> Any:
        if state.epoch in failures:
            failures.remove(state.epoch)
            raise TimeoutError("the disk was busy")
        return save(self, state, seconds)

    monkeypatch.setattr(Checkpoints, "save", faulty)
    path, store = small.write_spec(tmp_path), str(tmp_path / "store")
    outcome = run_training(str(path), store)
    assert not failures
    assert (outcome.trained, outcome.epochs) == (3, 3)
    assert outcome.weights.read_bytes() == expected
    assert outcome.folder == tmp_path / "store" / "small"
    assert "epoch 3/3: loss" in capsys.readouterr().err

    monkeypatch.setattr(flows.train, "train", None)
    again = run_training(str(path), store)
    assert again == TrainOutcome(outcome.folder, outcome.weights, 0, 3, outcome.card)
    assert "0 of 3 epochs were trained now" in str(again)


@pytest.mark.usefixtures("no_prefect")
def test_a_finished_training_does_not_start_prefect(tmp_path: Path) -> None:
    expected = small.finish(small.trainer(tmp_path))
    started = time.perf_counter()
    result = CliRunner().invoke(
        app, ["train", str(small.write_spec(tmp_path)), "--store", str(tmp_path / "store")]
    )
    assert result.exit_code == 0, result.output
    assert "of 60 held-out images right" in result.stdout
    assert (tmp_path / "store" / "small" / "small.safetensors").read_bytes() == expected
    assert time.perf_counter() - started < 10


@pytest.mark.usefixtures("no_prefect")
def test_damaged_outputs_or_images_start_it_again(tmp_path: Path) -> None:
    small.finish(small.trainer(tmp_path))
    path, store = str(small.write_spec(tmp_path)), tmp_path / "store"
    chunk = next(store.rglob("images/*/c/0/0/0/0"))
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:-1])
    with pytest.raises(AssertionError, match="Prefect was started"):
        run_training(path, str(store))
    chunk.write_bytes(whole)
    assert run_training(path, str(store)).trained == 0
    (store / "small" / "card.md").write_text("something else")
    with pytest.raises(AssertionError, match="Prefect was started"):
        run_training(path, str(store))


@pytest.mark.usefixtures("no_prefect")
@pytest.mark.parametrize(
    ("assignment", "code", "expected"),
    [
        ("training.epoch=3", 2, "training.epoch: unknown field (did you mean epochs?)"),
        ("dataset.kind=shapes", 2, "dataset.kind: expected one of"),
        ("model=resnet", 2, "model.name: expected one of cifar-resnet, cifar-resnet-wide"),
    ],
)
def test_mistakes_end_with_one_line(
    tmp_path: Path, assignment: str, code: int, expected: str
) -> None:
    path, store = str(small.write_spec(tmp_path)), str(tmp_path / "store")
    result = CliRunner().invoke(app, ["train", path, "--store", store, "--set", assignment])
    assert result.exit_code == code
    assert expected in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(StoreError):
        run_training(str(small.write_spec(tmp_path)), str(tmp_path / "store"))


def test_a_store_in_use_is_not_waited_for_where_that_is_not_wanted(tmp_path: Path) -> None:
    path, store = str(small.write_spec(tmp_path)), tmp_path / "store"
    with exclusive(store), pytest.raises(StoreBusy):
        run_training(path, str(store), wait=False)


def test_what_travels_to_tasks_is_plain(tmp_path: Path) -> None:
    call = call_of(str(small.write_spec(tmp_path)), str(tmp_path / "store"), ["batch=20"])
    assert json.loads(json.dumps(call)) == call
    opened = open_trainer(*call)
    assert opened.spec.batch == 20
    assert trainer(*call) is opened
    other = open_trainer(*call)
    assert trainer(*call) is other is not opened


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError("disk"), True),
        (RuntimeError("kernel"), True),
        (FloatingPointError("loss"), False),
        (SpecError("field"), False),
        (StoreError("full"), False),
    ],
)
def test_which_failures_may_pass(error: Exception, expected: bool) -> None:
    assert may_pass(None, None, Failed(data=error)) is expected


def test_success_is_not_retried() -> None:
    assert may_pass(None, None, Completed(data=1)) is False


def test_progress_tells_what_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with TrainProgress(every=15) as progress:
        progress("train", 10, 110)
        assert progress.left("train", 10, 110) == ""
        now[0] = 20.0
        progress("train", 20, 110)
        assert progress.left("train", 20, 110) == "3 min left"
        assert progress.left("train", 100, 110) == "2 s left"
        assert progress.left("train", 11, 2000) == "11.1 h left"
        progress.epoch({"epoch": 1, "loss": 1.5, "accuracy": 0.5, "held_out": 0.25}, 4)
        progress.epoch({"epoch": 2, "loss": 1.4, "accuracy": 0.5}, 4)
        progress.epoch({"epoch": 4, "loss": 1.0, "accuracy": 0.75}, 4)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "epoch 1/4: loss 1.500, 50.0% right, held out 25.0%; 3 min left",
        "epoch 4/4: loss 1.000, 75.0% right",
    ]
