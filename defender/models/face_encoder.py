"""A face encoder behind its own resize and normalisation: images in, unit embeddings out."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from defender.models.linearity import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["NORMALISATIONS", "FaceEncoder", "Fit", "Normalisation", "similarity", "unit"]

Normalisation = Literal["imagenet", "half", "facenet", "none"]
Fit = Literal["stretch", "pad"]

NORMALISATIONS: dict[Normalisation, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "half": ((0.5,), (0.5,)),
    "facenet": ((127.5 / 255,), (128 / 255,)),
    "none": ((0.0,), (1.0,)),
}
"""Channel mean and standard deviation by name, for images in [0, 1]; ``none`` leaves them so."""

_ORDINARY = (1e-6, 1e15)
"""Largest magnitudes whose squares neither vanish nor overflow when they are summed."""


def similarity(first: Tensor, second: Tensor) -> Tensor:
    """``(cos(a, b) + 1) / 2`` in [0, 1], of embeddings (..., d) pair by pair; (...)."""
    return (functional.cosine_similarity(first, second, dim=-1) + 1) / 2


def unit(embeddings: Tensor) -> Tensor:
    """Embeddings (n, d) brought to length one, also where their squares overflow or vanish.

    A row of zeros stays one; numbers that are not finite stay so.
    """
    largest = embeddings.detach().abs().amax(dim=1, keepdim=True)
    odd = (largest < _ORDINARY[0]) | (largest > _ORDINARY[1])
    odd &= (largest > 0) & largest.isfinite()
    return functional.normalize(embeddings / torch.where(odd, largest, torch.ones_like(largest)))


class FaceEncoder(nn.Module):
    """Images (n, c, h, w) in [0, 1] of any size to embeddings (n, d) of length one.

    Images are resized to ``input_size`` (bilinear, antialiased, only where the size differs), grey
    ones are repeated to three channels, and normalised as the network was trained. Gradients pass.

    Args:
        network: maps normalised images (n, 3, height, width) to embeddings (n, d) of any length.
        input_size: height and width that the network sees.
        normalisation: how values are normalised, see :data:`NORMALISATIONS`.
        flip: the embedding is that of the sum over the image and its mirror image, which
            verification benchmarks allow and which doubles the work.
        fit: ``stretch`` changes the aspect of an image where it has to; ``pad`` keeps it.
        scale: share of the height and width that the image fills, centred; the rest is black. For
            pictures that show the face alone to networks that were trained on looser crops.
        name: short name, used with the digest in ``repr``.
        digest: hexadecimal digest of the weights and of how images are prepared.

    Raises:
        ValueError: parameters out of range; when called, images of 2 or more than 3 channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        input_size: tuple[int, int] = (112, 112),
        normalisation: Normalisation = "half",
        *,
        flip: bool = False,
        fit: Fit = "stretch",
        scale: float = 1.0,
        name: str = "encoder",
        digest: str = "",
    ) -> None:
        super().__init__()
        if normalisation not in NORMALISATIONS:
            known = " | ".join(NORMALISATIONS)
            raise ValueError(f"normalisation: expected {known}, got {normalisation!r}")
        if fit not in get_args(Fit):
            raise ValueError(f"fit: expected {' | '.join(get_args(Fit))}, got {fit!r}")
        if not 0 < scale <= 1:
            raise ValueError(f"scale: expected (0, 1], got {scale}")
        if len(input_size) != 2 or min(input_size) < 1:
            raise ValueError(f"input_size: expected height and width >= 1, got {input_size}")
        self.network = network
        self.input_size = (int(input_size[0]), int(input_size[1]))
        self.normalisation = normalisation
        self.flip = flip
        self.fit = fit
        self.scale = scale
        self.name = name
        self.digest = digest
        mean, std = NORMALISATIONS[normalisation]
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images (n, c, h, w) in [0, 1]: (n, d), of length one."""
        prepared = self.prepared(images)
        embeddings: Tensor = self.network(prepared)
        if self.flip:
            embeddings = embeddings + self.network(prepared.flip(3))
        return unit(embeddings)

    def prepared(self, images: Tensor) -> Tensor:
        """What the network is given: (n, 3, height, width), normalised."""
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"images: expected (n, 1 or 3, h, w), got {tuple(images.shape)}")
        return (self._fitted(images).expand(-1, 3, -1, -1) - self.mean) / self.std

    def _fitted(self, images: Tensor) -> Tensor:
        height, width = self.input_size
        given = (images.shape[2], images.shape[3])
        room = (max(1, round(self.scale * height)), max(1, round(self.scale * width)))
        size = room
        if self.fit == "pad":
            factor = min(room[0] / given[0], room[1] / given[1])
            size = (max(1, round(factor * given[0])), max(1, round(factor * given[1])))
        if size != given:
            images = functional.interpolate(images, size, mode="bilinear", antialias=True)
        if size == self.input_size:
            return images
        top, left = (height - size[0]) // 2, (width - size[1]) // 2
        return functional.pad(images, (left, width - size[1] - left, top, height - size[0] - top))

    def __repr__(self) -> str:
        return f"{self.name}@{self.digest[:12]}" if self.digest else self.name
