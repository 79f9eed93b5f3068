from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from defender.attacks import IFGSM
from defender.objectives import RaiseScore
from defender.types import QualityMetric
from tasks.errors import ModelError
from tasks.quality_models import (
    QUALITY_MODELS,
    LoadedMetric,
    linearity_metadata,
    load_metric,
    read_linearity_checkpoint,
)
from tasks.subject_specs import MetricSpec
from tests.tasks.metric_files import State, random_state, save, second_opinion

CPU = torch.device("cpu")
IMAGES = torch.rand(3, 3, 70, 50, generator=torch.Generator().manual_seed(0))


def load(folder: Path, **fields: Any) -> LoadedMetric:
    return load_metric(MetricSpec(**fields), folder, CPU)


@pytest.fixture(scope="module")
def small_state() -> State:
    return random_state("small")


@pytest.fixture
def small_file(tmp_path: Path, small_state: State) -> Path:
    return save(tmp_path / "p1q2.pth", small_state)


@pytest.mark.parametrize(
    "arch", ["resnet18", pytest.param("resnext101_32x8d", marks=pytest.mark.slow)]
)
def test_scores_are_those_of_a_second_implementation(tmp_path: Path, arch: str) -> None:
    from torchvision import models

    state = random_state(arch)
    save(tmp_path / "p1q2.pth", state, k=[2.5, 9.0, 9.0], b=[1.0, 9.0, 9.0])
    metric = load(tmp_path, name=f"linearity:{arch}", weights="p1q2.pth")
    expected = second_opinion(getattr(models, arch), state, IMAGES, k=2.5, b=1.0)
    assert expected.std() > 0.01
    torch.testing.assert_close(metric(IMAGES), expected, rtol=1e-5, atol=1e-5)
    assert metric.score_range == (25.78, 83.23)


def test_a_loaded_metric_is_frozen_and_named(tmp_path: Path, small_file: Path) -> None:
    metric = load(tmp_path, name="linearity:small", weights=small_file.name, label="mine")
    assert isinstance(metric, QualityMetric)
    assert not any(module.training for module in metric.modules())
    assert not any(parameter.requires_grad for parameter in metric.parameters())
    assert re.fullmatch(r"mine@[0-9a-f]{12}", repr(metric))
    unnamed = load(tmp_path, name="linearity:small", weights=str(small_file))
    assert repr(unnamed).startswith("linearity:small@")
    assert (metric.lower_is_better, metric.needs_reference) == (False, False)


def test_an_attack_raises_the_score(tmp_path: Path, small_file: Path) -> None:
    metric = load(tmp_path, name="linearity:small", weights=small_file.name)
    objective = RaiseScore(metric)
    attack = IFGSM(epsilon=8 / 255, step_size=2 / 255, steps=4)
    attacked = attack(IMAGES, objective, seeds=torch.arange(3))
    assert objective.span == 100
    assert (metric(attacked) > metric(IMAGES) + 0.05).all()


