"""Scaling attacks in the spectrum: copies of the target's spectrum at the multiples of its size.

Both detectors look at ``20 ln|F|`` of the mean over the channels, centred.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from defender.detectors.scoring import LEVELS, ImageScore
from defender.scaling import Pipeline
from defender.scaling.peaks import expected_peaks, peak_windows
from defender.scaling.scaler import Size
from defender.types import Images, Knowledge, Scores, Seeds, parameter

_PAPER = (
    "E. Quiring, A. Müller, K. Rieck, On the Detection of Image-Scaling Attacks in Machine "
    "Learning, 2023, DOI 10.1145/3627106.3627134"
)
_SMALLEST = 1e-8


def log_spectrum(planes: Tensor) -> Tensor:
    """``20 ln|F|`` with the constant term at ``(h // 2, w // 2)``.

    Args:
        planes: (n, h, w), grey levels.

    Returns:
        float64 (n, h, w); magnitudes below 1e-8 count as 1e-8.
    """
    width = planes.shape[2]
    half = torch.fft.rfft2(planes.double()).abs().clamp_min_(_SMALLEST).log_().mul_(20)
    # the other half mirrors it: |F(-k, -l)| = |F(k, l)|
    mirrored = half.flip(1).roll(1, 1).flip(2)
    start = 1 if width % 2 == 0 else 0
    whole = torch.cat([half, mirrored[:, :, start : start + width - half.shape[2]]], 2)
    centred: Tensor = torch.fft.fftshift(whole, dim=(1, 2))
    return centred


def mean_spectrum(images: Images) -> Tensor:
    """:func:`log_spectrum` of the mean over the channels of images (n, c, h, w) in [0, 1]."""
    return log_spectrum(images.mean(1, dtype=torch.float64) * LEVELS)


@dataclass(frozen=True)
class PeakSpectrum(ImageScore):
    """Is the spectrum strong where a scaling attack has its peaks.

    Mean of the spectrum over the windows of ``2 r x 2 r`` around the expected peaks
    (:func:`~defender.scaling.peaks.expected_peaks`), outside the ``n x m`` region around the
    centre; the score is the percentile of that mean within the whole spectrum, in [0, 100]. It is
    0 where there are no peaks to expect, at ratios up to 2.

    Args:
        pipeline: how the model's pipeline resizes.
        radius: half side r of a window.

    Source: E. Quiring, A. Müller, K. Rieck, "On the Detection of Image-Scaling Attacks in Machine
    Learning", 2023, DOI 10.1145/3627106.3627134.
    Differs: none.
    """

    paper: ClassVar[str] = _PAPER
    knowledge: ClassVar[Knowledge] = "pipeline"

    pipeline: Pipeline
    radius: int = parameter(
        5, doc="half side of the windows around the peaks", low=1, unit="coefficients"
    )

    def score(self, images: Images, seeds: Seeds) -> Scores:
        """Percentile (n,) in [0, 100]."""
        scaler = self.pipeline.of(images)
        mask = _outer_windows(scaler.source, scaler.target, self.radius).to(images.device)
        if not mask.any():
            return images.new_zeros(len(images))
        spectrum = mean_spectrum(images)
        mean = spectrum[:, mask].mean(1).view(-1, 1, 1)
        below = (spectrum < mean).sum(dim=(1, 2))
        equal = (spectrum == mean).sum(dim=(1, 2))
        # the percentile of a value that is among the others is that of the middle of its equals
        rank = below + (equal + (equal > 0)).double() / 2
        return rank * 100 / math.prod(scaler.source)


@dataclass(frozen=True)
class PeakDistance(ImageScore):
    """Do the strongest frequencies lie where a scaling attack has its peaks.

    In the tile of ``n x m`` coefficients centred on each expected peak
    (:func:`~defender.scaling.peaks.expected_peaks`), cut at the border, the Euclidean distance of
    the largest coefficient from the peak; the score is minus the mean of these distances, <= 0.
    It is minus half the diagonal of a tile where there are no peaks to expect, at ratios up to 2.

    Args:
        pipeline: how the model's pipeline resizes.

    Source: E. Quiring, A. Müller, K. Rieck, "On the Detection of Image-Scaling Attacks in Machine
    Learning", 2023, DOI 10.1145/3627106.3627134.
    Differs: the authors' code leaves out a rim of one coefficient of each tile, and is half a
    coefficient off for odd target widths.
    """

    paper: ClassVar[str] = _PAPER
    knowledge: ClassVar[Knowledge] = "pipeline"

    pipeline: Pipeline

    def score(self, images: Images, seeds: Seeds) -> Scores:
        """Minus the mean distance (n,), in coefficients."""
        scaler = self.pipeline.of(images)
        peaks = expected_peaks(scaler.source, scaler.target).tolist()
        height, width = scaler.target
        if not peaks:
            return images.new_full((len(images),), -math.hypot(height, width) / 2)
        spectrum = mean_spectrum(images)
        total = torch.zeros(len(images), dtype=torch.float64, device=images.device)
        for row, column in peaks:
            top, left = max(row - height // 2, 0), max(column - width // 2, 0)
            tile = spectrum[:, top : row + max(height // 2, 1), left : column + max(width // 2, 1)]
            place = tile.flatten(1).argmax(1)
            down = place.div(tile.shape[2], rounding_mode="floor") + top - row
            across = place % tile.shape[2] + left - column
            total += torch.hypot(down.double(), across.double())
        return -total / len(peaks)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _outer_windows(source: Size, target: Size, radius: int) -> Tensor:
    """The windows around the peaks without the region around the centre: bool (h, w)."""
    mask = peak_windows(source, expected_peaks(source, target), radius)
    rows, columns = (
        slice(max(size // 2 - side // 2, 0), size // 2 + side // 2)
        for size, side in zip(source, target, strict=True)
    )
    mask[rows, columns] = False
    return mask
