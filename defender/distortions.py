"""Distortions of known severity, with which image-quality metrics are trained and tested."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from defender.noise import derive_seeds, normal, uniform
from defender.norms import from_uint8, to_uint8
from defender.purifiers.filters import JPEG, BitDepth
from defender.smoothing import gaussian_filter, symmetric_pad
from defender.types import Images, Seeds

LEVELS = (1, 2, 3, 4, 5)
"""Severities, from hardly visible to hardly recognisable."""

_GREY = 0.5
_LUMA = (0.299, 0.587, 0.114)

Change = Callable[[Images, float, Seeds], Images]


@dataclass(frozen=True)
class Distortion:
    """One kind of damage at five severities.

    The result is clipped to [0, 1] and rounded to 8 bits, as a file would hold it. It depends on
    the image, the level and the seed of the image alone.

    Args:
        name: its name in ``DISTORTIONS``.
        quantity: what the strengths are, with their unit.
        strengths: the quantity at the levels 1 to 5.
        change: maps images (n, c, h, w), a strength and seeds (n,) to distorted images.

    Source: H. Lin, V. Hosu, D. Saupe, "KADID-10k: A Large-scale Artificially Distorted IQA
    Database", 2019, DOI 10.1109/QoMEX.2019.8743252, whose kinds and five levels these follow.
    Differs: eleven of its 25 kinds, with strengths of our own.
    """

    version: ClassVar[int] = 1

    name: str
    quantity: str
    strengths: tuple[float, float, float, float, float]
    change: Change = field(repr=False, compare=False)

    @torch.no_grad()
    def __call__(self, images: Images, level: int, *, seeds: Seeds) -> Images:
        """Distort images.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            level: severity, 1 to 5.
            seeds: int64 (n,), one an image; random kinds draw from them.

        Returns:
            (n, c, h, w) in [0, 1], multiples of 1/255.

        Raises:
            ValueError: another level; images no larger than the reach of a blur; images with
                neither 1 nor 3 channels for JPEG.
        """
        if level not in LEVELS:
            raise ValueError(f"level: expected a whole number in [1, 5], got {level!r}")
        strength = self.strengths[level - 1]
        changed = self.change(images, strength, derive_seeds(seeds, f"{self.name} {level}"))
        return torch.empty_like(images).copy_(from_uint8(to_uint8(changed)))


def _blur(images: Images, strength: float, seeds: Seeds) -> Images:
    return gaussian_filter(images, strength)


def _noise(images: Images, strength: float, seeds: Seeds) -> Images:
    return images + strength * normal(seeds, tuple(images.shape[1:])).to(images)


def _jpeg(images: Images, strength: float, seeds: Seeds) -> Images:
    return JPEG(int(strength)).filtered(images)


def _contrast(images: Images, strength: float, seeds: Seeds) -> Images:
    return (images - _GREY) * strength + _GREY


def _downscale(images: Images, strength: float, seeds: Seeds) -> Images:
    height, width = images.shape[2:]
    small = (max(1, round(height / strength)), max(1, round(width / strength)))
    less = functional.interpolate(images, small, mode="bilinear", antialias=True)
    return functional.interpolate(less, (height, width), mode="bicubic")


def _motion(images: Images, strength: float, seeds: Seeds) -> Images:
    """Mean along a straight line of ``strength`` pixels, at an angle of each image's own."""
    reach = math.ceil(strength / 2)
    angles = uniform(seeds, (), 0.0, math.pi).double()
    taps = torch.linspace(-strength / 2, strength / 2, 4 * int(strength) + 1).double()
    kernels = torch.zeros(len(images), 2 * reach + 1, 2 * reach + 1, dtype=torch.float64)
    image = torch.arange(len(images))[:, None]
    down, across = angles.sin()[:, None] * taps + reach, angles.cos()[:, None] * taps + reach
    # each tap is shared out to its four pixels, so that the line has no steps
    for row in (down.floor(), down.floor() + 1):
        for column in (across.floor(), across.floor() + 1):
            share = (1 - (down - row).abs()) * (1 - (across - column).abs())
            place = (image, row.long().clamp(max=2 * reach), column.long().clamp(max=2 * reach))
            kernels.index_put_(place, share, accumulate=True)
    kernels = (kernels / kernels.sum((1, 2), keepdim=True)).to(images)
    return _correlated(images, kernels, reach)


