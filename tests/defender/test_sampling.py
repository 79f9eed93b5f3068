"""Reverse diffusions: known priors, equations written out, gradients, purifiers made of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from defender.diffusion.sampling import SAMPLERS, diffuse, reverse, sample
from defender.diffusion.schedule import NoiseSchedule
from defender.noise import derive_seeds, normal
from defender.purifiers import DiffPure, OneStepDenoise
from tests.defender.priors import Counting, PointPrior, of, tiny_network, tiny_prior

SEEDS = torch.arange(3) + 5
SHAPE = (3, 16, 16)


def pictures(n: int = 3, channels: int = 3, side: int = 16) -> Tensor:
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(0))


class NormalPrior(nn.Module):
    """Knows that every value is normal with mean 0 and a deviation: its exact expectation."""

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.variance = deviation**2
        self.schedule = NoiseSchedule()

    def forward(self, x: Tensor, steps: Tensor) -> Tensor:
        kept = self.schedule.abar[steps].float()[:, None, None, None]
        return (1 - kept).sqrt() * x / (kept * self.variance + 1 - kept)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [None, 10])
def test_a_prior_of_one_image_is_found_from_anything(sampler: str, steps: int | None) -> None:
    noisy = normal(SEEDS, SHAPE)
    made = reverse(of(PointPrior(0.4)), noisy, SEEDS, 99, sampler=sampler, steps=steps)
    # the last step of the equation adds noise of beta, 0.0001 a step
    loose = 1e-4 if sampler != "sde" else 0.06 if steps is None else 0.4
    torch.testing.assert_close(made, torch.full_like(made, 0.4), atol=loose, rtol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_normal_prior_gives_its_own_deviation(sampler: str) -> None:
    """From pure noise, at every step, 0.2 comes out: the samplers' drift and spread are right."""
    prior = of(NormalPrior(0.2))
    noise = normal(derive_seeds(SEEDS, "start"), SHAPE)
    made = reverse(prior, noise, SEEDS, 999, sampler=sampler)
    assert float(made.std()) == pytest.approx(0.2, rel=0.06)
    assert abs(float(made.mean())) < 0.03


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_steps_are_asked_at_equal_distances(sampler: str) -> None:
    counting = Counting(tiny_network())
    prior = of(counting)
    reverse(prior, pictures(), SEEDS, 99, sampler=sampler, steps=5)
    assert counting.asked == [99, 79, 59, 39, 19]
    counting.asked.clear()
    reverse(prior, pictures(), SEEDS, 3, sampler=sampler)
    assert counting.asked == [3, 2, 1, 0]
    with pytest.raises(ValueError, match=r"steps: expected \[1, 4\], got 5"):
        reverse(prior, pictures(), SEEDS, 3, steps=5)
    with pytest.raises(ValueError, match=r"sampler: expected ddpm \| sde \| ddim, got 'other'"):
        reverse(prior, pictures(), SEEDS, 3, sampler="other")


def test_ancestral_steps_are_those_of_the_paper() -> None:
    """Betas as Ho et al. write them (equation 7), one step at a time."""
    schedule, network = NoiseSchedule(), tiny_network()
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    noisy = pictures() * 2 - 1
    made = reverse(of(network), noisy, SEEDS, 1)
    x = noisy
    for t in (1, 0):
        now = float(schedule.abar[t])
        before = float(schedule.abar[t - 1]) if t else 1.0
        beta = float(betas[t])
        with torch.no_grad():
            noise = network(x, torch.full((3,), t))
        x0 = ((x - math.sqrt(1 - now) * noise) / math.sqrt(now)).clamp(-1, 1)
        mean = math.sqrt(before) * beta / (1 - now) * x0
        mean = mean + math.sqrt(1 - beta) * (1 - before) / (1 - now) * x
        z = normal(derive_seeds(derive_seeds(SEEDS, "reverse"), t), SHAPE)
        x = mean + (math.sqrt(beta * (1 - before) / (1 - now)) * z if t else 0)
    torch.testing.assert_close(made, x, atol=1e-5, rtol=0)


