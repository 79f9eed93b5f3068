"""Where an image is busy, so that a change is hard to see."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from defender.luma import luma
from defender.types import Images

_FLAT = 1e-5
"""Largest Sobel response that is rounding: one 8-bit level of blue makes 4e-4."""


def spatial_activity(images: Images) -> Tensor:
    """Sobel magnitude of the luma, divided by its maximum and dilated.

    The outermost pixels count as 0 before the dilation, which takes the maximum over the 5 x 5
    pixels around each one but for the four corners.

    Args:
        images: (n, c, h, w) in [0, 1], c 1 or 3.

    Returns:
        (n, 1, h, w) in [0, 1]; all 1 for an image without an edge inside.

    Source: J. Korhonen, J. You, "Adversarial Attacks Against Blind Image Quality Assessment
    Models", 2022, DOI 10.1145/3552469.3555715.
    Differs: the magnitude of both derivatives. The benchmark of A. Gushchin et al., "Guardians of
    Image Quality", 2025 (repository adversarial-defenses-for-iqa), takes the horizontal one with
    its sign: blind to horizontal edges, and negative where edges only fall, which turns an
    attack around there.
    """
    grey = luma(images)
    down = grey[:, :, 2:] - grey[:, :, :-2]
    across = grey[:, :, :, 2:] - grey[:, :, :, :-2]
    down = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    across = across[:, :, :-2] + 2 * across[:, :, 1:-1] + across[:, :, 2:]
    edges = functional.pad((down.square() + across.square()).sqrt(), [1] * 4)
    largest = edges.amax(dim=(1, 2, 3), keepdim=True)
    wide = functional.max_pool2d(edges, (3, 5), stride=1, padding=(1, 2))
    high = functional.max_pool2d(edges, (5, 3), stride=1, padding=(2, 1))
    flat = largest <= _FLAT
    return (wide.maximum(high) / largest.masked_fill(flat, 1.0)).masked_fill(flat, 1.0)
