"""What image libraries do when they resize, as coefficients in closed form.

Along one axis every output pixel is a weighted sum of input pixels, so that a resize of an image
X is ``L X R``, up to the rounding of 8-bit images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, repeat
from typing import Any

import scipy
import torch
from torch import Tensor

Kernel = Callable[[Tensor], Tensor]

NOISE = 1e-12
"""A smaller weight is the rounding noise of a zero: the pixel has no influence."""


@dataclass(frozen=True, eq=False)
class Taps:
    """The coefficients along one axis, one row an output pixel.

    Args:
        index: int64 (n, k), input pixels; entries without influence have weight 0. A row may
            name a pixel more than once, at the border for instance: its weights add up.
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

    def sparse(self) -> Any:
        """The same as a SciPy array (n, N) in CSR form, without zeros and duplicates."""
        n, k = self.index.shape
        rows = torch.arange(n).repeat_interleave(k)
        entries = (self.weight.flatten().numpy(), (rows.numpy(), self.index.flatten().numpy()))
        matrix = scipy.sparse.csr_array(entries, shape=(n, self.size))
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        return matrix

    def norm(self) -> float:
        """Spectral norm of the matrix, from its banded Gram matrix, to machine precision."""
        matrix = self.sparse()
        gram = (matrix @ matrix.T if matrix.shape[0] <= self.size else matrix.T @ matrix).tocoo()
        lower = gram.row >= gram.col
        row, column = gram.row[lower], gram.col[lower]
        side = gram.shape[0]
        band = torch.zeros(int((row - column).max()) + 1, side, dtype=torch.float64).numpy()
        band[row - column, column] = gram.data[lower]
        largest = scipy.linalg.eigvals_banded(
            band, lower=True, select="i", select_range=(side - 1, side - 1)
        )
        return math.sqrt(float(largest[0]))


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


def _nearest(library: str, centred: bool, source: int, target: int) -> Taps:
    """One pixel, at ``floor(i s)`` or, centred, at ``floor((i + 1/2) s)``.

    Positions are rounded as each library rounds them, which decides ties: OpenCV multiplies by
    the reciprocal of a reciprocal, Pillow and OpenCV 5's exact mode add up steps, torch has
    single precision.
    """
    if library == "torch":
        step = torch.tensor(source, dtype=torch.float32) / target
        place = (torch.arange(target, dtype=torch.float32) + centred / 2) * step
    elif centred:
        steps = repeat(source / target, target - 1)
        place = torch.tensor([*accumulate(steps, initial=source / target / 2)], dtype=torch.float64)
    else:
        place = torch.arange(target, dtype=torch.float64) * (1 / (target / source))
    index = place.floor().long().clamp_max(source - 1)
    return Taps(index.unsqueeze(1), torch.ones(target, 1, dtype=torch.float64), source)


def _fixed(
    source: int, target: int, kernel: Kernel, half: int, precision: torch.dtype = torch.float64
) -> Taps:
    centre = (torch.arange(target, dtype=torch.float64) + 0.5) * source / target - 0.5
    centre = centre.to(precision)
    index = centre.floor().long().unsqueeze(1) + torch.arange(1 - half, half + 1)
    weight = kernel(centre.unsqueeze(1) - index).double()
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
    # in units of 1/target of an input pixel, all borders are whole numbers
    start = (torch.arange(target) * source).unsqueeze(1)
    index = start.div(target, rounding_mode="floor") + torch.arange(math.ceil(source / target) + 1)
    high = torch.minimum((index + 1) * target, start + source)
    weight = (high - torch.maximum(index * target, start)).clamp_min(0).double() / source
    return Taps(index.clamp_max(source - 1), weight, source)


def _area_upwards(source: int, target: int) -> Taps:
    """OpenCV AREA enlarges with a linear interpolation of its own.

    In the order of its operations, and with its rounding to single precision: a position that
    comes out below a whole number is one pixel off.
    """
    inverse = target / source
    place = torch.arange(target, dtype=torch.float64)
    left = (place * (1 / inverse)).floor()
    share = (place + 1 - (left + 1) * inverse).float()
    share = torch.where(share <= 0, 0.0, share - share.floor()).double()
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
@torch.inference_mode(False)
def taps(
    library: str,
    algorithm: str,
    antialias: bool,
    source: int,
    target: int,
    precision: torch.dtype = torch.float64,
) -> Taps:
    """Coefficients of a resize along one axis.

    Args:
        library: ``opencv``, ``pillow`` or ``torch``.
        algorithm: as :class:`~defender.scaling.Scaler` names them, and ``area-upwards``, what
            OpenCV's ``area`` is along both axes where it enlarges along one.
        antialias: for torch only; Pillow's kernels are stretched always, OpenCV's never.
        source: input pixels, at least 1.
        target: output pixels, at least 1.
        precision: of the positions of kernels of fixed width; OpenCV's 8-bit paths have float32.

    Raises:
        ValueError: for a combination that the library does not offer.
    """
    made = _taps(library, algorithm, antialias, source, target, precision)
    weight = torch.where(made.weight.abs() < NOISE, 0.0, made.weight)
    used = (weight != 0).any(0)
    return Taps(made.index[:, used], weight[:, used], source)


def _taps(
    library: str,
    algorithm: str,
    antialias: bool,
    source: int,
    target: int,
    precision: torch.dtype,
) -> Taps:
    pair = (library, algorithm)
    if algorithm == "nearest":
        return _nearest(library, library == "pillow", source, target)
    if algorithm == "nearest-exact" and library in ("opencv", "torch"):
        return _nearest(library, True, source, target)
    if pair == ("opencv", "area"):
        return (_overlap if source >= target else _area_upwards)(source, target)
    if pair == ("opencv", "area-upwards"):
        return _area_upwards(source, target)
    if pair == ("torch", "area"):
        return _bins(source, target)
    if pair in STRETCHED and (library == "pillow" or antialias):
        return _stretched(source, target, *STRETCHED[pair])
    if pair in FIXED:
        return _fixed(source, target, *FIXED[pair], precision)
    raise ValueError(f"expected an algorithm that {library} offers, got {algorithm!r}")
