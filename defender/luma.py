"""Grey levels of float images."""

from __future__ import annotations

from torch import Tensor

from defender.types import Images

_WEIGHTS = (0.299, 0.587, 0.114)


def luma(images: Images) -> Tensor:
    """Luma of images: ``0.299 R + 0.587 G + 0.114 B``, or the grey image itself.

    Args:
        images: (n, 3, h, w), RGB, or (n, 1, h, w); floats of any range.

    Returns:
        (n, 1, h, w).

    Raises:
        ValueError: for another number of channels.

    Source: ITU-R, "Recommendation BT.601", 1982.
    Differs: none.
    """
    channels = images.shape[1]
    if channels not in (1, 3):
        raise ValueError(f"expected images with 1 or 3 channels, got {channels}")
    if channels == 1:
        return images
    red, green, blue = images[:, 0:1], images[:, 1:2], images[:, 2:3]
    return red * _WEIGHTS[0] + green * _WEIGHTS[1] + blue * _WEIGHTS[2]
