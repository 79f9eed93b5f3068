from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn

from defender.models.quality_library import PIQ, LibraryMetric, finite_gradient
from defender.objectives import RaiseScore, value_and_gradient
from defender.types import QualityMetric
from tasks.errors import ModelError
from tasks.quality_models import LoadedMetric, load_metric
from tasks.subject_specs import MetricSpec

CPU = torch.device("cpu")
FETCHES = {"LPIPS", "DISTS", "PieAPP", "brisque", "CLIPIQA"}
SIDE = 164


def load(**fields: Any) -> LoadedMetric:
    return load_metric(MetricSpec(**fields), Path(), CPU)


def pairs(n: int = 2, channels: int = 3) -> tuple[Tensor, Tensor]:
    """Noisy images and their originals."""
    generator = torch.Generator().manual_seed(12)
    coarse = torch.rand(n, channels, 9, 9, generator=generator)
    clean = nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear")
    noise = torch.randn(clean.shape, generator=generator)
    return (clean + 0.1 * noise).clamp(0, 1), clean


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network and nothing in the caches."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))


@pytest.mark.parametrize("name", sorted(set(PIQ) - FETCHES))
def test_metrics_of_piq_prefer_the_original(name: str) -> None:
    import piq

    metric = load(name=f"piq:{name}")
    images, clean = pairs()
    scores, perfect = metric(images, clean), metric(clean, clean)
    assert isinstance(metric, QualityMetric)
    assert metric.needs_reference
    expected = getattr(piq, name)(images[:1], clean[:1], reduction="none")
    torch.testing.assert_close(scores[:1], expected.reshape(1), rtol=1e-4, atol=1e-5)
    assert ((scores > perfect) if metric.lower_is_better else (scores < perfect)).all()
    low, high = metric.score_range
    assert ((scores > low) & (scores < high)).all()
    best = low if metric.lower_is_better else high
    torch.testing.assert_close(perfect, torch.full((2,), best), rtol=1e-3, atol=1e-3)
    assert re.fullmatch(rf"piq:{name}@[0-9a-f]{{12}}", repr(metric))


@pytest.mark.parametrize("name", sorted(set(PIQ) - FETCHES))
def test_gradients_of_metrics_of_piq_are_finite_and_lead_towards_the_original(name: str) -> None:
    metric = load(name=f"piq:{name}")
    images, clean = pairs(1)
    scores, gradients = value_and_gradient(RaiseScore(metric, clean), images)
    assert gradients.abs().max() > 0
    moved = images + 1e-3 * (clean - images)
    moved_scores, _ = value_and_gradient(RaiseScore(metric, clean), moved)
    assert (moved_scores > scores).all()
    assert (gradients * (clean - images)).sum() > 0


def test_gradients_that_are_no_numbers_become_zero() -> None:
    import piq

    # the similarity of phases has no gradient where an image is flat
    images, clean = torch.full((1, 3, 40, 40), 0.5), pairs(1)[1][:, :, :40, :40]
    leaf = images.clone().requires_grad_(True)
    (broken,) = torch.autograd.grad(piq.fsim(leaf, clean, reduction="none").sum(), leaf)
    assert broken.isnan().any()
    _, gradients = value_and_gradient(RaiseScore(load(name="piq:fsim"), clean), images)
    assert torch.isfinite(gradients).all()
    assert (gradients == 0)[broken.isnan()].all()


def test_infinite_gradients_become_zero_and_others_stay() -> None:
    images = torch.tensor([0.0, 0.25, 1.0]).view(1, 1, 1, 3).requires_grad_(True)
    (gradient,) = torch.autograd.grad(finite_gradient(images).sqrt().sum(), images)
    assert gradient.flatten().tolist() == [0.0, 1.0, 0.5]


