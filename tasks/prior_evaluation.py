"""How well a diffusion model takes noise out of images, beside filters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from defender.diffusion.prior import Prior
from defender.metrics.image import psnr
from defender.noise import derive_seeds, normal
from defender.purifiers import DCTShrinkage, Gaussian, Median, NonLocalMeans
from defender.types import Purifier
from tasks.training_data import TrainingData

SIGMAS = (0.05, 0.1, 0.15, 0.25)
"""Standard deviations of the noise, in units of images in [0, 1]."""

COUNT = 1024
"""Held-out images that are looked at, the first of them."""

BATCH = 64

FILTERS: dict[str, Callable[[float], list[Purifier]]] = {
    "median": lambda sigma: [Median(window) for window in (3, 5)],
    "gaussian": lambda sigma: [Gaussian(width) for width in (0.5, 0.6, 0.7, 0.8, 1.0, 1.2)],
    "non-local means": lambda sigma: [
        NonLocalMeans(h=factor * sigma, sigma=sigma) for factor in (0.4, 0.6, 0.8, 1.0)
    ],
    "dct shrinkage": lambda sigma: [DCTShrinkage(factor * sigma) for factor in (2.0, 2.5, 3.0)],
}
"""Filters of several strengths, of which the best at each noise level counts."""


def denoising_psnr(prior: Prior, data: TrainingData, sigma: float, count: int = COUNT) -> Tensor:
    """PSNR of images after Gaussian noise was taken out of them in one step.

    Args:
        prior: the diffusion model.
        data: held-out images, ingested.
        sigma: standard deviation of the noise, in units of images in [0, 1].
        count: how many images, the first.

    Returns:
        (n,) in dB, in float32.
    """
    step = prior.schedule.nearest(2 * sigma)
    kept = float(prior.schedule.abar[step].sqrt())

    def denoise(noisy: Tensor, seeds: Tensor) -> Tensor:
        clean = prior.denoised(kept * (2 * noisy - 1), step)
        return ((clean.float() + 1) / 2).clamp(0.0, 1.0)

    return _psnr(denoise, data, sigma, count)


def compare(prior: Prior, data: TrainingData, count: int = COUNT) -> dict[str, Any]:
    """Mean PSNR by noise level: noisy, behind the prior, behind each filter at its best.

    Args:
        prior: the diffusion model.
        data: held-out images, ingested.
        count: how many images, the first.

    Returns:
        ``n`` and ``levels``: for each, ``sigma``, ``step``, ``noisy``, ``prior``, and ``filters``
        with the repr and the figure of the best strength of each.
    """
    levels = []
    for sigma in SIGMAS:
        made = denoising_psnr(prior, data, sigma, count)
        best = {}
        for name, strengths in FILTERS.items():
            tried = [
                (float(_psnr(_with(filter_), data, sigma, count).mean()), repr(filter_))
                for filter_ in strengths(sigma)
            ]
            value, spelled = max(tried)
            best[name] = {"psnr": value, "filter": spelled}
        noisy = _psnr(lambda images, _: images.clamp(0.0, 1.0), data, sigma, count)
        levels.append(
            {
                "sigma": sigma,
                "step": prior.schedule.nearest(2 * sigma),
                "noisy": float(noisy.mean()),
                "prior": float(made.mean()),
                "filters": best,
            }
        )
    return {"n": min(count, data.count), "levels": levels}


def _with(purifier: Purifier) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda noisy, seeds: purifier(noisy.clamp(0.0, 1.0), seeds=seeds)


def _psnr(
    denoise: Callable[[Tensor, Tensor], Tensor], data: TrainingData, sigma: float, count: int
) -> Tensor:
    values = []
    for clean, seeds in _first(data, count):
        noise = normal(derive_seeds(seeds, "noise"), tuple(clean.shape[1:]))
        with torch.inference_mode():
            values.append(psnr(clean, denoise(clean + sigma * noise, seeds)))
    return torch.cat(values)


def _first(data: TrainingData, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The first images in batches of one size, with a seed each."""
    done = 0
    for index in range(data.chunk_count):
        chunk = data.chunk(index)[: count - done]
        for start in range(0, len(chunk), BATCH):
            pixels = torch.from_numpy(np.stack(chunk[start : start + BATCH]))
            seeds = torch.arange(done + start, done + start + len(pixels))
            yield pixels.float() / 255, seeds
        done += len(chunk)