def test_every_image_has_its_own_noise() -> None:
    prior = tiny_prior()
    for purifier in (DiffPure(prior, 0.005), OneStepDenoise(prior)):
        together = purifier(pictures(), seeds=SEEDS)
        alone = purifier(pictures()[1:2], seeds=SEEDS[1:2])
        torch.testing.assert_close(together[1:2], alone, atol=1e-6, rtol=0)
        same = purifier(pictures()[:1].expand(2, -1, -1, -1), seeds=SEEDS[:2])
        assert (same[0] - same[1]).abs().max() > 1e-4


def test_diffpure_diffuses_and_comes_back() -> None:
    prior, images = tiny_prior(), pictures()
    purifier = DiffPure(prior, 0.01, "sde", steps=5)
    assert purifier.last == 9
    noisy = diffuse(prior, 2 * images - 1, SEEDS, 9)
    wanted = reverse(prior, noisy, SEEDS, 9, sampler="sde", steps=5)
    assert torch.equal(purifier(images, seeds=SEEDS), ((wanted + 1) / 2).clamp(0, 1))
    assert DiffPure(prior, 1.0).last == 999
    assert DiffPure(prior, 1e-9).last == 0
    with pytest.raises(ValueError, match=r"steps: expected \[1, 10\], got 11"):
        DiffPure(prior, 0.01, steps=11)


def test_noise_is_of_the_strength_of_its_step() -> None:
    images = torch.zeros(64, *SHAPE)
    noisy = diffuse(tiny_prior(), images, torch.arange(64), 300)
    kept = float(NoiseSchedule().abar[300])
    assert float(noisy.std()) == pytest.approx(math.sqrt(1 - kept), rel=0.02)
    assert torch.equal(
        diffuse(tiny_prior(), images + 1, torch.arange(64), 300) - noisy > 0, noisy < 9
    )


def test_one_step_is_the_best_guess_for_a_known_prior() -> None:
    """For values around 1/2 with deviation 0.1, noise of 0.1 is halved on average."""
    images = torch.full((16, *SHAPE), 0.5)
    images = images + 0.1 * normal(torch.arange(16), SHAPE)
    made = OneStepDenoise(of(NormalPrior(0.2)), 0.1)(images, seeds=torch.arange(16))
    noise = normal(derive_seeds(torch.arange(16), "one step"), SHAPE)
    wanted = 0.5 + 0.5 * (images + 0.1 * noise - 0.5)
    # the nearest step is half a percent off
    torch.testing.assert_close(made, wanted.clamp(0, 1), atol=3e-3, rtol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [2, 7])
def test_the_gradient_is_the_slope(sampler: str, steps: int) -> None:
    prior, seed = tiny_prior().double(), torch.tensor([4])
    images = (0.4 + 0.2 * pictures(1)).double().requires_grad_()
    purifier = DiffPure(prior, 0.007, sampler, steps)
    generator = torch.Generator().manual_seed(1)
    along = torch.randn(images.shape, generator=generator, dtype=torch.float64)

    def value(at: Tensor) -> Tensor:
        return (purifier(at, seeds=seed) * along.flip(2)).sum()

    (gradient,) = torch.autograd.grad(value(images), images)
    step = 1e-6
    with torch.no_grad():
        slope = (value(images + step * along) - value(images - step * along)) / (2 * step)
    assert float((gradient * along).sum()) == pytest.approx(float(slope), rel=1e-4)


def test_many_calls_are_computed_anew_for_a_gradient() -> None:
    counting = Counting(tiny_network())
    images = pictures().requires_grad_()
    for steps, calls in ((4, 4), (5, 10)):
        counting.asked.clear()
        DiffPure(of(counting), 0.01, steps=steps)(images, seeds=SEEDS).sum().backward()
        assert len(counting.asked) == calls


def test_samples_have_the_size_of_the_prior_and_follow_from_their_seeds() -> None:
    prior = tiny_prior(8)
    made = sample(prior, SEEDS, 4)
    assert made.shape == (3, 3, 8, 8)
    assert 0 <= made.min() <= made.max() <= 1
    torch.testing.assert_close(sample(prior, SEEDS[1:], 4), made[1:], atol=1e-6, rtol=0)
    assert sample(tiny_prior(8, channels=1), SEEDS, 2, sampler="ddpm").shape == (3, 1, 8, 8)
    assert float(sample(of(PointPrior(0.4)), SEEDS, 3).mean()) == pytest.approx(0.7, abs=1e-3)
