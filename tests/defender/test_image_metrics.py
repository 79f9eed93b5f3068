"""Distances and similarities of image pairs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from defender.metrics import l2, linf, ms_ssim, psnr, psnr_legacy, ssim
from tests import cases

ALL: list[Any] = [psnr, psnr_legacy, ssim, ms_ssim, l2, linf]
SIMILARITIES: list[Any] = [psnr, psnr_legacy, ssim]


def pair(seed: int, n: int = 3, side: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first = torch.rand(n, 3, side, side, generator=generator)
    spread = torch.rand(n, 1, 1, 1, generator=generator)
    other = torch.randn(first.shape, generator=generator)
    return first, (first + 0.1 * spread * other).clamp(0, 1)


def test_a_known_difference() -> None:
    reference = torch.full((1, 3, 4, 4), 0.5)
    distorted = reference.clone()
    distorted[0, 0, 0, 0] += 0.25
    mse = 0.0625 / 48
    assert psnr(reference, distorted).item() == pytest.approx(-10 * math.log10(mse))
    assert l2(reference, distorted).item() == pytest.approx(0.25)
    assert linf(reference, distorted).item() == pytest.approx(0.25)


def test_legacy_psnr_is_48_decibels_too_high() -> None:
    first, second = pair(0)
    assert torch.allclose(
        psnr_legacy(first, second) - psnr(first, second),
        torch.full((3,), 48.1308036, dtype=torch.float64),
    )
    # Image-Defender calls 70 dB good, which is 21.87 dB
    assert abs((70 - 48.1308036) - 21.87) < 0.005


@pytest.mark.parametrize("metric", ALL)
def test_equal_images_are_as_close_as_can_be(metric: Any) -> None:
    side = 161 if metric is ms_ssim else 16
    first, _ = pair(1, n=1, side=side)
    best = {psnr: torch.inf, psnr_legacy: torch.inf, ssim: 1, ms_ssim: 1, l2: 0, linf: 0}
    assert metric(first, first).item() == pytest.approx(best[metric], abs=1e-12)


@given(seed=st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_metrics_are_symmetric_and_image_by_image(seed: int) -> None:
    first, second = pair(seed)
    for metric in (psnr, psnr_legacy, ssim, l2, linf):
        scores = metric(first, second)
        assert scores.shape == (3,)
        assert scores.dtype == torch.float64
        assert torch.allclose(scores, metric(second, first), rtol=1e-12)
        alone = torch.cat([metric(first[i : i + 1], second[i : i + 1]) for i in range(3)])
        assert torch.allclose(scores, alone, rtol=1e-12)


@pytest.mark.parametrize("metric", ALL)
def test_more_noise_is_farther(metric: Any) -> None:
    side = 161 if metric is ms_ssim else 16
    first, _ = pair(2, n=1, side=side)
    noise = torch.randn(first.shape, generator=torch.Generator().manual_seed(0))
    near, far = (first + 0.01 * noise).clamp(0, 1), (first + 0.05 * noise).clamp(0, 1)
    closer = metric(first, near) - metric(first, far)
    assert (closer < 0 if metric in (l2, linf) else closer > 0).all()


def test_too_small_images_have_no_structural_similarity() -> None:
    first, second = pair(3, side=10)
    assert ssim(first, second).isnan().all()
    assert ms_ssim(first, second).isnan().all()
    first, second = pair(3, n=1, side=160)
    assert ms_ssim(first, second).isnan().all()
    assert not ssim(first, second).isnan().any()


@pytest.mark.parametrize("metric", ALL)
def test_no_images_have_no_scores(metric: Any) -> None:
    assert metric(torch.zeros(0, 3, 16, 16), torch.zeros(0, 3, 16, 16)).shape == (0,)


@pytest.mark.parametrize("metric", ALL)
def test_shapes_must_agree(metric: Any) -> None:
    with pytest.raises(ValueError, match="of one shape, got"):
        metric(cases.images(2), cases.images(3))
    with pytest.raises(ValueError, match="of one shape, got"):
        metric(cases.images(2)[0], cases.images(2)[0])