def test_the_digest_covers_weights_line_and_range(tmp_path: Path, small_state: State) -> None:
    changed = {**small_state, "regression.bias": small_state["regression.bias"] + 1e-6}
    save(tmp_path / "a.pth", small_state)
    save(tmp_path / "weights.pth", changed)
    save(tmp_path / "k.pth", small_state, k=2.0001)
    save(tmp_path / "b.pth", small_state, b=41)
    save(tmp_path / "range.pth", small_state, score_range=[0, 99])
    files = ["a.pth", "weights.pth", "k.pth", "b.pth", "range.pth"]
    names = [repr(load(tmp_path, name="linearity:small", weights=file)) for file in files]
    stated = load(tmp_path, name="linearity:small", weights="a.pth", score_range=(0, 98))
    again = load(tmp_path, name="linearity:small", weights="a.pth")
    assert len({*names, repr(stated)}) == 6
    assert repr(again) == names[0]
    assert stated.score_range == (0.0, 98.0)


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (2.5, 2.5),
        (3, 3.0),
        ([2.5, 7.0, 8.0], 2.5),
        ((2.5,), 2.5),
        (np.float64(2.5), 2.5),
        (np.float32(2.5), 2.5),
        ([np.float64(2.5), np.float64(7)], 2.5),
        (np.array(2.5), 2.5),
        (np.array([2.5, 7.0, 8.0]), 2.5),
        (np.array([[2.5]], dtype=np.float32), 2.5),
        (torch.tensor([2.5]), 2.5),
    ],
    ids=repr,
)
@pytest.mark.parametrize("written_with", ["numpy 2", "numpy 1"])
def test_k_and_b_in_every_form(tmp_path: Path, written_with: str, k: Any, expected: float) -> None:
    path, state = tmp_path / "p1q2.pth", {"w": torch.ones(2)}
    content = {"model": state, "k": k, "b": k}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    if written_with == "numpy 1":
        path.write_bytes(path.read_bytes().replace(b"numpy._core.", b"numpy.core."))
    read = read_linearity_checkpoint(path)
    assert (read.k, read.b, read.score_range) == (expected, expected, None)
    assert torch.equal(read.state["w"], state["w"])
    allowed = torch.serialization.get_safe_globals()
    assert np.ndarray not in [part[0] if isinstance(part, tuple) else part for part in allowed]


def test_safetensors_state_k_b_and_the_range_beside_the_tensors(
    tmp_path: Path, small_state: State
) -> None:
    stated = linearity_metadata(1.5, -2.0, (10.0, 90.0))
    save_file(small_state, tmp_path / "w.safetensors", stated)
    save(tmp_path / "w.pth", small_state, k=1.5, b=-2.0)
    metric = load(tmp_path, name="linearity-small", weights="w.safetensors")
    other = load(tmp_path, name="linearity-small", weights="w.pth")
    assert (metric.score_range, other.score_range) == ((10.0, 90.0), (0.0, 100.0))
    assert torch.equal(metric(IMAGES), other(IMAGES))


def test_the_shipped_metric_is_found_or_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_state: State
) -> None:
    monkeypatch.setattr("tasks.models.resources.files", lambda package: tmp_path / package)
    with pytest.raises(ModelError, match=r"weights linearity-small\.safetensors are not installed"):
        load(tmp_path, name="linearity-small")
    folder = tmp_path / "tasks" / "weights"
    folder.mkdir(parents=True)
    stated = linearity_metadata(1.5, -2.0, (10.0, 90.0))
    save_file(small_state, folder / QUALITY_MODELS["linearity-small"].weights, stated)
    metric = load(tmp_path, name="linearity-small")
    assert repr(metric).startswith("linearity-small@")
    assert metric.score_range == (10.0, 90.0)


class Trap:
    """Unpickling this would run code."""

    sprung: ClassVar[list[str]] = []

    def __reduce__(self) -> Any:
        return (Trap.sprung.append, ("sprung",))


