"""The real resize calls of OpenCV, Pillow and torch."""

from __future__ import annotations

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
    return _plane_by_plane(images, lambda plane: cv2.resize(plane, size, interpolation=flag))


def resize_pillow(images: Tensor, algorithm: str, target: tuple[int, int]) -> Tensor:
    """Resize each channel with ``PIL.Image.resize``, mode L or F."""
    size, resample = (target[1], target[0]), PILLOW[algorithm]
    return _plane_by_plane(
        images, lambda plane: np.asarray(Image.fromarray(plane).resize(size, resample))
    )


def resize_torch(
    images: Tensor, algorithm: str, antialias: bool, target: tuple[int, int]
) -> Tensor:
    """Resize with ``torch.nn.functional.interpolate``; where it has no 8-bit path, round floats."""
    mode = TORCH[algorithm]
    smooth = mode in ("bilinear", "bicubic")
    own = images.dtype != torch.uint8 or mode != "area"
    options: dict[str, Any] = {"antialias": antialias} if smooth else {}
    given = images if own else images.float()
    made: Tensor = functional.interpolate(given, size=target, mode=mode, **options)
    return made if own else made.round_().clamp_(0, 255).to(torch.uint8)


def _plane_by_plane(images: Tensor, resize: Any) -> Tensor:
    kind = torch.uint8 if images.dtype == torch.uint8 else torch.float32
    planes: NDArray[Any] = images.detach().to("cpu", kind).contiguous().numpy()
    n, c = planes.shape[:2]
    made = np.stack([resize(plane) for plane in planes.reshape(n * c, *planes.shape[2:])])
    result = torch.from_numpy(made).view(n, c, *made.shape[1:])
    return result.to(images.device, images.dtype)
