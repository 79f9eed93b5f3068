"""The X-ray project's filters against plain loops, as it writes them and corrected."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from defender.norms import from_uint8
from defender.purifiers import Minimum, PeakRemoval, Unsharp
from tests import cases

Levels = NDArray[np.int64]


def coarse(n: int = 2, channels: int = 1, size: tuple[int, int] = (13, 11)) -> Levels:
    """Images of few levels, both ends among them, so that many are peaks."""
    levels = [0, 1, 2, 90, 91, 92, 253, 254, 255]
    shares = [0.16, 0.08, 0.1, 0.1, 0.14, 0.1, 0.1, 0.08, 0.14]
    drawn = np.random.default_rng(5).choice(levels, (n, channels, *size), p=shares)
    return np.asarray(drawn, dtype=np.int64)


def as_images(levels: Levels) -> torch.Tensor:
    return from_uint8(torch.from_numpy(levels.astype(np.uint8)))


def as_levels(images: torch.Tensor) -> Levels:
    scaled = images.numpy() * 255
    assert np.allclose(scaled, scaled.round(), atol=1e-4)
    return np.asarray(scaled.round(), dtype=np.int64)


def peak_levels(plane: Levels, bins: int, ends: bool) -> set[int]:
    counts = [int((plane == level).sum()) for level in range(bins)]
    peaks = {
        level
        for level in range(1, bins - 1)
        if counts[level - 1] < counts[level] > counts[level + 1]
    }
    if ends:
        peaks |= {0} if counts[0] > counts[1] else set()
        peaks |= {bins - 1} if counts[-1] > counts[-2] else set()
    return peaks


@pytest.mark.parametrize("channels", [1, 3])
def test_original_peak_removal_goes_through_the_image_in_place(channels: int) -> None:
    levels = coarse(2, channels)
    expected = levels.copy()
    for plane in expected.reshape(-1, 13, 11):
        peaks = peak_levels(plane, 254, ends=False)
        assert peaks
        for row, column in np.ndindex(13, 11):
            if plane[row, column] in peaks:
                block = plane[row : row + 4, column : column + 4]
                plane[row, column] = int(np.median(block))
    made = PeakRemoval("original")(as_images(levels), seeds=cases.seeds(2))
    assert np.array_equal(as_levels(made), expected)
    assert not np.array_equal(expected, levels)


@pytest.mark.parametrize("channels", [1, 3])
def test_corrected_peak_removal_takes_the_median_of_what_is_no_peak(channels: int) -> None:
    levels = coarse(2, channels)
    expected = levels.copy()
    ends = 0
    for plane, result in zip(levels.reshape(-1, 13, 11), expected.reshape(-1, 13, 11), strict=True):
        peaks = peak_levels(plane, 256, ends=True)
        ends += bool(peaks & {0, 255})
        for row, column in np.ndindex(13, 11):
            if plane[row, column] in peaks:
                block = plane[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
                rest = sorted(value for value in block.flatten().tolist() if value not in peaks)
                if rest:
                    result[row, column] = rest[(len(rest) - 1) // 2]
    made = PeakRemoval("corrected")(as_images(levels), seeds=cases.seeds(2))
    assert np.array_equal(as_levels(made), expected)
    assert ends


def test_peak_removal_by_hand() -> None:
    levels = np.array([[10, 20, 20], [30, 10, 20], [40, 50, 20]]).reshape(1, 1, 3, 3)
    # 20 is more frequent than 19 and 21, and so are 10, 30, 40 and 50: every pixel is at a peak
    original = as_levels(PeakRemoval("original")(as_images(levels), seeds=cases.seeds(1)))
    assert original[0, 0].tolist() == [[20, 20, 20], [25, 20, 20], [40, 35, 20]]
    corrected = as_levels(PeakRemoval("corrected")(as_images(levels), seeds=cases.seeds(1)))
    assert np.array_equal(corrected, levels)


def test_peak_removal_leaves_flat_histograms_alone() -> None:
    ramp = np.arange(256).reshape(1, 1, 16, 16)
    for variant in ("original", "corrected"):
        made = PeakRemoval(variant)(as_images(ramp), seeds=cases.seeds(1))
        assert torch.equal(made, as_images(ramp))


@pytest.mark.parametrize("variant", ["original", "corrected"])
def test_unsharp_agrees_with_scipy(variant: str) -> None:
    images = torch.rand(2, 3, 9, 8, generator=torch.Generator().manual_seed(0))
    # the original's Gaussian leaves something of bright points on black only
    points = images[1, :, 1::4, 1::4].clone()
    images[1] = 0
    images[1, :, 1::4, 1::4] = points
    rows, columns = np.mgrid[-2:3, -2:3]
    kernel = np.exp(-(rows**2 + columns**2) / 2)
    kernel = kernel / kernel.sum() if variant == "corrected" else kernel * (1 / 2 * math.pi)
    blurred = ndimage.correlate(images.double().numpy(), kernel[None, None], mode="reflect")
    expected = np.clip(2 * images.numpy() - blurred, 0, 1)
    assert ((expected > 0) & (expected < 1)).sum() > 5
    made = Unsharp(variant)(images, seeds=cases.seeds(2))
    assert np.allclose(made.numpy(), expected, atol=1e-5)


def test_corrected_unsharp_steepens_an_edge_and_keeps_flat_areas() -> None:
    edge = torch.full((1, 1, 12, 12), 0.3)
    edge[..., 6:] = 0.6
    made = Unsharp()(edge, seeds=cases.seeds(1))
    assert torch.allclose(made[..., :4], edge[..., :4], atol=1e-6)
    assert torch.allclose(made[..., 8:], edge[..., 8:], atol=1e-6)
    assert (made[..., 5] < 0.25).all()
    assert (made[..., 6] > 0.65).all()
    assert not Unsharp("original")(edge, seeds=cases.seeds(1)).any()


def test_minimum_wears_away_a_bright_spot_and_widens_a_dark_one() -> None:
    images = torch.full((1, 1, 9, 9), 0.5)
    images[..., 2, 2], images[..., 6, 8] = 1.0, 0.0
    made = Minimum()(images, seeds=cases.seeds(1))
    expected = torch.full((1, 1, 9, 9), 0.5)
    expected[..., 5:8, 7:9] = 0.0
    assert torch.equal(made, expected)


def test_arguments_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="window: expected an odd number >= 1, got 4"):
        Minimum(window=4)
    with pytest.raises(ValueError, match="variant: expected original"):
        PeakRemoval("code")
    with pytest.raises(ValueError, match="variant: expected original"):
        Unsharp("code")
