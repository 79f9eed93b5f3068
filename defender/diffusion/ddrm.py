"""DDRM for images with noise in them: a diffusion model restores what was seen of an image."""

from __future__ import annotations

from torch import Tensor

from defender.diffusion.prior import KEPT_CALLS, Prior
from defender.diffusion.schedule import NoiseSchedule
from defender.noise import derive_seeds, normal
from defender.types import Seeds


def network_steps(
    schedule: NoiseSchedule, sigma: float, steps: int = 20, eta_b: float = 1.0, *, pruned: bool
) -> list[int]:
    """The steps at which the network is asked, from the noisiest to step 0.

    With ``eta_b`` 1 a state that is noisier than ``sigma`` is the observation with noise, whatever
    the network said before. So the network matters at the last of these states, and from there on.

    Args:
        schedule: noise levels of the steps.
        sigma: standard deviation of the noise in the observation, in the network's units.
        steps: steps of the whole sampler.
        eta_b: weight of the observation in states that are noisier than it.
        pruned: leave out the calls that cannot influence the result.

    Raises:
        ValueError: a number of steps out of range; noise that no step has.
    """
    visited = schedule.spread(steps)[::-1]
    noisier = [step for step in visited if float(schedule.sigma[step]) > sigma]
    if not noisier or sigma <= 0:
        highest = float(schedule.sigma[visited[0]])
        raise ValueError(
            f"sigma: expected between 0 and {highest:g}, the noise of step {visited[0]}, in units "
            f"of the network, got {sigma:g}"
        )
    return visited[len(noisier) - 1 :] if pruned and eta_b == 1.0 else visited


def ddrm(
    prior: Prior,
    observed: Tensor,
    seeds: Seeds,
    sigma: float,
    *,
    steps: int = 20,
    eta_a: float = 0.85,
    eta_b: float = 1.0,
    pruned: bool = True,
) -> Tensor:
    """Sample images given what noise of a known strength left of them.

    With ``xbar_t = x_t / sqrt(abar_t)``, y the observation, s the step after t, and x0 what the
    network makes of ``x_t``::

        xbar_T = y + sqrt(sigma_T^2 - sigma^2) z
        xbar_s = (1 - eta_b) x0 + eta_b y + sqrt(sigma_s^2 - eta_b^2 sigma^2) z   if sigma_s > sigma
        xbar_s = x0 + sqrt(1 - eta_a^2) sigma_s (y - x0) / sigma + eta_a sigma_s z          if not

    and the result is x0 at step 0. The z of a state follow from the image's seed and the step
    alone, so the pruned sampler equals the whole one to the bit.

    Args:
        prior: the diffusion model.
        observed: (n, c, h, w), y, in the units of the network.
        seeds: int64 (n,), one an image.
        sigma: standard deviation of the noise in y, in the same units.
        steps: steps of the whole sampler.
        eta_a: share of fresh noise in states that are less noisy than y.
        eta_b: weight of y in states that are noisier.
        pruned: leave out the network calls that cannot influence the result.

    Returns:
        (n, c, h, w), not clamped; differentiable where a gradient is asked for.

    Raises:
        ValueError: a number of steps out of range; noise that no step has.

    Source: B. Kawar, M. Elad, S. Ermon, J. Song, "Denoising Diffusion Restoration Models", 2022,
    arXiv 2201.11793, with the identity as degradation: every singular value is 1.
    Differs: calls without influence are left out.
    """
    asked = network_steps(prior.schedule, sigma, steps, eta_b, pruned=pruned)
    keys, shape = derive_seeds(seeds, "ddrm"), tuple(observed.shape[1:])

    def noise(step: int) -> Tensor:
        return normal(derive_seeds(keys, step), shape).to(observed)

    levels = [float(prior.schedule.sigma[step]) for step in asked]
    state = observed + (levels[0] ** 2 - sigma**2) ** 0.5 * noise(asked[0])
    frugal = len(asked) > KEPT_CALLS
    for index, step in enumerate(asked):
        kept = float(prior.schedule.abar[step].sqrt())
        clean = prior.denoised(kept * state, step, frugal=frugal)
        if index + 1 == len(asked):
            break
        level, fresh = levels[index + 1], noise(asked[index + 1])
        if level > sigma:
            spread = (level**2 - eta_b**2 * sigma**2) ** 0.5
            state = (1 - eta_b) * clean + eta_b * observed + spread * fresh
        else:
            pull = (1 - eta_a**2) ** 0.5 * level / sigma
            state = clean + pull * (observed - clean) + eta_a * level * fresh
    return clean
