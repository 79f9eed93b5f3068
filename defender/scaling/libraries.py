"""The real resize calls of OpenCV, Pillow and torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

OPENCV = {
    "nearest": "INTER_NEAREST",
    "nearest-exact": "INTER_NEAREST_EXACT",
    "linear": "INTER_LINEAR",
    "cubic": "INTER_CUBIC",
    "lanczos": "INTER_LANCZOS4",
    "area": "INTER_AREA",
}
PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "linear": Image.Resampling.BILINEAR,
    "cubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "area": Image.Resampling.BOX,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
TORCH = {
    "nearest": "nearest",
    "nearest-exact": "nearest-exact",
    "linear": "bilinear",
    "cubic": "bicubic",
    "area": "area",
}
ALGORITHMS = {"opencv": tuple(OPENCV), "pillow": tuple(PILLOW), "torch": tuple(TORCH)}
"""Algorithms that each library offers, by our names."""


def resize_opencv(images: Tensor, algorithm: str, target: tuple[int, int]) -> Tensor:
    """Resize each channel with ``cv2.resize``.

    Raises:
        ModuleNotFoundError: where OpenCV is not installed; the text says what to install.
    """
    try:
        import cv2
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "OpenCV is not installed: pip install 'image-defender[scaling]'"
        ) from None
    flag: int = getattr(cv2, OPENCV[algorithm])
    size = (target[1], target[0])

    def resize(plane: Any) -> Any:
        return cv2.resize(plane, size, interpolation=flag)

    return _plane_by_plane(images, target, resize)


def resize_pillow(images: Tensor, algorithm: str, target: tuple[int, int]) -> Tensor:
    """Resize each channel with ``PIL.Image.resize``, mode L or F."""
    size, resample = (target[1], target[0]), PILLOW[algorithm]

    def resize(plane: Any) -> Any:
        return np.asarray(Image.fromarray(plane).resize(size, resample))

    return _plane_by_plane(images, target, resize)


def resize_torch(
    images: Tensor, algorithm: str, antialias: bool, target: tuple[int, int]
) -> Tensor:
    """Resize each channel with ``torch.nn.functional.interpolate``.

    Where torch has no 8-bit path, floats are rounded.
    """
    mode = TORCH[algorithm]
    smooth = mode in ("bilinear", "bicubic")
    own = images.dtype != torch.uint8 or mode != "area"
    options: dict[str, Any] = {"antialias": antialias} if smooth else {}
    # channels as images: torch refuses some 8-bit images of three channels (1 x 1 results)
    planes = images.reshape(-1, 1, *images.shape[2:])
    if not len(planes):
        return images.new_zeros(*images.shape[:2], *target)
    made: Tensor = functional.interpolate(
        planes if own else planes.float(), size=target, mode=mode, **options
    )
    made = made if own else made.round_().clamp_(0, 255).to(torch.uint8)
    return made.view(*images.shape[:2], *target)


def _plane_by_plane(
    images: Tensor, target: tuple[int, int], resize: Callable[[Any], Any]
) -> Tensor:
    kind = torch.uint8 if images.dtype == torch.uint8 else torch.float32
    planes: NDArray[Any] = images.detach().to("cpu", kind).contiguous().numpy()
    n, c = planes.shape[:2]
    made = np.empty((n * c, *target), dtype=planes.dtype)
    for place, plane in enumerate(planes.reshape(n * c, *planes.shape[2:])):
        made[place] = resize(plane)
    return torch.from_numpy(made).view(n, c, *target).to(images.device, images.dtype)
