"""Overlapping windows over an image whose border is mirrored, as patch-wise detectors use them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from defender.scaling.scaler import Size


@dataclass(frozen=True, eq=False)
class Patches:
    """Windows, as rows and columns of the image.

    Args:
        rows: int64 (windows down, height of a window).
        columns: int64 (windows across, width of a window).
        size: height and width of the image.
    """

    rows: Tensor
    columns: Tensor
    size: Size

    def mean(self, planes: Tensor) -> Tensor:
        """Mean of each window: (n, h, w) to (n, windows)."""
        device = planes.device
        lines = planes[:, self.rows.to(device)].mean(2)
        return lines[:, :, self.columns.to(device)].mean(3).flatten(1)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def patches(size: Size, windows: int, stride: int) -> Patches:
    """Windows of a ``windows``-th of the image, at steps of a ``stride``-th of their height.

    Sides and steps are rounded down and at least 1. The image is extended by mirroring (``b a | a
    b c | c b``), evenly on both sides, until windows at all steps cover it.

    Args:
        size: height and width of the image, pixels.
        windows: windows that fit beside each other.
        stride: steps in the height of a window.
    """
    sides = [max(side // windows, 1) for side in size]
    step = max(sides[0] // stride, 1)
    rows, columns = (_places(whole, side, step) for whole, side in zip(size, sides, strict=True))
    return Patches(rows, columns, size)


def _places(whole: int, side: int, step: int) -> Tensor:
    """Pixels of each window along one axis: int64 (windows, side)."""
    extra = max(side - (whole % step or step), 0)
    pixels = np.pad(np.arange(whole), (extra // 2, extra - extra // 2), mode="symmetric")
    return torch.from_numpy(np.lib.stride_tricks.sliding_window_view(pixels, side)[::step].copy())


def considered_in(windows: Patches, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels of a mask in each window.

    Args:
        windows: over images of the mask's size.
        mask: bool (h, w).

    Returns:
        int64 (k, largest number) places in the flattened image, filled up with h * w; and int64
        (k,) how many they are; of the k windows with any.
    """
    height, width = windows.size
    inside = mask[windows.rows[:, None, :, None], windows.columns[None, :, None, :]]
    places = windows.rows[:, None, :, None] * width + windows.columns[None, :, None, :]
    inside, places = inside.flatten(2).flatten(0, 1), places.flatten(2).flatten(0, 1)
    counts = inside.sum(1)
    order = inside.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    order = order[:, : int(counts.max())]
    filled = torch.arange(order.shape[1]) < counts.unsqueeze(1)
    chosen = torch.where(filled, places.gather(1, order), height * width)
    return chosen[counts > 0], counts[counts > 0]
