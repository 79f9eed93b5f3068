"""The shipped classifier and the pipeline on real images."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from flows.schedule import chunk_order, drive
from tasks.devices import prepare
from tasks.evaluation import evaluate
from tasks.models import load_model
from tasks.spec_files import load_spec
from tasks.specs import DatasetSpec
from tasks.subject_specs import ModelSpec
from tasks.summary import Summary
from tasks.survey import Survey, survey
from tasks.training_data import TrainingData
from tasks.workbench import Workbench
from tests import toy
from tests.tasks.test_pipeline import stored

pytestmark = [pytest.mark.slow, pytest.mark.data]
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def bench(data: Path, home: Path, images: int, *changes: str) -> Workbench:
    spec = load_spec(
        EXAMPLES / "cifar10.yaml", [f"dataset.path={data / 'cifar10'}", *changes], images
    )
    made = Workbench(spec, EXAMPLES, str(home / "store"))
    made.catalogue(keep=True)
    return made


def run(bench_: Workbench, workers: int, order: str) -> Survey:
    prepare(bench_.device)
    state = survey(bench_)
    with ThreadPoolExecutor(workers) as pool:
        drive(
            state,
            chunk_order(state.chunks, order, 1),
            lambda work: pool.submit(toy.compute, state, work),
            window=2 * workers,
            finished=lambda work, receipt: None,
        )
    return state


@pytest.fixture(scope="module")
def expected(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    state = run(attack_only(data, tmp_path_factory.mktemp("expected"), 256), 1, "forward")
    return stored(state, "attack/I-FGSM")


def attack_only(data: Path, home: Path, chunk_size: int) -> Workbench:
    rest = ["detectors=[]", "purifiers=[]", "metrics=[accuracy]"]
    return bench(data, home, 512, f"dataset.chunk_size={chunk_size}", *rest)


@pytest.mark.parametrize(
    ("chunk_size", "workers", "order"),
    [(64, 1, "forward"), (128, 2, "backward"), (256, 2, "shuffled"), (64, 2, "shuffled")],
)
def test_attacked_images_are_the_same_to_the_bit(
    data: Path,
    tmp_path: Path,
    expected: dict[str, Any],
    chunk_size: int,
    workers: int,
    order: str,
) -> None:
    state = run(attack_only(data, tmp_path, chunk_size), workers, order)
    assert stored(state, "attack/I-FGSM") == expected


@pytest.mark.parametrize(
    ("name", "accuracy"), [("cifar-resnet", 0.8961), ("cifar-resnet-wide", 0.9054)]
)
def test_shipped_classifiers_are_as_accurate_as_their_cards_say(
    data: Path, tmp_path: Path, name: str, accuracy: float
) -> None:
    images = DatasetSpec.model_validate(
        {"kind": "cifar10", "path": str(data / "cifar10"), "split": "test", "chunk_size": 2000}
    )
    held_out = TrainingData(images, EXAMPLES, str(tmp_path / "store"), "held_out")
    held_out.ingest(lambda done, total: None)
    model = load_model(ModelSpec(name=name), EXAMPLES, torch.device("cpu"))
    tally = evaluate(model, held_out, torch.device("cpu"))
    assert tally.n == 10_000
    assert tally.accuracy()["value"] == pytest.approx(accuracy, abs=0.002)


def test_the_example_tells_the_variants_apart(data: Path, tmp_path: Path) -> None:
    state = run(bench(data, tmp_path, 128, "purifiers.1.steps=5"), 2, "forward")
    rows = Summary(state).rows()
    found = {
        (row["attack"], row["purifier"]): row["value"]
        for row in rows
        if row["metric"] == "accuracy" and row["policy"] == "none"
    }
    knowledge = {row["purifier"]: row["knowledge"] for row in rows if row["detector"] == "none"}
    assert found[("none", "none")] > 0.8
    assert found[("I-FGSM", "none")] < 0.15
    assert found[("I-FGSM", "reference")] > found[("I-FGSM", "blind")] > 0.25
    assert knowledge["blind"] == "model"
    assert knowledge["reference"] == knowledge["code"] == "reference"
