"""Noise schedules, priors and their training: values worked out from the definitions."""

from __future__ import annotations

import math

import pytest
import torch

from defender.diffusion.schedule import NoiseSchedule
from defender.prior_training import PriorTraining
from tests.defender.priors import PointPrior, of, tiny_network, tiny_prior


def test_what_is_left_of_an_image_is_the_product_of_all_steps() -> None:
    schedule = NoiseSchedule(3, 0.1, 0.3)
    expected = torch.tensor([0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.7], dtype=torch.float64)
    torch.testing.assert_close(schedule.abar, expected)
    torch.testing.assert_close(schedule.sigma, ((1 - expected) / expected).sqrt())


def test_the_nearest_step_is_so_by_the_ratio() -> None:
    schedule = NoiseSchedule()
    for step in (0, 1, 50, 300, 999):
        assert schedule.nearest(float(schedule.sigma[step])) == step
    between = math.sqrt(float(schedule.sigma[0]) * float(schedule.sigma[1]))
    assert schedule.nearest(between * 0.999) == 0
    assert schedule.nearest(between * 1.001) == 1
    assert schedule.nearest(1e-9) == 0
    with pytest.raises(ValueError, match="sigma: expected > 0, got 0"):
        schedule.nearest(0)


def test_steps_are_spread_from_0_on() -> None:
    schedule = NoiseSchedule()
    assert schedule.spread(20) == list(range(0, 1000, 50))
    assert schedule.spread(3) == [0, 333, 666]
    assert schedule.spread(1) == [0]
    assert NoiseSchedule(7).spread(7) == list(range(7))
    with pytest.raises(ValueError, match=r"steps: expected \[1, 1000\], got 0"):
        schedule.spread(0)


@pytest.mark.parametrize("step", [0, 50, 700])
def test_a_perfect_prior_finds_the_image(step: int) -> None:
    clean = torch.full((2, 3, 8, 8), -0.3)
    kept = float(NoiseSchedule().abar[step])
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    noisy = math.sqrt(kept) * clean + math.sqrt(1 - kept) * noise
    found = of(PointPrior(-0.3)).denoised(noisy, step)
    torch.testing.assert_close(found, clean, atol=2e-3, rtol=0)


def test_a_prior_says_what_it_takes() -> None:
    assert (tiny_prior().channels, tiny_prior().side_unit) == (3, 4)
    assert (of(PointPrior(0.1)).channels, of(PointPrior(0.1)).side_unit) == (None, 1)
    assert repr(tiny_prior()) == "tiny@0123456789ab"


def test_noise_is_put_in_as_the_schedule_says() -> None:
    pixels = torch.full((4000, 1, 4, 4), 255, dtype=torch.uint8)
    schedule = NoiseSchedule()
    recipe = PriorTraining(low_share=0.5, low_steps=100)
    noisy, steps, noise = recipe.noisy(pixels, schedule, torch.Generator().manual_seed(0))
    kept = schedule.abar[steps].float()[:, None, None, None]
    torch.testing.assert_close(noisy, kept.sqrt() + (1 - kept).sqrt() * noise)
    # half drawn among the first 100 of 1000, and a tenth of the others too
    assert float((steps < 100).float().mean()) == pytest.approx(0.55, abs=0.03)
    assert int(steps.max()) > 950
    assert float(noise.std()) == pytest.approx(1.0, abs=0.02)
    even = PriorTraining().noisy(pixels, schedule, torch.Generator().manual_seed(0))[1]
    assert float((even < 100).float().mean()) == pytest.approx(0.1, abs=0.02)


def test_images_lie_in_minus_one_to_one_and_are_mirrored() -> None:
    pixels = torch.zeros(400, 1, 2, 2, dtype=torch.uint8)
    pixels[..., 0] = 255
    schedule = NoiseSchedule(1, 1e-12, 1e-12)
    recipe = PriorTraining(low_steps=1)
    noisy, *_ = recipe.noisy(pixels, schedule, torch.Generator().manual_seed(0))
    left = noisy[:, 0, 0, 0].round()
    assert set(left.tolist()) == {-1.0, 1.0}
    assert float((left > 0).float().mean()) == pytest.approx(0.5, abs=0.1)
    assert torch.equal(noisy[:, 0, :, 1].round(), -noisy[:, 0, :, 0].round())


def test_more_low_steps_than_steps_are_refused() -> None:
    recipe, schedule = PriorTraining(epochs=1, low_steps=11), NoiseSchedule(10)
    with pytest.raises(ValueError, match=r"low_steps: expected \[1, 10\], got 11"):
        recipe.fit(lambda epoch: iter(()), tiny_network(), schedule, steps_per_epoch=1, seed=0)
