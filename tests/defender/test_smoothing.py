"""Smoothing filters, layers and masks, against plain loops and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from defender.purifiers import JPEG, BitDepth, Gaussian, Median
from defender.separation import layers, suspected
from defender.smoothing import gaussian_filter, median_filter, minimum_filter, symmetric_pad
from tests import cases


@pytest.mark.parametrize("window", [1, 3, 5])
@pytest.mark.parametrize(("padding", "mode"), [("reflect", "mirror"), ("symmetric", "reflect")])
def test_median_agrees_with_scipy(window: int, padding: str, mode: str) -> None:
    images = torch.rand(2, 3, 7, 9, generator=torch.Generator().manual_seed(0))
    expected = ndimage.median_filter(images.numpy(), (1, 1, window, window), mode=mode)
    assert np.array_equal(median_filter(images, window, padding).numpy(), expected)
    purified = Median(window, padding)(images, seeds=cases.seeds(2))
    assert np.array_equal(purified.numpy(), expected)


@pytest.mark.parametrize("window", [3, 5])
def test_median_is_the_same_with_and_without_gradients(window: int) -> None:
    images = cases.images()
    leaf = images.clone().requires_grad_(True)
    differentiable = median_filter(leaf, window)
    assert torch.equal(differentiable.detach(), median_filter(images, window))
    (gradient,) = torch.autograd.grad(differentiable.sum(), leaf)
    # each result is one of the pixels, whose border copies count for themselves
    assert gradient.sum().item() == images.numel()
    double = images.double()
    assert median_filter(double, window).dtype == torch.float64


@pytest.mark.parametrize("window", [1, 3, 5, 9])
def test_minimum_agrees_with_scipy(window: int) -> None:
    images = torch.rand(2, 3, 7, 9, generator=torch.Generator().manual_seed(0))
    expected = ndimage.minimum_filter(images.numpy(), (1, 1, window, window), mode="reflect")
    assert np.array_equal(minimum_filter(images, window).numpy(), expected)


@pytest.mark.parametrize("margin", [0, 2, 5, 13])
def test_symmetric_margin_agrees_with_numpy(margin: int) -> None:
    images = torch.rand(2, 3, 3, 5, generator=torch.Generator().manual_seed(0))
    frame = ((0, 0), (0, 0), (margin, margin), (margin, margin))
    expected = np.pad(images.numpy(), frame, mode="symmetric")
    assert np.array_equal(symmetric_pad(images, margin).numpy(), expected)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 1.3])
def test_gaussian_agrees_with_scipy(sigma: float) -> None:
    images = torch.rand(2, 3, 9, 8, generator=torch.Generator().manual_seed(0)).double()
    reach = int(np.ceil(3 * sigma))
    expected = ndimage.gaussian_filter(
        images.numpy(), (0, 0, sigma, sigma), mode="mirror", radius=(0, 0, reach, reach)
    )
    assert np.allclose(gaussian_filter(images, sigma).numpy(), expected, atol=1e-12)


def test_windows_out_of_range_are_named() -> None:
    images = cases.images(1)
    for window in (0, 2, -3):
        with pytest.raises(ValueError, match="window: expected"):
            median_filter(images, window)
        with pytest.raises(ValueError, match="window: expected"):
            minimum_filter(images, window)
    with pytest.raises(ValueError, match=r"padding: expected reflect \| symmetric, got 'zero'"):
        median_filter(images, 3, "zero")
    with pytest.raises(ValueError, match="sigma: expected > 0"):
        gaussian_filter(images, 0.0)
    with pytest.raises(ValueError, match="sides above 2 pixels"):
        median_filter(images[:, :, :2], 5)
    with pytest.raises(ValueError, match="window: expected an odd number"):
        Median(window=4)
    with pytest.raises(ValueError, match="sigma: expected > 0"):
        Gaussian(0.0)


def test_smoothing_leaves_flat_images_alone() -> None:
    flat = torch.full((1, 3, 12, 12), 0.3)
    assert torch.equal(median_filter(flat, 3), flat)
    assert torch.allclose(gaussian_filter(flat, 1.0), flat)


def test_bit_depth_leaves_that_many_levels() -> None:
    ramp = torch.linspace(0, 1, 1000).view(1, 1, 10, 100)
    for bits in (1, 3, 8):
        result = BitDepth(bits)(ramp, seeds=cases.seeds(1))
        assert len(result.unique()) == 2**bits
        assert (result - ramp).abs().max() <= 0.5 / (2**bits - 1) + 1e-6


def test_jpeg_loses_less_at_a_higher_quality() -> None:
    images, seeds = cases.images(), cases.seeds()
    errors = [
        (JPEG(quality)(images, seeds=seeds) - images).square().mean() for quality in (10, 50, 95)
    ]
    assert errors[0] > errors[1] > errors[2]
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        JPEG()(images[:, :2], seeds=seeds)


def test_gaussian_keeps_gradients_at_black_and_white() -> None:
    images = torch.ones(1, 3, 12, 12, requires_grad=True)
    Gaussian(1.0)(images, seeds=cases.seeds(1)).sum().backward()
    assert images.grad is not None
    assert images.grad.sum().item() == pytest.approx(3 * 144, rel=1e-5)


def test_layers_add_up_to_the_attacked_image() -> None:
    generator = torch.Generator().manual_seed(0)
    attacked, clean = torch.rand(2, 4, 3, 8, 8, generator=generator).unbind(0)
    mask = torch.rand(4, 3, 8, 8, generator=generator) > 0.7
    attacked_layer, unattacked_layer = layers(attacked, clean, mask)
    total = attacked_layer + unattacked_layer - clean
    assert torch.allclose(total, attacked, rtol=0, atol=2**-23)
    assert torch.equal(attacked_layer[~mask], clean[~mask])
    assert torch.equal(unattacked_layer[mask], clean[mask])


def test_suspected_values_stand_out_within_their_own_image() -> None:
    magnitude = torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    magnitude[1] *= 1000
    for index, mask in enumerate(suspected(magnitude, 1.0)):
        values = magnitude[index].numpy()
        threshold = values.mean() + values.std(ddof=1)
        assert np.array_equal(mask.numpy(), values > threshold)
