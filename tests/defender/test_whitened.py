from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from defender.models.classifiers import Normalised
from defender.models.whitened import WhitenedResNet, identity_convolution
from defender.training import ClassifierTraining


def images(count: int) -> Tensor:
    """Smooth images: neighbouring pixels are alike, as in photographs."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    return torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear")


def test_whitened_patches_are_uncorrelated_and_of_unit_variance() -> None:
    network = WhitenedResNet()
    batch = images(64) - 0.5
    network.initialise(batch)
    with torch.no_grad():
        flat = network.whiten(batch).permute(1, 0, 2, 3).flatten(1)[:12].double()
    covariance = torch.cov(flat)
    variance = covariance.diagonal()
    assert torch.all(variance < 1.01)
    assert variance.max() > 0.9
    correlation = covariance / (variance.sqrt().unsqueeze(0) * variance.sqrt().unsqueeze(1))
    assert (correlation - torch.eye(12)).abs().max() < 0.05


def test_first_filters_pass_their_input_on() -> None:
    convolution = identity_convolution(3, 5)
    batch = images(2)
    with torch.no_grad():
        assert torch.allclose(convolution(batch)[:, :3], batch, atol=1e-6)


def test_training_whitens_first_keeps_it_and_lowers_the_loss() -> None:
    torch.manual_seed(0)
    pixels = (images(32) * 255).to(torch.uint8)
    labels = torch.arange(32) % 2

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for start in (0, 16):
            yield pixels[start : start + 16], labels[start : start + 16]

    network = WhitenedResNet(classes=2, widths=(8, 8, 8))
    model = Normalised(network, (0.5,), (0.25,))
    recipe = ClassifierTraining(epochs=8, peak_lr=0.5, bias_rate=8, padding=0, flip=False, cutout=0)
    states = list(recipe.fit(batches, model, steps_per_epoch=2, seed=0))
    history = states[-1].history
    assert history[-1]["loss"] < history[0]["loss"]
    filters = network.whiten.weight
    assert not filters.requires_grad
    assert torch.equal(filters[:12], -filters[12:])