W = {"w": torch.ones(2)}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"k": 1.0, "b": 0.0}, "expected a dict with model, k and b"),
        ([1, 2], "expected a dict with model, k and b"),
        ({"model": [1], "k": 1.0, "b": 0.0}, "model: expected a dict of tensors"),
        ({"model": W, "b": 0.0}, "expected a number k, found none"),
        ({"model": W, "k": 1.0}, "expected a number b, found none"),
        ({"model": W, "k": float("nan"), "b": 0.0}, "k: expected a finite number, got nan"),
        ({"model": W, "k": np.float64("inf"), "b": 0.0}, "k: expected a finite number, got"),
        ({"model": W, "k": 1.0, "b": []}, r"b: expected a finite number, got \[\]"),
        ({"model": W, "k": "1.0", "b": 0.0}, "k: expected a finite number, got '1.0'"),
        ({"model": W, "k": True, "b": 0.0}, "k: expected a finite number, got True"),
        ({"model": W, "k": {"a": 1}, "b": 0.0}, "k: expected a finite number, got {'a': 1}"),
        ({"model": W, "k": [[1.0], 2.0], "b": 0.0}, "k: expected a finite number"),
        ({"model": W, "k": 1.0, "b": 0.0, "score_range": 3.0}, "score_range: expected 2 finite"),
        ({"model": W, "k": 1.0, "b": 0.0, "score_range": [3.0, 2.0]}, "two ascending numbers"),
        ({"model": Trap(), "k": 1.0, "b": 0.0}, "expected a dict of tensors and numbers only"),
        ({"model": W, "k": Trap(), "b": 0.0}, "expected a dict of tensors and numbers only"),
        ({"model": W, "k": np.array([Trap()]), "b": 0.0}, "tensors and numbers only"),
        ({"model": W, "k": np.array(1j), "b": 0.0}, "tensors and numbers only"),
        ({"model": nn.Linear(1, 1), "k": 1.0, "b": 0.0}, "tensors and numbers only"),
    ],
)
def test_refused_checkpoints(tmp_path: Path, content: Any, expected: str) -> None:
    torch.save(content, tmp_path / "p1q2.pth")
    with pytest.raises(ModelError, match=rf"metric\.weights: .*p1q2\.pth: .*{expected}"):
        read_linearity_checkpoint(tmp_path / "p1q2.pth")
    assert not Trap.sprung


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (None, "expected a number k, found none"),
        ({"k": "1.0"}, "expected a number b, found none"),
        ({"k": "one", "b": "0"}, "k: expected JSON, got 'one'"),
        ({"k": "NaN", "b": "0"}, "k: expected a finite number, got nan"),
        ({"k": "1", "b": "0", "score_range": "[1]"}, "score_range: expected 2 finite numbers"),
    ],
)
def test_refused_safetensors(tmp_path: Path, stated: dict[str, str] | None, expected: str) -> None:
    save_file(W, tmp_path / "w.safetensors", stated)
    with pytest.raises(ModelError, match=rf"metric\.weights: .*w\.safetensors: {expected}"):
        read_linearity_checkpoint(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": "linearity:small"}, "metric.weights: expected the checkpoint of linearity:small"),
        ({"name": "linearity:vgg16", "weights": "p1q2.pth"}, "metric.name: arch: .* got 'vgg16'"),
        (
            {"name": "linearity:resnet18", "weights": "p1q2.pth"},
            r"metric.weights: p1q2.pth: features.0.weight: expected shape \(64, 3, 7, 7\), got "
            r"\(32, 7, 7, 7\)",
        ),
        ({"name": "linearity-small", "weights": "no.pth"}, "metric.weights: expected a file, got"),
        ({"name": "linearity"}, "metric.name: expected one of linearity-small, linearity:<arch"),
        ({"name": "piq:"}, "metric.name: expected one of"),
        (
            {"name": "linearity:small", "weights": "p1q2.pth", "lower_is_better": True},
            "metric.lower_is_better: linearity:small states False, got True",
        ),
        (
            {"name": "linearity:small", "weights": "p1q2.pth", "score_range": (0, float("inf"))},
            "metric.score_range: expected two finite ascending scores",
        ),
    ],
)
def test_refused_specifications(
    tmp_path: Path, small_file: Path, fields: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ModelError, match=expected):
        load(tmp_path, **fields)


@pytest.mark.parametrize("change", ["missing", "extra"])
def test_a_tensor_too_few_or_too_many_is_named(
    tmp_path: Path, small_state: State, change: str
) -> None:
    state = dict(small_state)
    if change == "missing":
        del state["regr7.bias"]
    else:
        state["regr8.bias"] = torch.zeros(1)
    save(tmp_path / "w.pth", state)
    expected = {"missing": "expected a tensor regr7.bias", "extra": "unexpected tensor regr8.bias"}
    with pytest.raises(ModelError, match=f"metric.weights: w.pth: {expected[change]}"):
        load(tmp_path, name="linearity-small", weights="w.pth")