@pytest.mark.parametrize("name", ["srsim", "vif_p", "gmsd"])
def test_an_image_is_scored_without_a_look_at_its_neighbours(name: str) -> None:
    metric = load(name=f"piq:{name}")
    images, clean = pairs(3)
    images[1], clean[2] = 0.5, 0.3
    together = metric(images, clean)
    alone = torch.cat([metric(images[i : i + 1], clean[i : i + 1]) for i in range(3)])
    assert torch.equal(together, alone)


def test_grey_images_count_as_rgb_and_other_sizes_are_resized() -> None:
    metric = load(name="piq:vsi")
    images, clean = pairs(channels=1)
    assert torch.equal(
        metric(images, clean), metric(images.repeat(1, 3, 1, 1), clean.repeat(1, 3, 1, 1))
    )
    half = nn.functional.interpolate(images, scale_factor=0.5, mode="bilinear", antialias=True)
    again = nn.functional.interpolate(half, size=(SIDE, SIDE), mode="bilinear", antialias=True)
    assert torch.equal(metric(half, clean), metric(again, clean))


def test_values_an_ulp_outside_the_range_are_scored() -> None:
    images, clean = pairs()
    images[0, 0, 0, 0], clean[0, 0, 0, 0] = 1 + 1e-6, -1e-6
    assert torch.isfinite(load(name="piq:ssim")(images, clean)).all()


def test_images_that_cannot_be_scored() -> None:
    metric = load(name="piq:multi_scale_ssim")
    images, clean = pairs()
    with pytest.raises(ValueError, match=r"multi_scale_ssim: expected an image .* got \(1, 3, 9"):
        metric(images[:, :, :9, :9], clean[:, :, :9, :9])
    with pytest.raises(ValueError, match="expected 2 references, got None"):
        metric(images)
    with pytest.raises(ValueError, match="expected 2 references, got 1"):
        metric(images, clean[:1])
    assert metric(images[:0], clean[:0]).shape == (0,)


@pytest.mark.parametrize("name", sorted(FETCHES))
@pytest.mark.usefixtures("offline")
def test_weights_that_cannot_be_fetched(name: str) -> None:
    with pytest.raises(
        ModelError,
        match=rf"metric\.name: the weights of piq:{name} cannot be fetched \(.*no network",
    ):
        load(name=f"piq:{name}")


def test_brisque_has_a_gradient_through_the_luma(monkeypatch: pytest.MonkeyPatch) -> None:
    def vectors(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(13)
        return torch.randn(20, 1, generator=generator), torch.randn(20, 36, generator=generator)

    monkeypatch.setattr(import_module("piq.brisque"), "load_url", vectors)
    metric = load(name="piq:brisque")
    images, _ = pairs()
    scores, gradients = value_and_gradient(RaiseScore(metric), images)
    assert (metric.needs_reference, metric.lower_is_better) == (False, True)
    assert scores.shape == (2,)
    assert gradients.abs().amax(dim=(1, 2, 3)).min() > 0


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": "piq:sim"}, "metric.name: piq:sim cannot be used: expected one of psnr, ssim"),
        ({"name": "piq:FID"}, "metric.name: piq:FID cannot be used: expected one of"),
        ({"name": "piq:ssim", "weights": "w.pth"}, "metric.weights: piq:ssim brings its own"),
        (
            {"name": "piq:gmsd", "lower_is_better": False},
            "metric.lower_is_better: piq:gmsd states True, got False",
        ),
    ],
)
def test_refused_specifications(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(ModelError, match=expected):
        load(**fields)


@pytest.mark.parametrize(
    ("package", "install"), [("piq", r"'image-defender\[quality\]'"), ("pyiqa", "pyiqa")]
)
def test_a_package_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, package: str, install: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ModelError, match=rf"{package}:ssim needs the package {package}: .*; pip install {install}$"
    ):
        load(name=f"{package}:ssim")


