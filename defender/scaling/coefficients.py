"""What image libraries do when they resize, as coefficients in closed form.

Along one axis every output pixel is a weighted sum of input pixels, so that a resize of an image
X is ``L X R``, up to the rounding of 8-bit images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

Kernel = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Taps:
    """The coefficients along one axis, one row an output pixel.

    Args:
        index: int64 (n, k), input pixels; entries without influence have weight 0.
        weight: float64 (n, k), each row sums to 1.
        size: input pixels N.
    """

    index: Tensor
    weight: Tensor
    size: int

    def matrix(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """The same as a dense matrix (n, N)."""
        matrix = torch.zeros(len(self.index), self.size, dtype=torch.float64)
        return matrix.scatter_add_(1, self.index, self.weight).to(dtype)


def tent(t: Tensor) -> Tensor:
    """Linear interpolation: ``1 - |t|`` on (-1, 1)."""
    return (1 - t.abs()).clamp_min(0)


def keys(a: float) -> Kernel:
    """Cubic convolution with parameter ``a``.

    Source: R. Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981,
    DOI 10.1109/TASSP.1981.1163711.
    """

    def kernel(t: Tensor) -> Tensor:
        t = t.abs()
        near = ((a + 2) * t - (a + 3)) * t * t + 1
        far = a * (((t - 5) * t + 8) * t - 4)
        return torch.where(t <= 1, near, torch.where(t < 2, far, torch.zeros_like(t)))

    return kernel


def lanczos(a: int) -> Kernel:
    """Sinc windowed by a stretched sinc, ``a`` lobes on each side."""
    return lambda t: torch.sinc(t) * torch.sinc(t / a) * (t.abs() < a)


def hamming(t: Tensor) -> Tensor:
    """Sinc on (-1, 1) windowed by Hamming's raised cosine."""
    return torch.sinc(t) * (0.54 + 0.46 * torch.cos(math.pi * t)) * (t.abs() < 1)


def box(t: Tensor) -> Tensor:
    """One on (-1/2, 1/2]."""
    return ((t > -0.5) & (t <= 0.5)).to(t.dtype)


STRETCHED: dict[tuple[str, str], tuple[Kernel, float]] = {
    ("pillow", "linear"): (tent, 1.0),
    ("pillow", "cubic"): (keys(-0.5), 2.0),
    ("pillow", "lanczos"): (lanczos(3), 3.0),
    ("pillow", "area"): (box, 0.5),
    ("pillow", "box"): (box, 0.5),
    ("pillow", "hamming"): (hamming, 1.0),
    ("torch", "linear"): (tent, 1.0),
    ("torch", "cubic"): (keys(-0.5), 2.0),
}
"""Antialiased kernels and their half width: they widen with the ratio."""

FIXED: dict[tuple[str, str], tuple[Kernel, int]] = {
    ("opencv", "linear"): (tent, 1),
    ("opencv", "cubic"): (keys(-0.75), 2),
    ("opencv", "lanczos"): (lanczos(4), 4),
    ("torch", "linear"): (tent, 1),
    ("torch", "cubic"): (keys(-0.75), 2),
}
"""Kernels of fixed width and their half width in pixels: they skip pixels at large ratios."""


def _nearest(source: int, target: int, offset: float) -> Taps:
    # exact in integers: floor((i + offset) * source / target), offset 0 or 1/2
    doubled = torch.arange(target) * 2 + round(2 * offset)
    index = (doubled * source).div(2 * target, rounding_mode="floor").clamp_max(source - 1)
    return Taps(index.unsqueeze(1), torch.ones(target, 1, dtype=torch.float64), source)


def _fixed(source: int, target: int, kernel: Kernel, half: int) -> Taps:
    centre = (torch.arange(target, dtype=torch.float64) + 0.5) * source / target - 0.5
    index = centre.floor().long().unsqueeze(1) + torch.arange(1 - half, half + 1)
    weight = kernel(centre.unsqueeze(1) - index)
    weight = weight / weight.sum(1, keepdim=True)
    return Taps(index.clamp(0, source - 1), weight, source)


