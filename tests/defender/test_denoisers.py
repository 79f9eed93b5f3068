"""Denoising purifiers against skimage, scipy and plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import fft
from skimage import restoration

from defender.metrics.image import psnr
from defender.purifiers import (
    Bilateral,
    DCTShrinkage,
    NonLocalMeans,
    TotalVariation,
    WaveletShrinkage,
)
from defender.purifiers.total_variation import least_variation
from tests import cases
from tests.defender.photographs import noisy, photographs

Array = NDArray[np.float64]


def as_array(image: torch.Tensor) -> Array:
    return image.permute(1, 2, 0).double().numpy()


def run(purifier: Any, images: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = purifier(images, seeds=cases.seeds(len(images)))
    return result


def test_bilateral_keeps_an_edge_that_a_gaussian_would_blur() -> None:
    edge = torch.full((1, 1, 9, 12), 0.2)
    edge[..., 6:] = 0.8
    made = run(Bilateral(), noisy(edge, 0.02))
    assert (made - edge).abs().max() < 0.04
    assert (made - edge).std() < 0.5 * (noisy(edge, 0.02) - edge).std()


def test_bilateral_weighs_by_distance_and_likeness_up_to_the_border() -> None:
    image = torch.rand(1, 3, 6, 7, generator=torch.Generator().manual_seed(0)).double()
    values, expected = as_array(image[0]), np.zeros((6, 7, 3))
    for y, x in np.ndindex(6, 7):
        total = 0.0
        for v, u in np.ndindex(6, 7):
            if max(abs(v - y), abs(u - x)) <= 2:
                near = ((v - y) ** 2 + (u - x) ** 2) / (2 * 1.5**2)
                alike = ((values[v, u] - values[y, x]) ** 2).sum() / (2 * 0.4**2)
                expected[y, x] += np.exp(-near - alike) * values[v, u]
                total += np.exp(-near - alike)
        expected[y, x] /= total
    made = run(Bilateral(5, 1.5, 0.4), image)
    assert np.allclose(as_array(made[0]), expected, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.0, 0.1])
def test_non_local_means_weighs_by_the_likeness_of_patches(sigma: float) -> None:
    image = torch.rand(1, 2, 7, 8, generator=torch.Generator().manual_seed(0)).double()
    values, expected = as_array(image[0]), np.zeros((7, 8, 2))
    around = np.pad(values, ((1, 1), (1, 1), (0, 0)), mode="symmetric")
    for y, x in np.ndindex(7, 8):
        total = 0.0
        for v, u in np.ndindex(7, 8):
            if max(abs(v - y), abs(u - x)) <= 2:
                apart = around[v : v + 3, u : u + 3] - around[y : y + 3, x : x + 3]
                weight = np.exp(-max((apart**2).mean() - 2 * sigma**2, 0) / 0.3**2)
                expected[y, x] += weight * values[v, u]
                total += weight
        expected[y, x] /= total
    made = run(NonLocalMeans(0.3, patch=3, window=5, sigma=sigma), image)
    assert np.allclose(as_array(made[0]), expected, atol=1e-12)


def test_non_local_means_comes_close_to_skimage() -> None:
    """Whose patches of 5 pixels are 4 wide where it is fast, so that it is no closer."""
    images = noisy(photographs(), 0.05)
    made = run(NonLocalMeans(0.35, patch=5, window=9), images)
    for image, result in zip(images, made, strict=True):
        expected = restoration.denoise_nl_means(
            as_array(image), 5, 4, 0.35, fast_mode=True, channel_axis=2
        )
        inside = (slice(8, -8), slice(8, -8))
        apart = np.abs(as_array(result) - expected)[inside].mean()
        assert apart < 0.05 * np.abs(expected - as_array(image))[inside].mean()


def test_non_local_means_takes_from_what_looks_alike_and_not_from_what_is_near() -> None:
    stripes = torch.zeros(1, 1, 16, 16)
    stripes[..., ::4] = 1.0
    assert torch.allclose(run(NonLocalMeans(0.05), stripes), stripes, atol=1e-6)
    dirty = noisy(stripes * 0.6 + 0.2, 0.03)
    made = run(NonLocalMeans(0.06, patch=3, window=15), dirty)
    before, after = (dirty - stripes * 0.6 - 0.2).std(), (made - stripes * 0.6 - 0.2).std()
    assert after < 0.4 * before


@pytest.mark.parametrize("weight", [0.03, 0.1])
def test_total_variation_agrees_with_skimage(weight: float) -> None:
    images = noisy(photographs((24, 31)), 0.05)
    made = least_variation(images.double(), weight, 600)
    for image, result in zip(images, made, strict=True):
        expected = restoration.denoise_tv_chambolle(
            as_array(image), weight=weight, eps=1e-13, max_num_iter=4000, channel_axis=2
        )
        assert np.abs(as_array(result) - expected).max() < 1.5 / 255
        assert np.abs(as_array(result) - expected).mean() < 0.05 / 255
    few = run(TotalVariation(0.03), images)
    assert (few - least_variation(images, 0.03, 600)).abs().mean() < 0.15 / 255


def test_total_variation_of_a_step_by_hand() -> None:
    """Two flat halves: each moves by weight / width towards the other until they meet."""
    image = torch.full((1, 1, 8, 10), 0.2)
    image[..., 5:] = 0.8
    made = least_variation(image.double(), 0.5, 4000)
    assert torch.allclose(made[..., :5], torch.tensor(0.3).double(), atol=1e-3)
    assert torch.allclose(made[..., 5:], torch.tensor(0.7).double(), atol=1e-3)
    flat = least_variation(image.double(), 3.0, 4000)
    assert torch.allclose(flat, torch.tensor(0.5).double(), atol=1e-3)


@pytest.mark.parametrize("step", [2, 8])
@pytest.mark.parametrize("channels", [1, 3])
def test_dct_shrinkage_averages_all_blocks_that_cover_a_pixel(step: int, channels: int) -> None:
    height, width = 11, 18
    image = noisy(photographs((height, width), channels), 0.03)[:1]
    colours = fft.dct(as_array(image[0]), norm="ortho", axis=2)
    frame = ((8, 16), (8, 16), (0, 0))
    framed = np.pad(colours, frame, mode="edge")
    total, count = np.zeros_like(framed), np.zeros((*framed.shape[:2], 1))
    for top in range(0, height + 8, step):
        for left in range(0, width + 8, step):
            block = (slice(top, top + 8), slice(left, left + 8))
            coefficients = fft.dctn(framed[block], norm="ortho", axes=(0, 1))
            mean = coefficients[0, 0].copy()
            coefficients[np.abs(coefficients) <= 0.08] = 0
            coefficients[0, 0] = mean
            total[block] += fft.idctn(coefficients, norm="ortho", axes=(0, 1))
            count[block] += 1
    inside = (slice(8, 8 + height), slice(8, 8 + width))
    assert (count[inside] == (8 // step) ** 2).all()
    expected = fft.idct((total / np.maximum(count, 1))[inside], norm="ortho", axis=2)
    made = run(DCTShrinkage(0.08, step), image)
    assert np.allclose(as_array(made[0]), expected.clip(0, 1), atol=1e-5)


def haar(plane: Array, levels: int, threshold: float, mode: str) -> Array:
    """Shrinkage by matrices, level by level."""
    if levels == 0:
        return plane
    height, width = plane.shape
    plane = np.pad(plane, ((0, height % 2), (0, width % 2)), mode="edge")
    pairs = [np.kron(np.eye(n // 2), [[1, 1], [1, -1]]) / np.sqrt(2) for n in plane.shape]
    made = pairs[0] @ plane @ pairs[1].T
    low = made[::2, ::2].copy()
    if mode == "hard":
        made = np.where(np.abs(made) > threshold, made, 0)
    else:
        made = np.sign(made) * np.maximum(np.abs(made) - threshold, 0)
    made[::2, ::2] = haar(low, levels - 1, threshold, mode)
    return (pairs[0].T @ made @ pairs[1])[:height, :width]


@pytest.mark.parametrize("mode", ["hard", "soft"])
@pytest.mark.parametrize("shifts", [1, 3])
def test_wavelet_shrinkage_agrees_with_the_transform_by_matrices(mode: str, shifts: int) -> None:
    image = noisy(photographs((13, 16), channels=1), 0.03)[:1]
    expected = np.zeros((13, 16))
    for top in range(shifts):
        for left in range(shifts):
            framed = np.pad(as_array(image[0])[:, :, 0], ((top, 0), (left, 0)), mode="edge")
            expected += haar(framed, 2, 0.07, mode)[top:, left:] / shifts**2
    made = run(WaveletShrinkage(0.07, 2, mode, shifts), image)
    assert np.allclose(as_array(made[0])[:, :, 0], expected.clip(0, 1), atol=1e-5)


@pytest.mark.parametrize(
    "purifier",
    [Bilateral(), NonLocalMeans(), TotalVariation(), WaveletShrinkage(0.09), DCTShrinkage(0.09)],
    ids=repr,
)
def test_noise_is_lowered_and_clean_images_stay_close(purifier: Any) -> None:
    clean = photographs((96, 96))
    dirty = noisy(clean, 0.03)
    assert (psnr(clean, run(purifier, dirty)) > psnr(clean, dirty) + 1).all()
    assert (psnr(clean, run(purifier, clean)) > psnr(clean, dirty)).all()


@pytest.mark.parametrize(
    "purifier",
    [
        Bilateral(3, 1.0, 0.3),
        NonLocalMeans(0.3, patch=3, window=3),
        TotalVariation(0.05, 6),
        WaveletShrinkage(0.02, 2, "soft"),
        DCTShrinkage(0.02, 4),
    ],
    ids=repr,
)
def test_gradients_are_those_of_the_filter(purifier: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    image = 0.3 + 0.4 * torch.rand(2, 1, 5, 6, generator=generator, dtype=torch.float64)
    image.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: run(purifier, x), image, eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 2)])
@pytest.mark.parametrize(
    "purifier",
    [Bilateral(7), NonLocalMeans(window=15), TotalVariation(), WaveletShrinkage(), DCTShrinkage()],
    ids=repr,
)
def test_images_smaller_than_any_window_are_taken(purifier: Any, size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    made = run(purifier, images)
    assert made.shape == images.shape
    assert made.isfinite().all()
    if size == (1, 1) and not isinstance(purifier, WaveletShrinkage):
        assert torch.allclose(made, images, atol=1e-6)


def test_arguments_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="window: expected an odd number >= 1, got 4"):
        Bilateral(4)
    with pytest.raises(ValueError, match="patch: expected an odd number >= 1, got 2"):
        NonLocalMeans(patch=2)
    with pytest.raises(ValueError, match="step: expected 1, 2, 4 or 8, got 3"):
        DCTShrinkage(step=3)
    with pytest.raises(ValueError, match="weight: expected > 0, got 0"):
        TotalVariation(0.0)
    with pytest.raises(ValueError, match=r"mode: expected hard \| soft"):
        WaveletShrinkage(mode="firm")
