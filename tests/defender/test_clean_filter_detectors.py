"""Detectors by selective filters: scores and maps against their definitions, window by window."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from defender.detectors import CleanFilter, PatchCleanFilter, TargetedPatchCleanFilter
from defender.detectors.clean_filter import smooth
from defender.detectors.patches import considered_in, patches
from defender.metrics.image import psnr, ssim
from defender.norms import from_uint8, to_uint8
from defender.purifiers.selective import selective_median, selective_random
from defender.scaling import Pipeline

PIPELINE = Pipeline("opencv", "linear", target=(13, 12))
SIZE = (52, 45)
SEEDS = torch.arange(3)


def noise(channels: int = 1, size: tuple[int, int] = SIZE, n: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, channels, *size), generator=generator, dtype=torch.uint8)
    return from_uint8(pixels)


def score(detector: Any, images: Tensor) -> Tensor:
    scores: Tensor = detector(images, seeds=torch.arange(len(images)))
    return scores


def windows_of(
    size: tuple[int, int], windows: int, stride: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows and columns of every window, as the authors' code lays them out."""
    places = []
    sides = [side // windows for side in size]
    step = max(sides[0] // stride, 1)
    for whole, side in zip(size, sides, strict=True):
        over = whole % step
        extra = max(side - (step if over == 0 else over), 0)
        line = np.pad(np.arange(whole), (extra // 2, extra - extra // 2), mode="symmetric")
        places.append([line[i : i + side] for i in range(0, len(line) - side + 1, step)])
    return [(rows, columns) for rows in places[0] for columns in places[1]]


@pytest.mark.parametrize(
    ("size", "windows", "stride"), [((64, 56), 5, 4), ((52, 45), 10, 2), ((17, 40), 3, 3)]
)
def test_windows_are_laid_out_as_published(
    size: tuple[int, int], windows: int, stride: int
) -> None:
    found = patches(size, windows, stride)
    laid = [(rows.numpy(), columns.numpy()) for rows in found.rows for columns in found.columns]
    expected = windows_of(size, windows, stride)
    assert len(laid) == len(expected)
    assert all(
        np.array_equal(a, b)
        for x, y in zip(laid, expected, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def test_windows_of_tiny_images_are_single_pixels() -> None:
    found = patches((3, 2), 5, 4)
    assert found.rows.tolist() == [[0], [1], [2]]
    assert found.columns.tolist() == [[0], [1]]
    planes = torch.arange(6.0).view(1, 3, 2)
    assert found.mean(planes).tolist() == [[0, 1, 2, 3, 4, 5]]


def test_considered_pixels_of_windows() -> None:
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[0, 1] = mask[3, 1] = mask[3, 5] = True
    index, counts = considered_in(patches((4, 6), 2, 1), mask)
    # windows of 2 x 3 at steps of 2; the last ones hold columns 4, 5 and, mirrored, 5 again
    assert counts.tolist() == [1, 1, 2]
    beyond = 4 * 6
    assert index.tolist() == [[1, beyond], [3 * 6 + 1, beyond], [3 * 6 + 5, 3 * 6 + 5]]


def test_clean_filter_compares_with_the_selective_filters() -> None:
    images = noise(channels=3)
    scaler = PIPELINE.of(images)
    median = selective_median(images, scaler)
    assert torch.allclose(score(CleanFilter(PIPELINE), images), -psnr(images, median))
    by_ssim = score(CleanFilter(PIPELINE, metric="ssim"), images)
    assert torch.allclose(by_ssim, 1 - ssim(images, median), atol=1e-6)
    wide = selective_median(images, scaler, 2)
    assert torch.allclose(score(CleanFilter(PIPELINE, bandwidth=2), images), -psnr(images, wide))
    drawn = selective_random(images, scaler, SEEDS)
    assert torch.allclose(score(CleanFilter(PIPELINE, "random"), images), -psnr(images, drawn))


def test_clean_filter_of_an_unchanged_image_is_finite() -> None:
    images = torch.full((1, 1, *SIZE), 0.4)
    smallest = images.clone()
    smallest[0, 0, 0, 0] += 1 / 255
    floor = -float(psnr(images, smallest))
    assert score(CleanFilter(PIPELINE), images).item() == pytest.approx(floor, abs=1e-3)


def test_map_marks_what_the_filter_changes_by_more_than_eight_levels() -> None:
    images = torch.full((1, 1, *SIZE), 100 / 255)
    scaler = PIPELINE.of(images)
    rows, columns = scaler.considered().nonzero()[[3, 40, 60]].T
    free = (~scaler.considered()).nonzero()[20]
    images[0, 0, rows, columns] = torch.tensor([109.0, 91.0, 108.0]) / 255
    images[0, 0, free[0], free[1]] = 1.0
    expected = torch.zeros(1, 1, *SIZE, dtype=torch.bool)
    expected[0, 0, rows[:2], columns[:2]] = True
    for detector in (CleanFilter(PIPELINE), TargetedPatchCleanFilter(PIPELINE)):
        where = detector.map(images, seeds=SEEDS[:1])
        assert where is not None
        assert torch.equal(where, expected)
    assert PatchCleanFilter(PIPELINE).map(images, seeds=SEEDS[:1]) is None


def test_smoothing_is_opencvs() -> None:
    for size in ((12, 13), (2, 5), (3, 2)):
        pixels = to_uint8(noise(size=size))
        expected = [cv2.GaussianBlur(image[0], (3, 3), 0) for image in pixels.numpy()]
        assert np.array_equal(smooth(pixels)[:, 0].numpy(), np.stack(expected))


def patch_score(image: Tensor, windows: int, stride: int) -> float:
    pixels = np.ascontiguousarray(to_uint8(image).permute(1, 2, 0).numpy())
    median = selective_median(image[None], PIPELINE.of(image[None]))[0]
    cleaned = np.ascontiguousarray(to_uint8(median).permute(1, 2, 0).numpy())
    small, small_cleaned = (
        cv2.resize(i, PIPELINE.target[::-1], interpolation=cv2.INTER_LINEAR)
        for i in (pixels, cleaned)
    )
    small = cv2.GaussianBlur(small, (3, 3), 0)
    values = []
    for rows, columns in windows_of(PIPELINE.target, windows, stride):
        first, second = (i[np.ix_(rows, columns)].astype(float) for i in (small, small_cleaned))
        error = np.mean((first - second) ** 2)
        if error > 0:
            values.append(10 * np.log10(255**2 / error))
    return float(abs(np.mean(values) - np.min(values)))


@pytest.mark.parametrize("channels", [1, 3])
def test_patch_clean_filter_is_that_of_the_definition(channels: int) -> None:
    images = noise(channels)
    # windows in which nothing differs do not count
    images[2, :, :, :24] = 0.5
    for windows, stride in ((5, 4), (3, 2)):
        found = score(PatchCleanFilter(PIPELINE, windows, stride), images)
        expected = [patch_score(image, windows, stride) for image in images]
        assert found.tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quantile", [0.0, 0.6, 1.0])
def test_targeted_patch_clean_filter_is_that_of_the_definition(
    channels: int, quantile: float
) -> None:
    images = noise(channels)
    scaler = PIPELINE.of(images)
    change = np.abs(
        to_uint8(images).numpy().astype(int) - to_uint8(selective_median(images, scaler)).numpy()
    )
    mask = scaler.considered().numpy()
    expected = []
    for image in change:
        values = []
        for rows, columns in windows_of(SIZE, 10, 2):
            inside = mask[np.ix_(rows, columns)]
            if inside.any():
                chosen = image[:, rows][:, :, columns][:, inside]
                values.append(np.quantile(chosen, quantile))
        expected.append(max(values) - np.mean(values))
    found = score(TargetedPatchCleanFilter(PIPELINE, quantile), images)
    assert found.tolist() == pytest.approx(expected)


def test_a_local_change_is_found_by_the_patch_filters() -> None:
    yy, xx = torch.meshgrid(torch.linspace(0, 3, 52), torch.linspace(0, 2, 45), indexing="ij")
    images = ((torch.sin(yy) * torch.cos(xx) + 1) * 100).round().expand(2, 1, *SIZE).clone() / 255
    considered = PIPELINE.of(images).considered()
    considered[20:] = False
    considered[:, 15:] = False
    images[1, 0, considered] = 1.0
    for detector in (PatchCleanFilter(PIPELINE), TargetedPatchCleanFilter(PIPELINE)):
        benign, attacked = score(detector, images).tolist()
        assert attacked > benign + 20


@pytest.mark.parametrize("size", [(13, 12), (6, 5), (9, 30)])
def test_images_that_are_not_larger_have_a_score(size: tuple[int, int]) -> None:
    images = noise(size=size)
    for detector in (
        CleanFilter(PIPELINE),
        CleanFilter(PIPELINE, "random", "ssim"),
        PatchCleanFilter(PIPELINE),
        TargetedPatchCleanFilter(PIPELINE),
    ):
        assert score(detector, images).isfinite().all()
    if size != (9, 30):
        assert score(TargetedPatchCleanFilter(PIPELINE), images).tolist() == [0.0] * 3
