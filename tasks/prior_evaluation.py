"""How well a diffusion model takes noise out of images, beside filters."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from defender.diffusion.prior import Prior
from defender.diffusion.sampling import sample
from defender.metrics.image import psnr
from defender.noise import derive_seeds, normal
from defender.norms import to_uint8
from defender.purifiers import DCTShrinkage, Gaussian, Median, NonLocalMeans
from defender.types import Purifier
from tasks.training_data import TrainingData

SIGMAS = (0.05, 0.1, 0.15, 0.25)
"""Standard deviations of the noise, in units of images in [0, 1]."""

COUNT = 1024
"""Held-out images that are looked at, the first of them."""

BATCH = 64

GRID, GRID_CALLS, GRID_BATCH = 8, 50, 16
"""Images along a side of the grid of samples, network calls for each, and images at a time."""

FILTERS: dict[str, Callable[[float], list[Purifier]]] = {
    "median": lambda sigma: [Median(window) for window in (3, 5)],
    "gaussian": lambda sigma: [Gaussian(width) for width in (0.5, 0.6, 0.7, 0.8, 1.0, 1.2)],
    "non-local means": lambda sigma: [
        NonLocalMeans(h=factor * sigma, sigma=sigma) for factor in (0.4, 0.6, 0.8, 1.0)
    ],
    "dct shrinkage": lambda sigma: [DCTShrinkage(factor * sigma) for factor in (2.0, 2.5, 3.0)],
}
"""Filters of several strengths, of which the best at each noise level counts."""


def denoising_psnr(
    prior: Prior,
    data: TrainingData,
    sigma: float,
    count: int = COUNT,
    device: torch.device | None = None,
) -> Tensor:
    """PSNR of images after Gaussian noise was taken out of them in one step.

    Args:
        prior: the diffusion model.
        data: held-out images, ingested.
        sigma: standard deviation of the noise, in units of images in [0, 1].
        count: how many images, the first.
        device: where the prior takes its images; none: on the CPU.

    Returns:
        (n,) in dB, in float32.
    """
    step = prior.schedule.nearest(2 * sigma)
    kept = float(prior.schedule.abar[step].sqrt())

    def denoise(noisy: Tensor, seeds: Tensor) -> Tensor:
        clean = prior.denoised(kept * (2 * noisy.to(device or noisy.device) - 1), step)
        return ((clean.float().cpu() + 1) / 2).clamp(0.0, 1.0)

    return psnr_of(denoise, data, sigma, count)


def compare(
    prior: Prior, data: TrainingData, count: int = COUNT, device: torch.device | None = None
) -> dict[str, Any]:
    """Mean PSNR by noise level: noisy, behind the prior, behind each filter at its best.

    Args:
        prior: the diffusion model.
        data: held-out images, ingested.
        count: how many images, the first.
        device: where the prior takes its images; none: on the CPU.

    Returns:
        ``n`` and ``levels``: for each, ``sigma``, ``step``, ``noisy``, ``prior``, and ``filters``
        with the repr and the figure of the best strength of each.
    """
    levels = []
    for sigma in SIGMAS:
        made = denoising_psnr(prior, data, sigma, count, device)
        best = {}
        for name, strengths in FILTERS.items():
            tried = [
                (float(psnr_of(behind(filter_), data, sigma, count).mean()), repr(filter_))
                for filter_ in strengths(sigma)
            ]
            value, spelled = max(tried)
            best[name] = {"psnr": value, "filter": spelled}
        noisy = psnr_of(lambda images, _: images.clamp(0.0, 1.0), data, sigma, count)
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


def sample_grid(prior: Prior, device: torch.device) -> bytes:
    """Images out of noise, rows of ``GRID``, without choosing among them.

    Args:
        prior: the diffusion model.
        device: where it is.

    Returns:
        A PNG.
    """
    seeds = torch.arange(GRID * GRID, device=device)
    made = torch.cat(
        [sample(prior, part, GRID_CALLS).cpu() for part in torch.split(seeds, GRID_BATCH)]
    )
    channels, height, width = made.shape[1:]
    rows = to_uint8(made).view(GRID, GRID, channels, height, width).permute(0, 3, 1, 4, 2)
    pixels = rows.reshape(GRID * height, GRID * width, channels).numpy()
    sink = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels).save(sink, "PNG", optimize=True)
    return sink.getvalue()


def behind(purifier: Purifier) -> Callable[[Tensor, Tensor], Tensor]:
    """A purifier as what takes noise out of images, which may leave [0, 1]."""
    return lambda noisy, seeds: purifier(noisy.clamp(0.0, 1.0), seeds=seeds)


def psnr_of(
    denoise: Callable[[Tensor, Tensor], Tensor], data: TrainingData, sigma: float, count: int
) -> Tensor:
    """PSNR of the first images, after Gaussian noise was put in and taken out.

    Args:
        denoise: maps noisy images (n, c, h, w), of which clean ones lie in [0, 1], and seeds (n,)
            to images.
        data: the images, ingested.
        sigma: standard deviation of the noise.
        count: how many images.

    Returns:
        (n,) in dB.
    """
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
