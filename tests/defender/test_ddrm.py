"""DDRM: exact pruning, the values of its equations, sizes, channels and gradients."""

from __future__ import annotations

import math

import pytest
import torch

from defender.diffusion.ddrm import ddrm, network_steps
from defender.diffusion.schedule import NoiseSchedule
from defender.noise import derive_seeds, normal
from defender.purifiers import DDRM, IWMF, IWMFDiff
from defender.purifiers.resizing import resized
from tests.defender.priors import Counting, PointPrior, of, tiny_network, tiny_prior

SEEDS = torch.arange(3) + 5


def pictures(n: int = 3, channels: int = 3, side: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("sigma", "calls"),
    [(0.05, 2), (0.1, 2), (0.15, 2), (0.2, 3), (0.25, 3), (0.3, 3), (0.4, 4), (0.5, 4)],
)
def test_two_to_four_calls_matter(sigma: float, calls: int) -> None:
    steps = network_steps(NoiseSchedule(), sigma, pruned=True)
    assert steps == [150, 100, 50, 0][4 - calls :]
    whole = network_steps(NoiseSchedule(), sigma, pruned=False)
    assert whole == list(range(950, -1, -50))
    assert network_steps(NoiseSchedule(), sigma, eta_b=0.9, pruned=True) == whole


@pytest.mark.parametrize(("images_in", "calls"), [("unit_compat", 2), ("symmetric", 3)])
@pytest.mark.parametrize("sigma", [0.1, 0.15, 0.25])
def test_the_pruned_sampler_equals_the_whole_one_to_the_bit(
    images_in: str, calls: int, sigma: float
) -> None:
    counting = Counting(tiny_network())
    prior = of(counting)
    images = pictures().requires_grad_()
    results, gradients, asked = [], [], []
    for pruned in (False, True):
        counting.asked.clear()
        made = DDRM(prior, sigma, images_in, pruned=pruned)(images, seeds=SEEDS)
        asked.append(len(counting.asked))
        (gradient,) = torch.autograd.grad(made.square().sum(), images)
        results.append(made.detach())
        gradients.append(gradient)
    assert torch.equal(*results)
    assert torch.equal(*gradients)
    expected = len(network_steps(NoiseSchedule(), sigma * (1 + (calls == 3)), pruned=True))
    assert asked == [20, expected]
    if sigma == 0.15:
        assert expected == calls


def test_the_noise_of_an_image_is_its_own() -> None:
    purifier = DDRM(tiny_prior())
    together = purifier(pictures(), seeds=SEEDS)
    alone = purifier(pictures()[1:2], seeds=SEEDS[1:2])
    torch.testing.assert_close(together[1:2], alone, atol=1e-6, rtol=0)
    other = purifier(pictures()[:1].expand(2, -1, -1, -1), seeds=SEEDS[:2])
    assert (other[0] - other[1]).abs().max() > 1e-3


def test_a_prior_of_one_image_restores_it_from_anything() -> None:
    point = of(PointPrior(0.4))
    made = ddrm(point, pictures(), SEEDS, 0.2)
    torch.testing.assert_close(made, torch.full_like(made, 0.4), atol=1e-4, rtol=0)


