"""Small cuts of photographs, for filters that flat or random images would not put to the test."""

from __future__ import annotations

import torch
from skimage import data
from torch import Tensor

from defender.norms import from_uint8


def photographs(size: tuple[int, int] = (48, 56), channels: int = 3) -> Tensor:
    """Three cuts of a photograph on the 8-bit grid: a face, a rocket, cloth."""
    picture = torch.from_numpy(data.astronaut()).permute(2, 0, 1)
    height, width = size
    places = [(90, 190), (60, 340), (330, 130)]
    cuts = torch.stack([picture[:, y : y + height, x : x + width] for y, x in places])
    return from_uint8(cuts[:, :channels].contiguous())


def noisy(images: Tensor, sigma: float, seed: int = 0) -> Tensor:
    """Images with normal noise, clamped."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return (images + sigma * noise).clamp(0, 1)