def _stretched(source: int, target: int, kernel: Kernel, half: float) -> Taps:
    ratio = source / target
    stretch = max(1.0, ratio)
    centre = (torch.arange(target, dtype=torch.float64) + 0.5) * ratio
    first = (centre - half * stretch + 0.5).trunc().long().clamp_min(0)
    last = (centre + half * stretch + 0.5).trunc().long().clamp_max(source)
    index = first.unsqueeze(1) + torch.arange(int((last - first).max()))
    weight = kernel((index + 0.5 - centre.unsqueeze(1)) / stretch)
    weight = torch.where(index < last.unsqueeze(1), weight, 0.0)
    weight = weight / weight.sum(1, keepdim=True)
    return Taps(index.clamp_max(source - 1), weight, source)


def _overlap(source: int, target: int) -> Taps:
    """Share of each input pixel in the interval of each output pixel (OpenCV AREA)."""
    ratio = source / target
    start = torch.arange(target, dtype=torch.float64) * ratio
    index = start.floor().long().unsqueeze(1) + torch.arange(math.ceil(ratio) + 1)
    high = torch.minimum(index + 1.0, (start + ratio).unsqueeze(1))
    low = torch.maximum(index.double(), start.unsqueeze(1))
    weight = (high - low).clamp_min(0)
    weight = torch.where(index < source, weight, 0.0)
    weight = weight / weight.sum(1, keepdim=True)
    return Taps(index.clamp_max(source - 1), weight, source)


def _area_upwards(source: int, target: int) -> Taps:
    """OpenCV AREA enlarges with a linear interpolation of its own."""
    ratio = source / target
    place = torch.arange(target, dtype=torch.float64)
    left = (place * ratio).floor()
    share = place + 1 - (left + 1) / ratio
    share = torch.where(share <= 0, 0.0, share - share.floor())
    index = torch.stack([left, left + 1], 1).long().clamp_max(source - 1)
    return Taps(index, torch.stack([1 - share, share], 1), source)


def _bins(source: int, target: int) -> Taps:
    """Plain means over whole-pixel bins (torch adaptive average pooling)."""
    place = torch.arange(target)
    first = (place * source).div(target, rounding_mode="floor")
    last = -((-(place + 1) * source).div(target, rounding_mode="floor"))
    index = first.unsqueeze(1) + torch.arange(int((last - first).max()))
    weight = (index < last.unsqueeze(1)).double()
    weight = weight / weight.sum(1, keepdim=True)
    return Taps(index.clamp_max(source - 1), weight, source)


@lru_cache(maxsize=256)
def taps(library: str, algorithm: str, antialias: bool, source: int, target: int) -> Taps:
    """Coefficients of a resize along one axis.

    Args:
        library: ``opencv``, ``pillow`` or ``torch``.
        algorithm: as :class:`~defender.scaling.Scaler` names them.
        antialias: for torch only; Pillow's kernels are stretched always, OpenCV's never.
        source: input pixels, at least 1.
        target: output pixels, at least 1.

    Raises:
        ValueError: for a combination that the library does not offer.
    """
    pair = (library, algorithm)
    if algorithm == "nearest":
        return _nearest(source, target, 0.5 if library == "pillow" else 0.0)
    if algorithm == "nearest-exact" and library in ("opencv", "torch"):
        return _nearest(source, target, 0.5)
    if pair == ("opencv", "area"):
        return (_overlap if source >= target else _area_upwards)(source, target)
    if pair == ("torch", "area"):
        return _bins(source, target)
    if pair in STRETCHED and (library == "pillow" or antialias):
        return _stretched(source, target, *STRETCHED[pair])
    if pair in FIXED:
        return _fixed(source, target, *FIXED[pair])
    raise ValueError(f"expected an algorithm that {library} offers, got {algorithm!r}")