@pytest.mark.parametrize("eta_b", [1.0, 0.7])
def test_states_are_those_of_the_equations(eta_b: float) -> None:
    """Two steps, 0 and 500, written out; the network says 0, so x0 is the state itself."""

    class Silent(torch.nn.Module):
        def forward(self, x: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return torch.zeros_like(x)

    seen: list[torch.Tensor] = []
    schedule = NoiseSchedule()
    y, sigma = pictures(), 0.3
    keys = derive_seeds(SEEDS, "ddrm")
    z = {t: normal(derive_seeds(keys, t), (3, 16, 16)) for t in (0, 500)}
    levels = {t: math.sqrt((1 - schedule.abar[t]) / schedule.abar[t]) for t in (0, 500)}
    made = ddrm(of(Silent()), y, SEEDS, sigma, steps=2, eta_a=0.6, eta_b=eta_b)
    first = y + math.sqrt(levels[500] ** 2 - 0.09) * z[500]
    last = first + math.sqrt(1 - 0.36) * levels[0] / sigma * (y - first) + 0.6 * levels[0] * z[0]
    torch.testing.assert_close(seen[0], first * math.sqrt(schedule.abar[500]), rtol=1e-5, atol=1e-5)
    # without noise to take out, x0 is the state at its own scale
    torch.testing.assert_close(made, last, rtol=1e-5, atol=1e-5)


def test_early_states_are_the_observation_with_noise_and_what_the_network_said() -> None:
    seen: dict[int, torch.Tensor] = {}

    class Silent(torch.nn.Module):
        def forward(self, x: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
            seen[int(steps[0])] = x
            return torch.zeros_like(x)

    schedule, y, sigma = NoiseSchedule(), pictures(), 0.3
    ddrm(of(Silent()), y, SEEDS, sigma, steps=4, eta_b=0.7)
    state = {t: x / schedule.abar[t].sqrt().float() for t, x in seen.items()}
    z = normal(derive_seeds(derive_seeds(SEEDS, "ddrm"), 500), (3, 16, 16))
    spread = math.sqrt(float(schedule.sigma[500]) ** 2 - 0.49 * 0.09)
    wanted = 0.3 * state[750] + 0.7 * y + spread * z
    torch.testing.assert_close(state[500], wanted, rtol=1e-4, atol=1e-4)


def test_reference_noise_levels() -> None:
    sigma = NoiseSchedule().sigma
    known = {0: 0.0100, 50: 0.1760, 100: 0.3423, 150: 0.5220, 200: 0.7236, 300: 1.2402}
    for step, level in known.items():
        assert float(sigma[step]) == pytest.approx(level, abs=5e-5)


def test_the_symmetric_range_is_the_same_sampler_on_other_units() -> None:
    prior, images = tiny_prior(), pictures()
    made = DDRM(prior, 0.1, "symmetric")(images, seeds=SEEDS)
    wanted = ddrm(prior, 2 * images - 1, SEEDS, 0.2)
    assert torch.equal(made, ((wanted + 1) / 2).clamp(0, 1))
    plain = DDRM(prior, 0.2)(images, seeds=SEEDS)
    assert torch.equal(plain, ddrm(prior, images, SEEDS, 0.2).clamp(0, 1))


def test_other_sizes_are_resized_to_the_prior_and_back() -> None:
    prior, images = tiny_prior(16), pictures(side=23)
    made = DDRM(prior)(images, seeds=SEEDS)
    inside = DDRM(prior)(resized(images, 16, 16), seeds=SEEDS)
    assert torch.equal(made, resized(inside, 23, 23))


def test_at_the_images_own_size_nothing_is_resized() -> None:
    prior = tiny_prior(16)
    images = pictures(side=23)[..., :21]
    made = DDRM(prior, size="image")(images, seeds=SEEDS)
    assert made.shape == images.shape
    # 23 x 21 is continued to 24 x 24, as the network needs multiples of 4
    framed = torch.nn.functional.pad(images, (0, 3, 0, 1), mode="replicate")
    whole = DDRM(prior, size="image")(framed, seeds=SEEDS)
    assert torch.equal(made, whole[..., :23, :21])


def test_grey_images_are_shown_three_times_over() -> None:
    prior, grey = tiny_prior(), pictures(channels=1)
    made = DDRM(prior)(grey, seeds=SEEDS)
    spread = ddrm(prior, grey.expand(-1, 3, -1, -1), SEEDS, 0.15)
    torch.testing.assert_close(made, spread.mean(1, keepdim=True).clamp(0, 1))
    one = DDRM(tiny_prior(channels=1))(grey, seeds=SEEDS)
    assert one.shape == grey.shape
    with pytest.raises(ValueError, match=r"prior: tiny@0123456789ab takes images of 1 channels"):
        DDRM(tiny_prior(channels=1))(pictures(), seeds=SEEDS)


@pytest.mark.parametrize("pruned", [True, False])
@pytest.mark.parametrize("side", [16, 12])
def test_the_gradient_is_the_slope(pruned: bool, side: int) -> None:
    prior = tiny_prior().double()
    images = (0.3 + 0.4 * pictures(1, side=side)).double().requires_grad_()
    purifier, seed = DDRM(prior, 0.05, pruned=pruned), torch.tensor([4])
    generator = torch.Generator().manual_seed(1)
    along = torch.randn(images.shape, generator=generator, dtype=torch.float64)
    weights = torch.randn(images.shape, generator=generator, dtype=torch.float64)

    def value(at: torch.Tensor) -> torch.Tensor:
        return (purifier(at, seeds=seed) * weights).sum()

    (gradient,) = torch.autograd.grad(value(images), images)
    step = 1e-6
    with torch.no_grad():
        slope = (value(images + step * along) - value(images - step * along)) / (2 * step)
    assert float((gradient * along).sum()) == pytest.approx(float(slope), rel=1e-4)


def test_no_gradient_where_none_is_asked_for() -> None:
    trainable = of(tiny_network()).requires_grad_(True)
    assert not DDRM(trainable)(pictures(), seeds=SEEDS).requires_grad


def test_the_filter_first_then_the_prior() -> None:
    prior, images = tiny_prior(), pictures(side=20)
    filtered = IWMF(0.25, 3)(images, seeds=SEEDS)
    both = IWMFDiff(prior, range="symmetric")
    assert torch.equal(
        both(images, seeds=SEEDS), DDRM(prior, range="symmetric")(filtered, seeds=SEEDS)
    )
    parts = both.parts(images, seeds=SEEDS)
    assert torch.equal(parts["filtered"], filtered)
    assert torch.equal(IWMFDiff(prior, sigma=0.0)(images, seeds=SEEDS), filtered)
    only = IWMFDiff(prior, lambda_0=0.0, sigma=0.2, steps=25)(images, seeds=SEEDS)
    assert torch.equal(only, DDRM(prior, 0.2, steps=25)(images, seeds=SEEDS))


def test_gradients_pass_the_filter_and_the_prior() -> None:
    images = (0.3 + 0.4 * pictures()).requires_grad_()
    made = IWMFDiff(tiny_prior(), sigma=0.05)(images, seeds=SEEDS)
    (gradient,) = torch.autograd.grad(made.sum(), images)
    assert (gradient != 0).float().mean() > 0.9


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sigma": 0.0}, r"sigma: expected \(0, 1\], got 0"),
        ({"sigma": 0.9, "steps": 1}, r"sigma: expected between 0 and 0\.01.*, the noise of step 0"),
        ({"steps": 1001}, r"steps: expected \[1, 1000\], got 1001"),
        ({"range": "other"}, r"range: expected unit_compat \| symmetric"),
        ({"size": "other"}, r"size: expected prior \| image"),
    ],
)
def test_mistakes_are_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DDRM(tiny_prior(), **changes)  # type: ignore[arg-type]


def test_a_prior_in_training_mode_is_refused() -> None:
    for kind in (DDRM, IWMFDiff):
        with pytest.raises(ValueError, match="prior: expected it in evaluation mode"):
            kind(tiny_prior().train())


def test_the_repr_names_the_weights_and_no_tensor() -> None:
    shown = repr(DDRM(tiny_prior(), 0.2))
    assert shown.startswith("DDRM(prior=tiny@0123456789ab, sigma=0.2, range='unit_compat'")
