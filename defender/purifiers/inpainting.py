"""Filling what a mask hides from what lies around it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from defender.boxes import bounding_boxes
from defender.norms import from_uint8, to_uint8
from defender.types import Images

_TOLERANCE = 1e-4
"""Residual at which the diffusion stops, [0, 1] intensity: a fortieth of an 8-bit level."""


def dilated(masks: Tensor, margin: int) -> Tensor:
    """Masks grown by a margin in all directions, diagonals included.

    Args:
        masks: bool (n, c, h, w).
        margin: pixels, >= 0.

    Returns:
        bool (n, c, h, w).
    """
    window = 2 * margin + 1
    return functional.max_pool2d(masks.float(), window, stride=1, padding=margin) > 0


def fill_mean(images: Images, masks: Tensor) -> Images:
    """Fill with the mean colour of the pixels that touch the mask.

    Args:
        images: (n, c, h, w) in [0, 1].
        masks: bool (n, 1, h, w), true where hidden.

    Returns:
        (n, c, h, w); 1/2 where everything is hidden.
    """
    ring = dilated(masks, 1) & ~masks
    count = ring.sum(dim=(2, 3), keepdim=True)
    mean = (images * ring).sum(dim=(2, 3), keepdim=True) / count.clamp_min(1)
    return torch.where(masks, torch.where(count > 0, mean, 0.5), images)


def fill_diffusion(images: Images, masks: Tensor) -> Images:
    """Fill with the harmonic function of the surroundings: each value is its neighbours' mean.

    Laplace's equation with the pixels around the mask as boundary values; neighbours beyond the
    border of the image do not count. Conjugate gradients from the mean of the surroundings on,
    divided by the number of neighbours (Jacobi), image by image.

    Args:
        images: (n, c, h, w) in [0, 1].
        masks: bool (n, 1, h, w), true where hidden.

    Returns:
        (n, c, h, w); 1/2 where everything is hidden.

    Source: M. Bertalmio, G. Sapiro, V. Caselles, C. Ballester, "Image Inpainting", 2000, DOI
    10.1145/344779.344972, for the task; the equation is that of isotropic diffusion at rest.
    Differs: no transport along edges.
    """
    filled = fill_mean(images, masks)
    height, width = masks.shape[2:]
    for place, (top, left, rows, columns) in enumerate(bounding_boxes(masks).tolist()):
        if rows and not bool(masks[place].all()):
            inside = (
                slice(max(0, top - 1), min(height, top + rows + 1)),
                slice(max(0, left - 1), min(width, left + columns + 1)),
            )
            part = (place, slice(None), *inside)
            filled[part] = _harmonic(filled[part].double(), masks[part]).to(filled)
    return filled


def _harmonic(start: Tensor, mask: Tensor) -> Tensor:
    """Conjugate gradients for ``(degree - neighbours) u = 0`` inside a mask, from a start.

    Args:
        start: float64 (c, h, w); what lies outside the mask stays.
        mask: bool (1, h, w).
    """
    degree = _neighbours(torch.ones_like(start[:1]))
    solution = start.clone()
    residual = (_neighbours(solution) - degree * solution) * mask
    scaled = residual / degree
    direction, product = scaled, (residual * scaled).sum(dim=(1, 2), keepdim=True)
    # exact arithmetic needs as many steps as there are unknowns
    for _ in range(int(mask.sum()) + 1):
        if float(residual.abs().max()) < _TOLERANCE / max(mask.shape):
            break
        image = (degree * direction - _neighbours(direction)) * mask
        curvature = (direction * image).sum(dim=(1, 2), keepdim=True)
        step = product / curvature.clamp_min(1e-300)
        solution = solution + step * direction
        residual = residual - step * image
        scaled = residual / degree
        last, product = product, (residual * scaled).sum(dim=(1, 2), keepdim=True)
        direction = scaled + product / last.clamp_min(1e-300) * direction
    return solution


def _neighbours(values: Tensor) -> Tensor:
    """Sum over the up to four neighbours of each value of (c, h, w)."""
    total = torch.zeros_like(values)
    total[:, 1:] += values[:, :-1]
    total[:, :-1] += values[:, 1:]
    total[:, :, 1:] += values[:, :, :-1]
    total[:, :, :-1] += values[:, :, 1:]
    return total


def fill_telea(images: Images, masks: Tensor, radius: float) -> Images:
    """Fill by OpenCV's fast marching on 8-bit images, channel by channel.

    Args:
        images: (n, c, h, w) in [0, 1].
        masks: bool (n, 1, h, w), true where hidden.
        radius: of the neighbourhood that a pixel is made from, in pixels.

    Returns:
        (n, c, h, w); 1/2 where everything is hidden.

    Raises:
        ModuleNotFoundError: where OpenCV is not installed; the text says what to install.

    Source: A. Telea, "An Image Inpainting Technique Based on the Fast Marching Method", 2004, DOI
    10.1080/10867651.2004.10487596.
    Differs: channels are filled one by one.
    """
    try:
        import cv2
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "OpenCV is not installed: pip install 'image-defender[scaling]'"
        ) from None
    inpaint: Any = cv2.inpaint
    filled = fill_mean(images, masks)
    for place, mask in enumerate(masks[:, 0]):
        if bool(mask.any()) and not bool(mask.all()):
            hidden = mask.to(torch.uint8).cpu().numpy()
            planes = to_uint8(images[place]).cpu().numpy()
            made = [
                torch.from_numpy(inpaint(plane, hidden, radius, cv2.INPAINT_TELEA))
                for plane in planes
            ]
            filled[place] = torch.where(
                mask, from_uint8(torch.stack(made)).to(images), images[place]
            )
    return filled
