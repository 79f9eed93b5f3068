"""What the detectors of image-scaling attacks share: 8-bit pixels, comparisons, no map."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from defender.metrics.structural import structural_similarity
from defender.types import Images, Scores, Seeds, check_parameters

LEVELS = 255
COMPARISONS = ("mse", "ssim")
_LUMA = torch.tensor([9798, 19235, 3735])
_LUMA_BITS = 15


class ImageScore:
    """A detector without a gradient that scores an image and, unless it says so, cannot say where.

    Subclasses are frozen dataclasses with a ``score`` and a class attribute ``knowledge``.
    """

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_parameters(self)

    @torch.no_grad()
    def __call__(self, images: Images, *, seeds: Seeds, reference: Images | None = None) -> Scores:
        """Score images; larger is more suspicious.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            seeds: int64 (n,), for detectors that draw.
            reference: unused.

        Returns:
            float64 (n,), finite, without a gradient.
        """
        return self.score(images.detach(), seeds).double()

    @torch.no_grad()
    def map(
        self, images: Images, *, seeds: Seeds, reference: Images | None = None
    ) -> Tensor | None:
        """Where the images are suspicious, bool (n, c, h, w), or None; arguments as for a score."""
        return self.where(images.detach(), seeds)

    @abstractmethod
    def score(self, images: Images, seeds: Seeds) -> Scores:
        """The score itself: images (n, c, h, w) in [0, 1] to (n,)."""

    def where(self, images: Images, seeds: Seeds) -> Tensor | None:
        """The map itself; None unless a detector overrides it."""
        return None


def luma(pixels: Tensor) -> Tensor:
    """Grey levels of 8-bit images, to the bit those of OpenCV's RGB to grey.

    Args:
        pixels: uint8 (n, 3, h, w), RGB, or (n, 1, h, w).

    Returns:
        uint8 (n, h, w): ``0.299 R + 0.587 G + 0.114 B``, rounded.

    Raises:
        ValueError: for another number of channels.
    """
    channels = pixels.shape[1]
    if channels not in (1, 3):
        raise ValueError(f"expected images with 1 or 3 channels, got {channels}")
    if channels == 1:
        return pixels[:, 0]
    weighted = (pixels.int() * _LUMA.int().to(pixels.device).view(3, 1, 1)).sum(1)
    return ((weighted + (1 << _LUMA_BITS - 1)) >> _LUMA_BITS).to(torch.uint8)


def dissimilarity(images: Images, other: Images, metric: str) -> Scores:
    """How far two sets of images are from each other; larger is further.

    Args:
        images: (n, c, h, w) in [0, 1].
        other: (n, c, h, w) in [0, 1].
        metric: ``"mse"``: squared differences of grey levels 0..255, summed over the channels and
            averaged over the pixels; ``"ssim"``: 1 minus the structural similarity, 0 for images
            with a side below its window of 11 pixels.

    Returns:
        float64 (n,), >= 0.
    """
    if metric == "ssim":
        return (1 - structural_similarity(images, other)).nan_to_num(nan=0.0).clamp_min(0)
    squares = (images.double() - other.double()).mul_(LEVELS).square_()
    return squares.sum(1).mean(dim=(1, 2))
