"""Scaling attacks show when the considered pixels are replaced: A against its filtered A'."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from defender.detectors.patches import considered_in, patches
from defender.detectors.scoring import LEVELS, ImageScore, dissimilarity
from defender.metrics.image import psnr
from defender.norms import from_uint8, to_uint8
from defender.purifiers.selective import selective_median, selective_random
from defender.purifiers.windows import plan
from defender.scaling import Pipeline
from defender.types import Images, Knowledge, Scores, Seeds, parameter

_PAPER = (
    "E. Quiring, A. Müller, K. Rieck, On the Detection of Image-Scaling Attacks in Machine "
    "Learning, 2023, DOI 10.1145/3627106.3627134"
)
SUSPICIOUS = 8 / LEVELS
"""Change of a value by the filter above which a map marks it."""


class _Filtered(ImageScore):
    """A detector that compares an image with its selective filter."""

    knowledge: ClassVar[Knowledge] = "pipeline"

    pipeline: Pipeline
    bandwidth: int

    def filtered(self, images: Images, seeds: Seeds) -> Images:
        """The selective median of images (n, c, h, w)."""
        return selective_median(images, self.pipeline.of(images), self.bandwidth)

    def where(self, images: Images, seeds: Seeds) -> Tensor | None:
        """Values, all of them considered ones, that the filter changes by more than 8 levels."""
        return (images - self.filtered(images, seeds)).abs() > SUSPICIOUS


@dataclass(frozen=True)
class CleanFilter(_Filtered):
    """How much the selective filter changes an image: minus PSNR(A, A') in dB, or 1 minus SSIM.

    Args:
        pipeline: how the model's pipeline resizes.
        filter: selective ``median`` or selective ``random`` filter.
        metric: ``"psnr"``; equal images count as if one value differed by one level, so that the
            score is finite. ``"ssim"`` is 0 for images with a side below 11 pixels.
        bandwidth: divisor of the filter's window, whose reach is ``floor(ratio / bandwidth)``.

    Source: E. Quiring, A. Müller, K. Rieck, "On the Detection of Image-Scaling Attacks in Machine
    Learning", 2023, DOI 10.1145/3627106.3627134.
    Differs: the considered pixels are known in closed form; SSIM with population covariance.
    """

    paper: ClassVar[str] = _PAPER

    pipeline: Pipeline
    filter: str = parameter("median", doc="the selective filter", choices=("median", "random"))
    metric: str = parameter("psnr", doc="how both are compared", choices=("psnr", "ssim"))
    bandwidth: int = parameter(1, doc="divisor of the window: reach floor(ratio / it)", low=1)

    def filtered(self, images: Images, seeds: Seeds) -> Images:
        """The selective filter of images (n, c, h, w)."""
        if self.filter == "median":
            return super().filtered(images, seeds)
        return selective_random(images, self.pipeline.of(images), seeds, self.bandwidth)

    def score(self, images: Images, seeds: Seeds) -> Scores:
        """Minus decibels (n,), or 1 minus SSIM."""
        filtered = self.filtered(images, seeds)
        if self.metric == "ssim":
            return dissimilarity(images, filtered, "ssim")
        smallest_error = 1 / (LEVELS**2 * math.prod(images.shape[1:]))
        return -psnr(images, filtered).clamp_max(-10 * math.log10(smallest_error))


@dataclass(frozen=True)
class PatchCleanFilter(_Filtered):
    """Does the filter change some part of the scaled image more than the rest: local attacks.

    A and its selective median A' are scaled in 8 bits, scale(A) smoothed with a 3 x 3 Gaussian,
    and compared by PSNR in windows of ``(n // windows) x (m // windows)`` pixels; windows that
    are equal count for nothing. The score is the mean of these PSNRs minus the smallest, in dB,
    0 if all windows are equal.

    Args:
        pipeline: how the model's pipeline resizes.
        windows: the side of a window is that of the scaled image divided by this.
        stride: the step between windows is their height divided by this.
        bandwidth: divisor of the filter's window, whose reach is ``floor(ratio / bandwidth)``.

    Source: E. Quiring, A. Müller, K. Rieck, "On the Detection of Image-Scaling Attacks in Machine
    Learning", 2023, DOI 10.1145/3627106.3627134.
    Differs: the considered pixels are known in closed form.
    """

    paper: ClassVar[str] = _PAPER

    pipeline: Pipeline
    windows: int = parameter(5, doc="windows that fit beside each other", low=1)
    stride: int = parameter(4, doc="steps in the height of a window", low=1)
    bandwidth: int = parameter(1, doc="divisor of the filter's window", low=1)

    def score(self, images: Images, seeds: Seeds) -> Scores:
        """Mean minus smallest PSNR of the windows (n,), in dB."""
        scaler = self.pipeline.of(images)
        small = smooth(scaler(to_uint8(images)))
        cleaned = scaler(to_uint8(self.filtered(images, seeds)))
        squares = (from_uint8(small).double() - from_uint8(cleaned).double()).square_().mean(1)
        error = patches(scaler.target, self.windows, self.stride).mean(squares)
        counted = error > 0
        decibels = -10 * error.clamp_min(torch.finfo(error.dtype).tiny).log10()
        mean = (decibels * counted).sum(1) / counted.sum(1).clamp_min(1)
        least = decibels.masked_fill(~counted, torch.inf).amin(1)
        return torch.where(counted.any(1), mean - least, 0.0)

    def where(self, images: Images, seeds: Seeds) -> Tensor | None:
        """None: the windows are those of the scaled image."""
        return None


@dataclass(frozen=True)
class TargetedPatchCleanFilter(_Filtered):
    """Does the filter change the considered pixels of some part more than those of the rest.

    ``|A - A'|`` in grey levels, A' being the selective median; its q-quantile, linear between
    values, over the considered pixels of each window of ``(h // windows) x (w // windows)``, all
    channels together. The score is the largest of these minus their mean, in grey levels, 0 where
    the filter replaces nothing.

    Args:
        pipeline: how the model's pipeline resizes.
        quantile: q.
        windows: the side of a window is that of the image divided by this.
        stride: the step between windows is their height divided by this.
        bandwidth: divisor of the filter's window, whose reach is ``floor(ratio / bandwidth)``.

    Source: E. Quiring, A. Müller, K. Rieck, "On the Detection of Image-Scaling Attacks in Machine
    Learning", 2023, DOI 10.1145/3627106.3627134.
    Differs: the considered pixels are those that the filter replaces, known in closed form;
    windows without any count for nothing.
    """

    paper: ClassVar[str] = _PAPER

    pipeline: Pipeline
    quantile: float = parameter(0.6, doc="quantile of a window's changes", low=0, high=1)
    windows: int = parameter(10, doc="windows that fit beside each other", low=1)
    stride: int = parameter(2, doc="steps in the height of a window", low=1)
    bandwidth: int = parameter(1, doc="divisor of the filter's window", low=1)

    def score(self, images: Images, seeds: Seeds) -> Scores:
        """Largest minus mean quantile of the windows (n,), in grey levels."""
        scaler = self.pipeline.of(images)
        mask = plan(scaler, self.bandwidth).replaced()
        index, counts = considered_in(patches(scaler.source, self.windows, self.stride), mask)
        if not len(counts):
            return images.new_zeros(len(images))
        change = to_uint8((images - self.filtered(images, seeds)).abs())
        quantiles = _quantile(change, index, counts, self.quantile)
        return (quantiles.amax(1) - quantiles.mean(1)).to(images.device)


def smooth(pixels: Tensor) -> Tensor:
    """3 x 3 Gaussian with weights 1/4, 1/2, 1/4 of 8-bit images, the border reflected.

    To the bit what OpenCV makes of ``GaussianBlur(image, (3, 3), 0)``.
    """
    values = pixels.int()
    for axis in (2, 3):
        size = values.shape[axis]
        before = [min(1, size - 1), *range(size - 1)]
        after = [*range(1, size), max(size - 2, 0)]
        sides = (
            values.index_select(axis, torch.tensor(i).to(values.device)) for i in (before, after)
        )
        values = 2 * values + sum(sides)
    return ((values + 8) >> 4).to(torch.uint8)


def _quantile(change: Tensor, index: Tensor, counts: Tensor, quantile: float) -> Tensor:
    """Quantiles (n, windows) of uint8 changes (n, c, h, w) at the pixels (windows, k)."""
    n, channels = change.shape[:2]
    beyond = torch.iinfo(torch.int16).max
    # numpy sorts short rows of small integers many times as fast as torch
    flat = change.cpu().flatten(2).short()
    flat = torch.cat([flat, flat.new_full((n, channels, 1), beyond)], 2)
    values = flat[:, :, index].transpose(1, 2).flatten(2).numpy()
    values.sort(axis=2)
    place = quantile * (counts * channels - 1).double()
    low = place.floor().long()
    high = place.ceil().long()
    ranked = torch.from_numpy(values)
    below, above = (
        ranked.gather(2, rank.expand(n, -1).unsqueeze(2)).squeeze(2).double()
        for rank in (low, high)
    )
    return below + (above - below) * (place - low)
