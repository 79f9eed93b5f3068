"""What is fine in a picture, set apart before a network looks at it."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional

WINDOW = 7
FLAT = 0.05
"""Deviation, in that of typical images, below which a neighbourhood counts as flat."""
SHARPER = 4.0
"""Factor that brings what a small blur leaves out to about the size of the picture's values."""


def local_mean(images: Tensor, window: int) -> Tensor:
    """Mean over square neighbourhoods, the border repeated; images (n, c, h, w) of any size.

    Rows are added first, then columns: a pooling layer of a large window takes three times as long
    on a CPU.
    """
    height, width = images.shape[-2:]
    padded = functional.pad(images, [window // 2] * 4, mode="replicate")
    rows = reduce(torch.add, (padded[..., i : i + height, :] for i in range(window)))
    return reduce(torch.add, (rows[..., i : i + width] for i in range(window))) / window**2


class Details(nn.Module):
    """A picture beside its locally normalised luma and what a 3 x 3 mean leaves out of it.

    Damage such as noise, blocks and blur is small beside the picture itself, and a network that is
    trained on few pictures learns those first. Divided by its neighbourhood's deviation, damage
    stands out as much in flat regions as in busy ones. There is nothing to be trained.

    Source: the local normalisation is that of A. Mittal, A. Moorthy, A. Bovik, "No-Reference Image
    Quality Assessment in the Spatial Domain", 2012, DOI 10.1109/TIP.2012.2214050.
    Differs: a flat 7 x 7 window, where the paper's is Gaussian.
    """

    channels = 7

    def forward(self, images: Tensor) -> Tensor:
        """Normalised RGB images (n, 3, h, w) to (n, 7, h, w)."""
        luma = images.mean(dim=1, keepdim=True)
        mean = local_mean(luma, WINDOW)
        variance = (local_mean(luma.square(), WINDOW) - mean.square()).clamp_min(0.0)
        # a root has no gradient at 0
        deviation = (variance + 1e-6).sqrt()
        fine = SHARPER * (images - local_mean(images, 3))
        return torch.cat([images, (luma - mean) / (deviation + FLAT), fine], dim=1)
