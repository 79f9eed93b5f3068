"""What the libraries' 8-bit resizes compute, in whole numbers and without the libraries.

Pillow and torch resize along one axis, then along the other, and round and clip to 8 bits after
each, so that what overshoots in the first is lost to the second. OpenCV keeps the overshoot. All
sums are of whole numbers below 2^53, which float64 holds exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial

import PIL
import torch
from torch import Tensor

from defender.scaling.bands import Bands, separable
from defender.scaling.coefficients import Taps

Axes = tuple[Taps, Taps]

PILLOW_BITS = 22
OPENCV_BITS = 11
BLOCK = 1 << 21
"""Pixels at a time, so that the batch does not decide the memory."""
PILLOW_CHOOSES_ORDER = int(PIL.__version__.split(".")[0]) >= 13
"""Before release 13, Pillow always started along the width."""


def quantised(images: Tensor, library: str, algorithm: str, axes: Axes, single: Axes) -> Tensor:
    """Resize 8-bit images as a library's 8-bit path does.

    Args:
        images: uint8 (n, c, h, w).
        library: ``opencv``, ``pillow`` or ``torch``.
        algorithm: as for :func:`~defender.scaling.coefficients.taps`.
        axes: coefficients along the height and the width.
        single: the same with positions in single precision.

    Returns:
        uint8 (n, c, height, width).
    """
    if algorithm.startswith("nearest"):
        rows, columns = (one.index[:, 0].to(images.device) for one in axes)
        return images.index_select(2, rows).index_select(3, columns)
    resize = _resize(library, algorithm, axes, single)
    group = max(1, BLOCK // max(1, math.prod(images.shape[1:])))
    return torch.cat(
        [resize(part).clamp_(0, 255).to(torch.uint8) for part in torch.split(images, group)]
    ).contiguous()


def _resize(library: str, algorithm: str, axes: Axes, single: Axes) -> Callable[[Tensor], Tensor]:
    if library == "pillow":
        return partial(_passes, axes=axes, whole=_pillow)
    if library == "torch" and algorithm != "area":
        return partial(_passes, axes=axes, whole=_torch)
    if library == "opencv" and algorithm in ("linear", "area-upwards"):
        return partial(_opencv_linear, axes=single)
    if library == "opencv" and algorithm == "lanczos":
        return partial(_opencv_whole, axes=single)
    if library == "opencv" and algorithm == "area" and _whole_ratios(axes):
        return partial(_opencv_means, axes=axes)
    return partial(_nearest_level, axes=axes)


def _nearest_level(images: Tensor, axes: Axes) -> Tensor:
    """``L X R`` rounded, halves to even."""
    made = separable(*axes, images.device, torch.float64).product(images.double())
    # halves are halves again, whatever the last bits of the sums
    return made.mul_(2.0**20).round_().mul_(2.0**-20).round_()


def _passes(images: Tensor, axes: Axes, whole: Callable[[Taps], tuple[Bands, int]]) -> Tensor:
    """One axis after the other; an axis that keeps its length is left out."""
    order = [(axes[1], True), (axes[0], False)]
    if whole is _pillow and PILLOW_CHOOSES_ORDER and _height_first(*axes):
        order.reverse()
    made = images.clone()
    for taps, across in order:
        if taps.size == len(taps.index):
            continue
        bands, bits = whole(taps)
        planes = (made.mT if across else made).flatten(0, 1).contiguous().double()
        sums = bands.to(images.device, torch.float64)(planes).add_(2.0 ** (bits - 1))
        resized = sums.mul_(2.0**-bits).floor_().clamp_(0, 255).to(torch.uint8)
        resized = resized.mT if across else resized
        made = resized.reshape(*images.shape[:2], *resized.shape[1:])
    return made


def _height_first(vertical: Taps, horizontal: Taps) -> bool:
    """Whether Pillow starts along the height: it loses over twice as many pixels as the width."""
    lost = [one.size - len(one.index) for one in (vertical, horizontal)]
    return lost[0] > 0 and lost[0] > 2 * lost[1]


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _pillow(taps: Taps) -> tuple[Bands, int]:
    """Weights in units of 2^-22."""
    bands = Bands.of(taps)
    return Bands(bands.index, _half_away(bands.weight * 2**PILLOW_BITS)), PILLOW_BITS


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _torch(taps: Taps) -> tuple[Bands, int]:
    """Weights in units of 2^-p, p the largest that lets the largest weight fit 15 bits."""
    bands = Bands.of(taps)
    largest = float(bands.weight.max())
    full = (bits for bits in range(22) if 0.5 + largest * 2.0 ** (bits + 1) >= 2**15)
    bits = next(full, 22)
    return Bands(bands.index, _half_away(bands.weight * 2**bits)), bits


def _half_away(values: Tensor) -> Tensor:
    return values.sign() * (values.abs() + 0.5).floor()


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _opencv(taps: Taps) -> Taps:
    """Weights in units of 2^-11; where a border repeats a pixel, each of its weights is rounded."""
    return replace(taps, weight=(taps.weight.float() * 2**OPENCV_BITS).round_().double())


def _opencv_whole(images: Tensor, axes: Axes) -> Tensor:
    """Weights of 11 bits along both axes, rounded once."""
    vertical, horizontal = (_opencv(one) for one in axes)
    sums = separable(vertical, horizontal, images.device, torch.float64).product(images.double())
    bits = 2 * OPENCV_BITS
    return sums.add_(2.0 ** (bits - 1)).mul_(2.0**-bits).floor_()


def _opencv_linear(images: Tensor, axes: Axes) -> Tensor:
    """Weights of 11 bits; along the height each product loses 4 bits before and 16 after it."""
    vertical, horizontal = (_opencv(one) for one in axes)
    planes = images.flatten(0, 1).mT.contiguous().float()
    # the sums along the width have 20 bits, which float32 holds exactly
    wide = _across(horizontal).to(images.device, torch.float32)(planes).mul_(2.0**-4).floor_().mT
    shape = (len(wide), len(vertical.index), wide.shape[2])
    made = torch.full(shape, 2.0, dtype=torch.float64, device=images.device)
    for index, weight in zip(vertical.index.T, vertical.weight.T, strict=True):
        part = wide.index_select(1, index.to(images.device)).double()
        made += part.mul_(weight.to(images.device).unsqueeze(1)).mul_(2.0**-16).floor_()
    return made.mul_(0.25).floor_().view(*images.shape[:2], *made.shape[1:])


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _across(taps: Taps) -> Bands:
    return Bands.of(taps)


def _whole_ratios(axes: Axes) -> bool:
    return all(one.size % len(one.index) == 0 for one in axes)


def _opencv_means(images: Tensor, axes: Axes) -> Tensor:
    """Means over whole blocks: halves are rounded up in blocks of 2 x 2, to even in others."""
    sides = [one.size // len(one.index) for one in axes]
    area = math.prod(sides)
    means = separable(*axes, images.device, torch.float64).product(images.double())
    sums = means.mul_(area).round_()
    if sides == [2, 2]:
        return sums.add_(2).mul_(0.25).floor_()
    return sums.float().mul_(torch.tensor(1 / area, dtype=torch.float32)).round_()
