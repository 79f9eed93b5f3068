"""Activity maps, luma, statistics of natural scenes and the gradient of similarity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional

from defender.activity import spatial_activity
from defender.gradients import gradient
from defender.luma import luma
from defender.metrics.structural import structural_similarity
from defender.natural_scene_statistics import gaussian_shape, normalised_luma, unnaturalness
from defender.structural_gradient import StructuralGradient
from tests import cases


def random(*shape: int, seed: int = 4) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_luma_weighs_the_channels() -> None:
    image = torch.tensor([1.0, 0.5, 0.25]).view(1, 3, 1, 1)
    assert luma(image).item() == pytest.approx(0.299 + 0.2935 + 0.0285)
    assert torch.equal(luma(image[:, :1]), image[:, :1])
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        luma(image[:, :2])


def test_a_point_is_active_around_itself() -> None:
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 4, 4] = 1.0
    # Sobel's 3 x 3 response is (sqrt 2, 2, sqrt 2 / 2, 0, 2 / ...): 0 only in the centre itself
    root = 2**-0.5
    square = torch.zeros(9, 9)
    square[2:7, 2:7] = 1.0
    expected = torch.zeros(9, 9)
    expected[1:8, 1:8] = root
    expected[2:7, 1:8] = expected[1:8, 2:7] = 1.0
    expected[[1, 1, 7, 7], [1, 7, 1, 7]] = 0.0
    expected[[1, 1, 7, 7, 2, 2, 6, 6], [2, 6, 2, 6, 1, 7, 1, 7]] = root
    torch.testing.assert_close(spatial_activity(image)[0, 0], expected)


def test_flat_and_tiny_images_are_active_everywhere() -> None:
    ramp = torch.linspace(0, 1, 8).view(1, 1, 2, 4)
    for image in (torch.full((2, 3, 8, 8), 0.37), ramp):
        assert torch.equal(spatial_activity(image), torch.ones(len(image), 1, *image.shape[2:]))


def test_horizontal_edges_and_falling_ones_count_as_others_do() -> None:
    image = torch.zeros(1, 1, 16, 16)
    image[..., 8:] = 0.5
    assert torch.equal(spatial_activity(image), spatial_activity(1 - image))
    assert torch.equal(spatial_activity(image).mT, spatial_activity(image.mT))


def test_normalised_luma_is_that_of_scipy() -> None:
    image = random(1, 1, 20, 17)
    values = image[0, 0].double().numpy()
    offsets = np.arange(-3, 4)
    window = np.exp(-(offsets**2) / (2 * (7 / 6) ** 2))
    window = np.outer(window, window) / window.sum() ** 2
    mean = ndimage.correlate(values, window)
    deviation = np.sqrt(ndimage.correlate((values) ** 2, window) - mean**2)
    expected = ((values - mean) / (deviation + 1 / 255))[3:-3, 3:-3]
    np.testing.assert_allclose(normalised_luma(image)[0, 0].numpy(), expected, atol=1e-9)


def test_shapes_of_known_distributions() -> None:
    numbers = np.random.default_rng(2)
    draws = [numbers.laplace(size=200_000), numbers.normal(size=200_000) * 3]
    shapes = gaussian_shape(torch.tensor(np.stack([*draws, np.zeros(200_000)])))
    assert shapes[0].item() == pytest.approx(1.0, abs=0.02)
    assert shapes[1].item() == pytest.approx(2.0, abs=0.03)
    assert shapes[2].item() == 0.2
    # of two values alike in size the moments' ratio is 1, beyond what any shape reaches
    assert gaussian_shape(torch.tensor([[1.0, -1.0]])).item() == 10.0


def test_unnaturalness_is_one_at_a_shape_of_two_and_a_variance_of_a_quarter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers = np.random.default_rng(3)
    normal = torch.tensor(numbers.normal(size=(1, 1, 400, 400)))
    coefficients = torch.cat([normal / 2, normal / 4])
    monkeypatch.setattr(
        "defender.natural_scene_statistics.normalised_luma", lambda images: coefficients
    )
    found = unnaturalness(torch.zeros(2, 1, 406, 406))
    assert found.tolist() == pytest.approx([1.0, 3.0], abs=0.05)  # a quarter: two octaves


def test_unnaturalness_grows_with_damage() -> None:
    skimage = pytest.importorskip("skimage")
    clean = torch.tensor(skimage.data.camera()[128:384, 128:384] / 255).float()[None, None]
    numbers = torch.Generator().manual_seed(6)
    noise = torch.randn(clean.shape, generator=numbers)
    worse = [clean, functional.avg_pool2d(clean, 3, 1, 1), functional.avg_pool2d(clean, 7, 1, 3)]
    noisy = [clean, (clean + 0.05 * noise).clamp(0, 1), (clean + 0.2 * noise).clamp(0, 1)]
    for series in (worse, noisy):
        first, second, third = (unnaturalness(images).item() for images in series)
        assert 1 <= first < 2
        assert first + 0.3 < second < third - 0.1


def test_nothing_is_said_of_images_below_the_window_and_flat_ones_are_bad() -> None:
    assert unnaturalness(random(2, 3, 6, 40)).tolist() == [1.0, 1.0]
    assert unnaturalness(torch.full((1, 3, 20, 20), 0.37)).item() == pytest.approx(
        1 + np.hypot(np.log2(10), 8)
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_the_gradient_of_similarity_is_autograds(channels: int) -> None:
    clean = random(3, channels, 23, 15).double()
    other = (clean + 0.1 * random(*clean.shape, seed=5)).clamp(0, 1)
    expected = gradient(lambda images: structural_similarity(clean, images), other)
    torch.testing.assert_close(StructuralGradient(clean)(other), expected, rtol=1e-9, atol=1e-12)
    single = StructuralGradient(clean.float())(other.float())
    torch.testing.assert_close(single, expected.float(), rtol=0, atol=1e-4 * expected.abs().max())


def test_similarity_has_no_slope_at_the_reference_and_below_its_window() -> None:
    images = cases.images()
    assert StructuralGradient(images)(images).abs().max() < 1e-6
    small = images[:, :, :10]
    assert not StructuralGradient(small)(small + 0.1).any()
