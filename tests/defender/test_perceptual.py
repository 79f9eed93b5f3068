"""LPIPS and DISTS through piq, on networks of the right shape with weights made up."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from defender import perceptual
from defender.attacks import Zhang
from defender.gradients import gradient
from defender.objectives import RaiseScore
from defender.perceptual import perceptual_distance
from tests import cases

CHANNELS = (64, 128, 256, 512, 512)
STARTS, ENDS, POOLS = (0, 5, 10, 17, 24), (3, 8, 15, 22, 29), (4, 9, 16, 23, 30)


def small_vgg(**_: Any) -> SimpleNamespace:
    """Layers at the places of VGG-16's, one convolution a block in the place of two or three."""
    generator = torch.Generator().manual_seed(1)
    layers: list[nn.Module] = [nn.Identity() for _ in range(31)]
    previous = 3
    for start, end, pool, channels in zip(STARTS, ENDS, POOLS, CHANNELS, strict=True):
        convolution = nn.Conv2d(previous, channels, 3, padding=1)
        with torch.no_grad():
            convolution.weight.normal_(0, (2 / (9 * previous)) ** 0.5, generator=generator)
        layers[start], layers[end] = convolution, nn.ReLU()
        layers[pool] = nn.MaxPool2d(2)
        previous = channels
    return SimpleNamespace(features=nn.Sequential(*layers))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache of torch's hub."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    perceptual._network.cache_clear()
    (tmp_path / "checkpoints").mkdir()
    yield tmp_path / "checkpoints"
    perceptual._network.cache_clear()


@pytest.fixture
def weights(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("piq")
    monkeypatch.setattr(importlib.import_module("piq.perceptual"), "vgg16", small_vgg)
    (cache / "vgg16-397923af.pth").touch()
    torch.save([torch.full((1, c, 1, 1), 1 / c) for c in CHANNELS], cache / "lpips_weights.pt")
    share = torch.full((1, 3 + sum(CHANNELS), 1, 1), 0.5 / (3 + sum(CHANNELS)))
    torch.save({"alpha": share, "beta": share}, cache / "dists_weights.pt")


def pictures(channels: int = 3) -> torch.Tensor:
    return cases.images(2, channels).repeat_interleave(3, 2).repeat_interleave(3, 3)


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("distance", ["lpips", "dists"])
def test_distances_grow_from_zero_image_by_image(distance: str) -> None:
    images = pictures()
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(2))
    scores = [perceptual_distance(distance, images + s * noise, images) for s in (0.0, 0.02, 0.1)]
    assert scores[0].shape == (2,)
    assert scores[0].abs().max() < 1e-5
    assert (scores[1] > scores[0]).all()
    assert (scores[2] > scores[1]).all()
    alone = perceptual_distance(distance, images[1:] + 0.1 * noise[1:], images[1:])
    torch.testing.assert_close(alone, scores[2][1:], rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("distance", ["lpips", "dists"])
def test_zhang_raises_the_score_and_keeps_the_distance_smaller(distance: str) -> None:
    images, seeds = pictures(), cases.seeds(2)

    class Weak(nn.Module):
        """A metric whose range is so wide that the distance decides."""

        score_range = (0.0, 1e4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = cases.QUALITY(images)
            return scores

    objective = RaiseScore(Weak().eval())
    careful = Zhang(distance=distance)(images, objective, seeds=seeds)
    careless = Zhang(distance=distance)(images, RaiseScore(cases.QUALITY), seeds=seeds)
    assert (cases.QUALITY(careless) > cases.QUALITY(images)).all()
    far = perceptual_distance(distance, careless, images)
    assert (perceptual_distance(distance, careful, images) < far).all()
    with torch.inference_mode():
        again = Zhang(distance=distance)(pictures(), objective, seeds=seeds)
    torch.testing.assert_close(again, careful)


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("distance", ["lpips", "dists"])
def test_grey_images_are_taken_as_rgb(distance: str) -> None:
    grey, other = pictures(1), pictures(1).flip(0)
    distances = perceptual_distance(distance, grey, other)
    rgb = perceptual_distance(distance, grey.repeat(1, 3, 1, 1), other.repeat(1, 3, 1, 1))
    torch.testing.assert_close(distances, rgb)
    slope = gradient(lambda images: perceptual_distance(distance, images, other), grey)
    assert slope.shape == grey.shape
    assert slope.any()


def test_says_what_is_missing(cache: Path) -> None:
    images = pictures()
    with pytest.raises(ValueError, match=r"distance: lpips .*none named vgg16-.*lpips_weights\.pt"):
        perceptual_distance("lpips", images, images)
    (cache / "vgg16-397923af.pth").touch()
    with pytest.raises(ValueError, match=r"none named dists_weights\.pt"):
        Zhang(distance="dists")(images, RaiseScore(cases.QUALITY), seeds=cases.seeds(2))
    with pytest.raises(ValueError, match=r"lpips \| dists, got 'ssim'"):
        perceptual_distance("ssim", images, images)
    with pytest.raises(ValueError, match=r"32 pixels or more, got \(12, 12\)"):
        perceptual_distance("lpips", cases.images(), cases.images())


def test_says_that_piq_is_not_installed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("vgg16-397923af.pth", "lpips_weights.pt"):
        (cache / name).touch()

    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ModuleNotFoundError, match="piq is not installed"):
        perceptual_distance("lpips", pictures(), pictures())
