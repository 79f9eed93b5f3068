"""The network that purifies, and the purifier around a network."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from defender.models import Normalised
from defender.models.denoiser import denoiser
from defender.models.fcn import FCN, fcn, residual_fcn
from defender.objectives import Defended, Misclassify, value_and_gradient
from defender.purifiers import Learned
from tests import cases


def test_the_layers_are_those_of_the_source() -> None:
    torch.manual_seed(0)
    network = fcn().eval()
    weights = dict(network.named_parameters())
    shapes = [tuple(value.shape) for name, value in weights.items() if name.endswith("weight")]
    assert shapes == [(64, 3, 3, 3), (16, 64, 3, 3), (3, 16, 3, 3)]
    images = cases.images()
    first, second, third = (
        (weights[f"layers.{i}.weight"], weights[f"layers.{i}.bias"]) for i in (0, 2, 5)
    )
    features = functional.leaky_relu(functional.conv2d(images, *first, padding=1), 0.2)
    features = functional.conv2d(features, *second, padding=1)
    variance, mean = torch.var_mean(features, dim=(2, 3), keepdim=True, correction=0)
    features = functional.leaky_relu((features - mean) / (variance + 1e-5).sqrt(), 0.2)
    last = functional.conv2d(features, *third, padding=1).tanh()
    with torch.no_grad():
        assert torch.allclose(network(images), last.clamp(0, 1), atol=1e-5)
        # values below zero can only be learned from if they are seen
        assert torch.allclose(network.train()(images), last, atol=1e-5)
        assert last.min() < 0


def test_a_residual_network_starts_as_the_identity() -> None:
    network = residual_fcn().eval()
    assert torch.equal(network(cases.images()), cases.images())
    network.train()(cases.images()).square().sum().backward()
    last = list(network.parameters())[-1].grad
    assert last is not None
    assert last.abs().sum() > 0


def test_the_name_of_a_learned_purifier_is_that_of_its_weights() -> None:
    network = Normalised(fcn(), name="fcn", digest="a" * 64).eval()
    assert repr(Learned(network)) == "Learned(network=fcn@aaaaaaaaaaaa)"


def test_an_image_does_not_depend_on_its_batch_mates() -> None:
    purifier, images = Learned(cases.image_network()), cases.images()
    together = purifier(images, seeds=cases.seeds())
    alone = purifier(images[5:6], seeds=cases.seeds()[5:6])
    assert torch.equal(together[5:6], alone)


def test_grey_images_are_shown_in_three_channels() -> None:
    network = cases.image_network()
    grey = cases.images(channels=1)
    made = Learned(network)(grey, seeds=cases.seeds())
    expected = network(grey.expand(-1, 3, -1, -1)).mean(1, keepdim=True)
    assert torch.allclose(made, expected, atol=1e-5)
    own = Learned(FCN(1).eval())(grey, seeds=cases.seeds())
    assert own.shape == grey.shape


def test_an_attack_can_differentiate_it_and_its_weights_get_no_gradient() -> None:
    network = cases.image_network(residual=True)
    goal = Misclassify(cases.MODEL, cases.labels())
    objective = Defended(goal, Learned(network), cases.seeds(), backward="exact")
    gradient = value_and_gradient(objective, cases.images())[1]
    assert gradient.abs().amax(dim=(1, 2, 3)).min() > 0
    assert all(weight.grad is None for weight in network.parameters())


def test_networks_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="network: expected it in evaluation mode"):
        Learned(fcn())
    shrinking = nn.Conv2d(3, 3, 3).eval()
    grey = Normalised(FCN(1), name="grey").eval()
    with pytest.raises(ValueError, match="network: grey takes images of 1 channels, got 3"):
        Learned(grey)(cases.images(), seeds=cases.seeds())
    with pytest.raises(ValueError, match=r"network: expected \(1, 3, 12, 12\) from Conv2d"):
        Learned(shrinking)(cases.images(), seeds=cases.seeds())


@pytest.mark.parametrize("side", [(9, 12), (8, 7)])
def test_a_denoiser_starts_as_the_identity_and_sees_every_pixel(side: tuple[int, int]) -> None:
    network = denoiser().eval()
    images = torch.rand(2, 3, *side, generator=torch.Generator().manual_seed(5))
    assert torch.equal(network(images), images)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.01)
    assert network(images).shape == images.shape
    leaf = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(network.train()(leaf)[:, :, -1, -1].sum(), leaf)
    assert bool((slope[:, :, -1, -1].abs() > 0).all())


def test_a_denoiser_of_grey_images_sees_blocks_of_four_pixels_and_their_details() -> None:
    network = denoiser(1)
    assert network.layers[0].weight.shape[1] == 8
    assert network(torch.rand(1, 1, 6, 6)).shape == (1, 1, 6, 6)
