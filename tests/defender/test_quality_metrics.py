"""Scores of purification for image-quality metrics, against skimage and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from defender.metrics import psnr
from defender.metrics.quality import (
    absolute_gain,
    closeness,
    likeness,
    relative_gain,
    srcc,
    srcc_interval,
    summed,
    uniform_ssim,
)


def pair(height: int = 41, width: int = 33, channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    clean = torch.rand(4, channels, height, width, generator=generator)
    smooth = torch.nn.functional.avg_pool2d(clean, 3, 1, 1)
    noise = torch.randn(clean.shape, generator=generator)
    return smooth, (smooth + 0.05 * noise).clamp(0, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_and_psnr_are_those_of_skimage(channels: int) -> None:
    clean, noisy = pair(channels=channels)
    for i, (x, y) in enumerate(zip(clean.double().numpy(), noisy.double().numpy(), strict=True)):
        expected = structural_similarity(x, y, channel_axis=0, data_range=1)
        assert uniform_ssim(clean, noisy)[i].item() == pytest.approx(expected, abs=1e-9)
        decibels = peak_signal_noise_ratio(x, y, data_range=1)
        assert psnr(clean, noisy)[i].item() == pytest.approx(decibels, abs=1e-6)
        both = (expected + decibels / 80) / 2
        assert likeness(clean, noisy)[i].item() == pytest.approx(both, abs=1e-6)


@pytest.mark.parametrize("size", [(7, 7), (40, 61)])
def test_ssim_of_stored_images_is_that_of_skimage(size: tuple[int, int]) -> None:
    clean, noisy = pair(*size)
    clean[0, :, :, : size[1] // 2] = 1.0
    noisy[1] = 0.0
    clean, noisy = (clean * 255).round() / 255, (noisy * 255).round() / 255
    for i, (x, y) in enumerate(zip(clean.double().numpy(), noisy.double().numpy(), strict=True)):
        expected = structural_similarity(x, y, channel_axis=0, data_range=1)
        assert uniform_ssim(clean, noisy)[i].item() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(uniform_ssim(clean, clean), torch.ones(4, dtype=torch.float64))


def test_ssim_is_undefined_below_its_window() -> None:
    clean, noisy = pair(6, 20)
    assert uniform_ssim(clean, noisy).isnan().all()
    assert uniform_ssim(*pair(7, 7)).isfinite().all()
    with pytest.raises(ValueError, match="one shape"):
        uniform_ssim(clean, noisy[:, :, :, 1:])


def test_likeness_of_equal_images_is_one_and_nothing_is_more() -> None:
    clean, noisy = pair()
    assert torch.equal(likeness(clean, clean), torch.ones(4, dtype=torch.float64))
    nearly = (clean + 1e-6).clamp(0, 1)
    assert (likeness(clean, nearly) <= 1).all()
    assert (likeness(clean, noisy) < 1).all()


def test_likenesses_of_flat_images_by_hand() -> None:
    clean, grey = torch.full((1, 3, 9, 9), 0.5), torch.full((1, 3, 9, 9), 0.6)
    structural = (2 * 0.5 * 0.6 + 1e-4) / (0.5**2 + 0.6**2 + 1e-4)
    assert likeness(clean, grey).item() == pytest.approx((structural + 20 / 80) / 2, abs=1e-6)
    assert summed(*closeness(clean, grey)).item() == pytest.approx(structural + 20 / 40, abs=1e-6)
    assert summed(*closeness(clean, clean)).item() == 3.0
    nearly = (clean + 1e-6).clamp(0, 1)
    assert summed(*closeness(clean, nearly)).item() == pytest.approx(3.0, abs=1e-6)


def test_likeness_brings_another_size_back_first() -> None:
    clean, _ = pair(40, 32)
    half = torch.nn.functional.interpolate(clean, (20, 16), mode="bilinear", antialias=True)
    back = torch.nn.functional.interpolate(half, (40, 32), mode="bilinear", antialias=True)
    assert torch.equal(likeness(clean, half), likeness(clean, back))
    with pytest.raises(ValueError, match="images and channels"):
        likeness(clean, half[:2])


def test_gains_by_hand() -> None:
    clean, purified = [50.0, -20.0, 0.0, 40.0], [60.0, -10.0, 5.0, math.nan]
    shares = relative_gain(clean, purified)
    assert shares[:2].tolist() == [0.2, 0.5]
    assert np.isnan(shares[2:]).all()
    assert absolute_gain(clean, purified, (0.0, 50.0))[:3].tolist() == [0.2, 0.2, 0.1]


def test_srcc_is_that_of_scipy_ties_included() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=60).round(1)
    y = x + generator.normal(size=60)
    assert srcc(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    low, high = srcc_interval(x, y)
    assert low < srcc(x, y) < high
    assert 0.05 < high - low < 0.6
    assert srcc_interval(x, y) == srcc_interval(x, y)


def test_srcc_leaves_out_what_has_no_score() -> None:
    assert srcc([1, 2, 3, math.nan], [1, 2, 3, 0]) == pytest.approx(1.0)
    assert math.isnan(srcc([1, 2], [1, 2]))
    assert math.isnan(srcc([1, 1, 1], [1, 2, 3]))
    assert srcc_interval([1, 1, 1], [1, 2, 3]) == pytest.approx((math.nan, math.nan), nan_ok=True)
    with pytest.raises(ValueError, match="expected 3 scores, got 2"):
        srcc([1, 2, 3], [1, 2])
