"""Compute batches: fixed in size, one shape each, the last one padded.

Kernels choose their arithmetic by the shape of a batch, and a sign step turns a difference in the
last bit into a visible one. So the shape of a batch never depends on how a dataset was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Pixels = NDArray[np.uint8]
EPOCH_STRIDE = 1_000_003
"""The order of epoch e is drawn from ``seed * EPOCH_STRIDE + e``."""


@dataclass(frozen=True)
class BatchRule:
    """How many images of a shape make a compute batch.

    Args:
        images: at most so many images.
        pixels: at most so many pixels (h * w summed over images), but at least one image.
    """

    images: int = 64
    pixels: int = 1 << 20

    def size(self, height: int, width: int) -> int:
        """Images of this size in a batch."""
        return max(1, min(self.images, self.pixels // max(1, height * width)))


@dataclass(frozen=True)
class Batch:
    """One compute batch.

    Args:
        index: positions of the real images in the chunk.
        padded: the same, the last repeated until the batch is full: what is computed.
    """

    index: list[int]
    padded: list[int]

    def stack(self, images: Sequence[Pixels], device: torch.device) -> Tensor:
        """The images as float32 (b, c, h, w) in [0, 1] on a device."""
        pixels = torch.from_numpy(np.stack([images[i] for i in self.padded]))
        layout = torch.channels_last if pixels.shape[1] == 3 else torch.contiguous_format
        return pixels.to(device).float().div_(255).contiguous(memory_format=layout)

    def pick(self, values: Tensor) -> Tensor:
        """Values (chunk length, ...) of the images of this batch, padding included."""
        return values[torch.tensor(self.padded, device=values.device)]


def batches(
    images: Sequence[Pixels], rule: BatchRule, without: frozenset[int] = frozenset()
) -> Iterator[Batch]:
    """Cut the images of a chunk into compute batches, images of one shape together.

    Args:
        images: of the chunk.
        rule: how many make a batch.
        without: positions that are left out.
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for position, image in enumerate(images):
        if position in without:
            continue
        by_shape.setdefault(image.shape, []).append(position)
    for (_, height, width), positions in by_shape.items():
        size = rule.size(height, width)
        for start in range(0, len(positions), size):
            index = positions[start : start + size]
            yield Batch(index, index + [index[-1]] * (size - len(index)))


def map_images(
    images: Sequence[Pixels],
    rule: BatchRule,
    device: torch.device,
    function: Callable[[Tensor, Batch], Tensor],
) -> list[Pixels]:
    """Apply a function of batches that returns uint8 images, and put them back in order."""
    results: list[Pixels | None] = [None] * len(images)
    for batch in batches(images, rule):
        output = function(batch.stack(images, device), batch).cpu().contiguous().numpy()
        for position, image in zip(batch.index, output, strict=False):
            results[position] = image.copy()
    return [image for image in results if image is not None]


def map_columns(
    images: Sequence[Pixels],
    rule: BatchRule,
    device: torch.device,
    function: Callable[[Tensor, Batch], dict[str, Tensor]],
    without: frozenset[int] = frozenset(),
) -> dict[str, list[float]]:
    """Apply a function of batches that returns columns (b,), and put their values in order.

    Images at the positions ``without`` are left out: their values are NaN.
    """
    columns: dict[str, list[float]] = {}
    for batch in batches(images, rule, without):
        for name, values in function(batch.stack(images, device), batch).items():
            column = columns.setdefault(name, [float("nan")] * len(images))
            for position, value in zip(batch.index, values.tolist(), strict=False):
                column[position] = value
    return columns
