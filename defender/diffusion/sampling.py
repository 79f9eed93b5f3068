"""Diffusions run backwards: from noise to an image, or from a noisy image to a clean one."""

from __future__ import annotations

import torch
from torch import Tensor

from defender.diffusion.prior import KEPT_CALLS, Prior
from defender.noise import derive_seeds, normal
from defender.types import Images, Seeds

SAMPLERS = ("ddpm", "sde", "ddim")


def diffuse(prior: Prior, images: Tensor, seeds: Seeds, step: int) -> Tensor:
    """Put noise into images: ``x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) z``.

    Args:
        prior: whose schedule counts.
        images: (n, c, h, w) in [-1, 1].
        seeds: int64 (n,), one an image.
        step: t.

    Returns:
        (n, c, h, w).
    """
    kept = prior.schedule.abar[step]
    noise = normal(derive_seeds(seeds, "diffuse"), tuple(images.shape[1:])).to(images)
    return float(kept.sqrt()) * images + float((1 - kept).sqrt()) * noise


def reverse(
    prior: Prior,
    noisy: Tensor,
    seeds: Seeds,
    step: int,
    *,
    sampler: str = "ddpm",
    steps: int | None = None,
) -> Tensor:
    """Go from ``x_t`` back to an image.

    From a step t to an earlier one s, with x0 what the network makes of ``x_t``, clamped to [-1, 1]
    by ``ddpm`` and ``ddim``, a = abar_t / abar_s, and z fresh noise for each step and image:

    * ``ddpm`` draws from the posterior: ``x_s = (sqrt(abar_s) (1 - a) x0 + sqrt(a) (1 - abar_s)
      x_t) / (1 - abar_t) + sqrt((1 - a) (1 - abar_s) / (1 - abar_t)) z``;
    * ``ddim`` draws nothing: ``x_s = sqrt(abar_s) x0 + sqrt(1 - abar_s) N(x_t, t)``;
    * ``sde`` makes an Euler-Maruyama step of the reverse stochastic differential equation:
      ``x_s = x_t + b (x_t / 2 - N(x_t, t) / sqrt(1 - abar_t)) + sqrt(b) z`` with ``b = beta_t
      (t - s)``.

    After the earliest step, ``ddpm`` and ``ddim`` give x0.

    Args:
        prior: the diffusion model.
        noisy: (n, c, h, w), ``x_t``.
        seeds: int64 (n,), one an image.
        step: t.
        sampler: ``ddpm``, ``sde`` or ``ddim``.
        steps: network calls, at equal distances from t to 0; none: one at every step, t + 1 of
            them.

    Returns:
        (n, c, h, w), about [-1, 1]; differentiable where a gradient is asked for.

    Raises:
        ValueError: an unknown sampler; more calls than steps.

    Source: J. Ho, A. Jain, P. Abbeel, "Denoising Diffusion Probabilistic Models", 2020, arXiv
    2006.11239; J. Song, C. Meng, S. Ermon, "Denoising Diffusion Implicit Models", 2021, arXiv
    2010.02502; Y. Song et al., "Score-Based Generative Modeling through Stochastic Differential
    Equations", 2021, arXiv 2011.13456.
    Differs: none.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler: expected {' | '.join(SAMPLERS)}, got {sampler!r}")
    keys, shape = derive_seeds(seeds, "reverse"), tuple(noisy.shape[1:])
    abar = [1.0, *prior.schedule.abar.tolist()]
    state = noisy
    pairs = _pairs(step, steps)
    for now, then in pairs:
        kept, more = abar[now + 1], abar[then + 1]
        predicted = prior.noise(state, now, frugal=len(pairs) > KEPT_CALLS)
        clean = prior.without(state, predicted, now).clamp(-1.0, 1.0)
        spread = 0.0
        if sampler == "sde":
            beta = (1 - kept / abar[now]) * (now - then)
            state = state + beta * (state / 2 - predicted / (1 - kept) ** 0.5)
            spread = beta**0.5
        elif sampler == "ddim":
            state = more**0.5 * clean + (1 - more) ** 0.5 * predicted
        else:
            ratio = kept / more
            toward, stay = more**0.5 * (1 - ratio), ratio**0.5 * (1 - more)
            state = (toward * clean + stay * state) / (1 - kept)
            spread = ((1 - ratio) * (1 - more) / (1 - kept)) ** 0.5
        if spread:
            state = state + spread * normal(derive_seeds(keys, now), shape).to(state)
    return state


def sample(prior: Prior, seeds: Seeds, steps: int = 50, *, sampler: str = "ddim") -> Images:
    """Images out of nothing but noise.

    Args:
        prior: the diffusion model.
        seeds: int64 (n,), one an image.
        steps: network calls.
        sampler: as :func:`reverse` has them.

    Returns:
        (n, c, h, w) in [0, 1], of the prior's size, without a gradient.
    """
    shape = (prior.channels or 3, *prior.size)
    noise = normal(derive_seeds(seeds, "sample"), shape)
    with torch.no_grad():
        last = prior.schedule.steps - 1
        made = reverse(prior, noise, seeds, last, sampler=sampler, steps=steps)
    return ((made + 1) / 2).clamp(0.0, 1.0)


def _pairs(step: int, steps: int | None) -> list[tuple[int, int]]:
    """Each step at which the network is asked and the one after it, -1 at the end."""
    count = step + 1 if steps is None else steps
    if not 1 <= count <= step + 1:
        raise ValueError(f"steps: expected [1, {step + 1}], got {count}")
    asked = [step - i * (step + 1) // count for i in range(count)]
    return list(zip(asked, [*asked[1:], -1], strict=True))