OWN = """
import torch
from torch import nn

class Brightness(nn.Module):
    {facts}
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
    def forward(self, images{reference}):
        return {score}

def make():
    return Brightness().train()
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes a module with a metric of the user's own and returns the metric's name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    count = 0

    def write(
        facts: str = "lower_is_better, score_range = True, (0, 1)",
        reference: str = "",
        score: str = "self.weight * images.mean((1, 2, 3))",
    ) -> str:
        nonlocal count
        count += 1
        module = f"own_{tmp_path.name}_{count}"
        text = OWN.format(facts=facts, reference=reference, score=score)
        (tmp_path / f"{module}.py").write_text(text)
        return f"python:{module}:make"

    return write


def test_a_metric_of_the_user(tmp_path: Path, own: Callable[..., str]) -> None:
    metric = load(tmp_path, name=own(), label="own")
    torch.testing.assert_close(metric(IMAGES), IMAGES.mean((1, 2, 3)))
    assert (metric.lower_is_better, metric.score_range) == (True, (0.0, 1.0))
    assert not metric.metric.training
    darker = repr(load(tmp_path, name=own(score="-images.mean((1, 2, 3))"), label="own"))
    save_file({"weight": torch.full((1,), 2.0)}, tmp_path / "w.safetensors")
    heavier = load(tmp_path, name=own(), weights="w.safetensors", label="own")
    torch.testing.assert_close(heavier(IMAGES), 2 * IMAGES.mean((1, 2, 3)))
    assert len({repr(metric), darker, repr(heavier)}) == 3


def test_a_metric_of_the_user_that_compares(tmp_path: Path, own: Callable[..., str]) -> None:
    facts = "lower_is_better, score_range, needs_reference = True, (0, 1), True"
    name = own(facts, ", reference", "(images - reference).abs().mean((1, 2, 3))")
    metric = load(tmp_path, name=name)
    assert metric.needs_reference
    torch.testing.assert_close(metric(IMAGES, 1 - IMAGES), (2 * IMAGES - 1).abs().mean((1, 2, 3)))


def test_gradients_of_a_metric_of_the_user_are_finite(
    tmp_path: Path, own: Callable[..., str]
) -> None:
    metric = load(tmp_path, name=own(score="(images - images[:, :, :1]).sqrt().sum((1, 2, 3))"))
    images = IMAGES.cumsum(2).requires_grad_(True)
    (gradient,) = torch.autograd.grad(metric(images).sum(), images)
    assert torch.isfinite(gradient).all()
    assert (gradient[:, :, 1:] > 0).all()


@pytest.mark.parametrize(
    ("facts", "fields", "expected"),
    [
        ("pass", {"score_range": (0, 1)}, "metric.lower_is_better: expected true or false"),
        ("lower_is_better = False", {}, "metric.score_range: expected the scores of the worst"),
        (
            "lower_is_better, score_range = False, (1, 0)",
            {},
            r"metric.score_range: expected two finite ascending scores, got \(1, 0\)",
        ),
        ("lower_is_better, score_range = False, 3", {}, "ascending scores, got 3"),
    ],
)
def test_direction_and_range_have_to_be_known(
    tmp_path: Path, own: Callable[..., str], facts: str, fields: dict[str, Any], expected: str
) -> None:
    name = own(facts)
    with pytest.raises(ModelError, match=expected):
        load(tmp_path, name=name, **fields)
    stated = {"score_range": (0, 1)} | ({"lower_is_better": False} if facts == "pass" else {})
    assert load(tmp_path, name=name, **stated).score_range == (0.0, 1.0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("python:no_such_module:make", "metric.name: cannot import no_such_module"),
        ("python:tests.tasks.small_networks:no", "metric.name: .* has no 'no'"),
        ("python:tests.tasks.small_networks:nothing", "metric.name: .* torch module, got None"),
    ],
)
def test_metrics_that_are_none(tmp_path: Path, name: str, expected: str) -> None:
    with pytest.raises(ModelError, match=expected):
        load(tmp_path, name=name)
