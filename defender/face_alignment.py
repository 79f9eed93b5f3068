"""Faces moved to where encoders expect them: five landmarks, a similarity transform, a warp."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from defender.norms import to_uint8
from defender.types import Images

TEMPLATE_SIDE = 112

ARCFACE_TEMPLATE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
"""Eye, eye, tip of the nose, corner, corner of the mouth (from the left of the image), as column
and row in an image of 112 x 112 whose first pixel is centred at (0, 0)."""


def template(size: tuple[int, int] = (TEMPLATE_SIDE, TEMPLATE_SIDE)) -> Tensor:
    """The landmarks (5, 2) of an aligned face, as column and row, in an image of another size.

    Args:
        size: height and width in pixels.
    """
    height, width = size
    points = torch.tensor(ARCFACE_TEMPLATE, dtype=torch.float64)
    return points * torch.tensor([width / TEMPLATE_SIDE, height / TEMPLATE_SIDE]).double()


def similarity_transform(source: Tensor, target: Tensor) -> Tensor:
    """The scaling, rotation and shift that take points nearest to others, by least squares.

    Args:
        source: (n, k, 2), k >= 2 points each, as column and row.
        target: (k, 2) or (n, k, 2).

    Returns:
        float64 (n, 2, 3): ``target ~ A @ (column, row, 1)``; never a reflection.

    Raises:
        ValueError: other shapes, or points that all coincide.

    Source: S. Umeyama, "Least-Squares Estimation of Transformation Parameters Between Two Point
    Patterns", 1991, DOI 10.1109/34.88573.
    Differs: in the plane the solution is a quotient of complex numbers, and needs no
    decomposition.
    """
    if source.ndim != 3 or source.shape[1] < 2 or source.shape[2] != 2:
        raise ValueError(f"source: expected points (n, 2 or more, 2), got {tuple(source.shape)}")
    if target.shape not in (source.shape, source.shape[1:]):
        raise ValueError(
            f"target: expected {tuple(source.shape)} or {tuple(source.shape[1:])}, "
            f"got {tuple(target.shape)}"
        )
    source, target = source.double(), target.double().to(source.device).expand_as(source)
    from_centre, to_centre = source.mean(dim=1), target.mean(dim=1)
    x, y = (source - from_centre[:, None]).unbind(dim=2)
    u, v = (target - to_centre[:, None]).unbind(dim=2)
    spread = (x * x + y * y).sum(dim=1)
    if bool((spread <= 0).any()):
        raise ValueError("source: expected points at several places, got one place")
    along, across = (x * u + y * v).sum(dim=1) / spread, (x * v - y * u).sum(dim=1) / spread
    turn = torch.stack([along, -across, across, along], dim=1).view(-1, 2, 2)
    shift = to_centre - (turn @ from_centre[:, :, None])[:, :, 0]
    return torch.cat([turn, shift[:, :, None]], dim=2)


def warp_affine(images: Images, transforms: Tensor, size: tuple[int, int]) -> Images:
    """Move images by affine transforms: bilinear, black where there is nothing.

    Args:
        images: (n, c, h, w); gradients pass.
        transforms: (n, 2, 3), from columns and rows of the images to those of the result; the
            first pixel is centred at (0, 0), as in OpenCV.
        size: height and width of the result.

    Returns:
        (n, c, *size).
    """
    height, width = size
    transforms = transforms.to(images.device).double()
    back = torch.linalg.inv(transforms[:, :, :2])
    columns = torch.arange(width, device=images.device, dtype=torch.float64)
    rows = torch.arange(height, device=images.device, dtype=torch.float64)
    places = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=2)
    shifted = places.view(1, -1, 2) - transforms[:, None, :, 2]
    sources = (shifted @ back.transpose(1, 2)).view(-1, height, width, 2)
    sides = torch.tensor([images.shape[3], images.shape[2]], device=images.device)
    grid = ((2 * sources + 1) / sides - 1).to(images.dtype)
    return functional.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


def align(
    images: Images, landmarks: Tensor, size: tuple[int, int] = (TEMPLATE_SIDE, TEMPLATE_SIDE)
) -> Images:
    """Move faces to the place, size and angle that ArcFace encoders were trained on.

    Args:
        images: (n, c, h, w) in [0, 1]; gradients pass.
        landmarks: (n, 5, 2): the two eyes, the tip of the nose, the two corners of the mouth, each
            pair from the left of the image, as column and row.
        size: height and width of the result.

    Returns:
        (n, c, *size).

    Raises:
        ValueError: landmarks of another shape, or that all coincide.
    """
    if landmarks.shape != (len(images), 5, 2):
        raise ValueError(f"landmarks: expected ({len(images)}, 5, 2), got {tuple(landmarks.shape)}")
    return warp_affine(images, similarity_transform(landmarks, template(size)), size)


class YuNet:
    """Five landmarks of the largest face in each image, by OpenCV's detector.

    Its weights do not come with this package: ``face_detection_yunet_2023mar.onnx`` of OpenCV's
    model zoo.

    Args:
        weights: the ONNX file.
        threshold: confidence from which on something counts as a face, in [0, 1].

    Raises:
        ValueError: where there is no such file, OpenCV cannot use it, or the threshold is out of
            range.
        ImportError: without OpenCV.

    Source: W. Wu, H. Peng, S. Yu, "YuNet: A Tiny Millisecond-Level Face Detector", 2023,
    DOI 10.1007/s11633-023-1423-y.
    """

    def __init__(self, weights: str | Path, threshold: float = 0.6) -> None:
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold: expected [0, 1], got {threshold}")
        if not Path(weights).is_file():
            raise ValueError(f"weights: expected an ONNX file, got {weights}")
        try:
            import cv2
        except ImportError:
            raise ImportError("cv2: expected OpenCV for face detection, got none") from None
        try:
            self._detector: Any = cv2.FaceDetectorYN.create(
                str(weights), "", (TEMPLATE_SIDE, TEMPLATE_SIDE), threshold
            )
        except (cv2.error, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"weights: {weights} cannot be used: {reason}") from None

    def __call__(self, images: Images) -> list[Tensor | None]:
        """Landmarks (5, 2) of the largest face in each image (n, c, h, w), or None without one."""
        height, width = images.shape[2:]
        self._detector.setInputSize((width, height))
        found = []
        colour = to_uint8(images.detach().cpu()).expand(-1, 3, -1, -1)
        # OpenCV takes blue, green, red
        for image in colour.flip(1).permute(0, 2, 3, 1).contiguous().numpy():
            _, faces = self._detector.detect(image)
            found.append(None if faces is None or not len(faces) else _largest(faces))
        return found


def _largest(faces: Any) -> Tensor:
    rows = torch.as_tensor(faces, dtype=torch.float64)
    return rows[(rows[:, 2] * rows[:, 3]).argmax(), 4:14].view(5, 2)