def _correlated(images: Images, kernels: Tensor, reach: int) -> Images:
    """Each image correlated with its own kernel (n, k, k), over a symmetric border."""
    n, channels = images.shape[:2]
    padded = symmetric_pad(images, reach)
    # a batch as groups of one convolution: every image has a kernel of its own
    weights = kernels.repeat_interleave(channels, 0).unsqueeze(1)
    flat = padded.reshape(1, n * channels, *padded.shape[2:])
    return functional.conv2d(flat, weights, groups=n * channels).view_as(images)


def _banding(images: Images, strength: float, seeds: Seeds) -> Images:
    return BitDepth(int(strength)).filtered(images)


def _salt_and_pepper(images: Images, strength: float, seeds: Seeds) -> Images:
    drawn = uniform(seeds, (1, *images.shape[2:])).to(images)
    salted = torch.where(drawn < strength / 2, 0.0, images)
    return torch.where(drawn > 1 - strength / 2, 1.0, salted)


def _over_exposure(images: Images, strength: float, seeds: Seeds) -> Images:
    return images + strength


def _desaturation(images: Images, strength: float, seeds: Seeds) -> Images:
    if images.shape[1] == 1:
        return images
    weights = images.new_tensor(_LUMA).view(1, 3, 1, 1)
    luma = (images * weights).sum(1, keepdim=True)
    return luma + strength * (images - luma)


def _pixelation(images: Images, strength: float, seeds: Seeds) -> Images:
    height, width = images.shape[2:]
    side = int(strength)
    means = functional.avg_pool2d(images, side, ceil_mode=True)
    blocks = means.repeat_interleave(side, 2).repeat_interleave(side, 3)
    return blocks[:, :, :height, :width]


DISTORTIONS: dict[str, Distortion] = {
    one.name: one
    for one in (
        Distortion("blur", "standard deviation in pixels", (0.6, 1.0, 1.6, 2.6, 4.2), _blur),
        Distortion("noise", "standard deviation in [0, 1]", (0.02, 0.04, 0.07, 0.12, 0.2), _noise),
        Distortion("jpeg", "quality factor", (60, 35, 20, 10, 5), _jpeg),
        Distortion(
            "contrast", "factor of the distance from middle grey", (0.8, 0.6, 0.45, 0.3, 0.2),
            _contrast,
        ),
        Distortion("downscale", "factor down and up again", (1.5, 2, 3, 4.5, 7), _downscale),
        Distortion("motion-blur", "length in pixels", (3, 6, 10, 16, 25), _motion),
        Distortion("banding", "bits a channel", (5, 4, 3, 2, 1), _banding),
        Distortion(
            "salt-and-pepper", "share of the pixels", (0.003, 0.01, 0.03, 0.07, 0.15),
            _salt_and_pepper,
        ),
        Distortion(
            "over-exposure", "what is added in [0, 1]", (0.08, 0.16, 0.26, 0.38, 0.5),
            _over_exposure,
        ),
        Distortion(
            "desaturation", "factor of the distance from grey", (0.75, 0.5, 0.3, 0.15, 0),
            _desaturation,
        ),
        Distortion("pixelation", "side of a block in pixels", (2, 3, 5, 8, 12), _pixelation),
    )
}  # fmt: skip
"""Every distortion by its name."""

TRAINED = ("blur", "noise", "jpeg", "contrast", "downscale")
"""What metrics are trained on; the others show how well they generalise."""