class StandIn(nn.Module):
    """What ``pyiqa.create_metric`` makes, as far as it is used."""

    def __init__(self, name: str, score_range: str | None) -> None:
        super().__init__()
        self.metric_mode = "FR" if name == "compares" else "NR"
        self.lower_better = name == "compares"
        self.score_range = score_range
        self.network = nn.Conv2d(3, 1, 1)
        self.empty = nn.Parameter(torch.empty(0))

    def forward(self, target: Tensor, ref: Tensor | None = None) -> Tensor:
        assert target.shape[1] == 3, "expected RGB"
        if ref is not None:
            return (target - ref).abs().mean(dim=(1, 2, 3))
        return self.network(target).mean(dim=(2, 3))  # type: ignore[no-any-return]


@pytest.fixture
def pyiqa(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module: Any = ModuleType("pyiqa")
    ranges = {"compares": "0, 1", "judges": "~-2, ~30", "endless": "0, ~", "unknown": None}

    def create_metric(
        name: str, as_loss: bool, loss_reduction: str, device: torch.device
    ) -> StandIn:
        if name == "far":
            raise URLError("no network in tests")
        if name == "broken":
            raise RuntimeError("no such network")
        assert (as_loss, loss_reduction, device) == (True, "none", CPU)
        torch.manual_seed(3)
        return StandIn(name, ranges[name])

    module.create_metric = create_metric
    module.list_models = lambda: [*ranges, "far", "broken"]
    module.__version__ = "0.1"
    monkeypatch.setitem(sys.modules, "pyiqa", module)
    return module  # type: ignore[no-any-return]


def test_a_metric_of_pyiqa_that_judges(pyiqa: ModuleType) -> None:
    metric = load(name="pyiqa:judges")
    assert (metric.lower_is_better, metric.needs_reference) == (False, False)
    assert metric.score_range == (-2.0, 30.0)
    assert not any(parameter.requires_grad for parameter in metric.parameters())
    assert len(list(metric.parameters())) == 3
    assert not any(module.training for module in metric.modules())
    images, _ = pairs()
    _, gradients = value_and_gradient(RaiseScore(metric), images)
    assert gradients.abs().max() > 0
    pyiqa.__version__ = "0.2"  # type: ignore[attr-defined]
    assert repr(load(name="pyiqa:judges")) != repr(metric)


@pytest.mark.usefixtures("pyiqa")
def test_a_metric_of_pyiqa_that_compares() -> None:
    metric = load(name="pyiqa:compares")
    assert (metric.lower_is_better, metric.needs_reference) == (True, True)
    assert metric.score_range == (0.0, 1.0)
    images, clean = pairs(channels=1)
    torch.testing.assert_close(metric(images, clean), (images - clean).abs().mean((1, 2, 3)))


@pytest.mark.parametrize("name", ["endless", "unknown"])
@pytest.mark.usefixtures("pyiqa")
def test_a_metric_of_pyiqa_without_a_range(name: str) -> None:
    with pytest.raises(ModelError, match=rf"metric\.score_range: .*pyiqa:{name} does not state"):
        load(name=f"pyiqa:{name}")
    assert load(name=f"pyiqa:{name}", score_range=(0, 9)).score_range == (0.0, 9.0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("far", r"the weights of pyiqa:far cannot be fetched \(.*no network"),
        ("broken", "pyiqa:broken cannot be used: no such network"),
        ("none", "pyiqa:none cannot be used: expected one of compares, judges"),
    ],
)
@pytest.mark.usefixtures("pyiqa")
def test_metrics_of_pyiqa_that_cannot_be_had(name: str, expected: str) -> None:
    with pytest.raises(ModelError, match=rf"metric\.name: {expected}"):
        load(name=f"pyiqa:{name}")


@pytest.mark.parametrize("answer", [torch.zeros(1, 3), 0.5])
def test_a_library_that_does_not_give_one_number(answer: Any) -> None:
    facts: Any = {"lower_is_better": False, "score_range": (0, 1), "needs_reference": False}
    metric = LibraryMetric(lambda image: answer, "odd", **facts)
    with pytest.raises(ValueError, match=r"odd: expected one score an image, got (\(1, 3\)|float)"):
        metric(torch.rand(1, 3, 4, 4))
