"""Pictures to hide and to hide in, and what the real library makes of them."""

from __future__ import annotations

import torch
from torch import Tensor

from defender.scaling import Scaler


def grid(n: int, size: tuple[int, int], seed: int, channels: int = 1) -> Tensor:
    """Random 8-bit images without any structure."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(0, 256, (n, channels, *size), generator=generator)
    return levels.float() / 255


def smooth(n: int, size: tuple[int, int], seed: int, channels: int = 1) -> Tensor:
    """Random 8-bit images as smooth as photographs, some values at 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, channels, 6, 6, generator=generator) * 1.3 - 0.15
    fine = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic")
    return (fine * 255).round().clamp(0, 255) / 255


def missed(image: Tensor, target: Tensor, scaler: Scaler) -> float:
    """Largest miss of the real library's 8-bit resize, in grey levels."""
    made = scaler((image * 255).round().to(torch.uint8))
    return float((made.float() - 255 * target).abs().max())
