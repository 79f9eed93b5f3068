"""Heat maps laid over the images they belong to, for reports."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from defender.norms import to_uint8
from defender.types import Images

COLOURS = "inferno"
"""A colour map of matplotlib whose lightness rises evenly, so that it also reads in grey."""


def overlay(images: Images, maps: Tensor, *, strength: float = 0.75) -> Tensor:
    """Lay heat maps in colour over images in grey.

    Args:
        images: (..., c, h, w) in [0, 1], RGB or grey.
        maps: (..., h, w) in [0, 1], of the images' size.
        strength: opacity where a map is 1, in [0, 1]; elsewhere it is in proportion to the map, so
            that the image is seen as it is where the map is 0.

    Returns:
        uint8 (..., 3, h, w), RGB, on the CPU.

    Raises:
        ValueError: shapes that do not go together, or a strength out of range.
    """
    import matplotlib

    if images.shape[:-3] + images.shape[-2:] != maps.shape or images.shape[-3] not in (1, 3):
        raise ValueError(
            f"maps: expected (..., h, w) of images (..., 1 or 3, h, w), got {tuple(maps.shape)} "
            f"and {tuple(images.shape)}"
        )
    if not 0 <= strength <= 1:
        raise ValueError(f"strength: expected [0, 1], got {strength}")
    heat = maps.detach().cpu().clamp(0, 1)
    coloured = matplotlib.colormaps[COLOURS](heat.numpy())[..., :3]
    colours = torch.from_numpy(np.asarray(coloured, dtype=np.float32)).movedim(-1, -3)
    grey = images.detach().cpu().mean(dim=-3, keepdim=True)
    weight = strength * heat.unsqueeze(-3)
    return to_uint8(grey + weight * (colours - grey))
