"""Random changes of training images that leave their class as it is."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def augment(
    images: Tensor,
    *,
    padding: int,
    flip: bool,
    cutout: int,
    generator: torch.Generator,
    rotation: float = 0.0,
    zoom: float = 0.0,
    stretch: float = 0.0,
    gamma: float = 0.0,
    contrast: float = 0.0,
    brightness: float = 0.0,
) -> Tensor:
    """Mirror, turn and zoom, shift, change the tone, and blank one square, image by image.

    Every change that is switched off (0) draws no random numbers.

    Args:
        images: (n, c, h, w) float in [0, 1].
        padding: pixels of reflection added on each side before cropping back at random.
        flip: mirror half of the images left to right.
        cutout: side of the square that is set to mid grey.
        generator: source of all random numbers.
        rotation: turn by up to so many degrees, either way.
        zoom: scale by a factor between ``exp(-zoom)`` and ``exp(zoom)``.
        stretch: scale the width by up to ``exp(stretch)`` and the height by as much less, or the
            other way round.
        gamma: raise intensities to a power between ``exp(-gamma)`` and ``exp(gamma)``.
        contrast: multiply differences from the image's mean by ``exp(-contrast)`` to
            ``exp(contrast)``.
        brightness: add up to so much, either way.

    Source: T. DeVries and G. W. Taylor, "Improved Regularization of Convolutional Neural
    Networks with Cutout", 2017, arXiv 1708.04552.
    """
    n, _, height, width = images.shape
    if flip:
        images = mirror(images, generator)
    if rotation or zoom or stretch:
        angles = math.radians(rotation) * _either_way(n, generator)
        factors = torch.exp(zoom * _either_way(n, generator))
        wide = torch.exp(stretch * _either_way(n, generator)) if stretch else None
        images = warp(images, angles, factors, wide)
    if padding:
        padded = nn.functional.pad(images, [padding] * 4, mode="reflect")
        images = crop(padded, (height, width), generator)
    if gamma or contrast or brightness:
        images = retone(
            images,
            torch.exp(gamma * _either_way(n, generator)),
            torch.exp(contrast * _either_way(n, generator)),
            brightness * _either_way(n, generator),
        )
    if cutout:
        centre_row = torch.randint(0, height, (n, 1), generator=generator)
        centre_column = torch.randint(0, width, (n, 1), generator=generator)
        row_inside = (torch.arange(height) - centre_row + cutout // 2).div(
            cutout, rounding_mode="floor"
        ) == 0
        column_inside = (torch.arange(width) - centre_column + cutout // 2).div(
            cutout, rounding_mode="floor"
        ) == 0
        blank = row_inside.unsqueeze(2) & column_inside.unsqueeze(1)
        images = images.masked_fill(blank.unsqueeze(1), 0.5)
    return images


def mirror(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the images (n, c, h, w), of any type, left to right."""
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)


def crop(images: Tensor, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Cut a window out of each image, at a place of its own.

    Args:
        images: (n, c, h, w) of any type.
        size: height and width of the window in pixels.
        generator: source of the places.

    Returns:
        (n, c, *size).

    Raises:
        ValueError: where images are smaller than the window.
    """
    n, channels, height, width = images.shape
    if height < size[0] or width < size[1]:
        raise ValueError(f"crop: expected at most {height} x {width}, got {size[0]} x {size[1]}")
    top = torch.randint(0, height - size[0] + 1, (n,), generator=generator)
    left = torch.randint(0, width - size[1] + 1, (n,), generator=generator)
    cut = images.new_empty((n, channels, *size))
    for image, row, column, whole in zip(cut, top.tolist(), left.tolist(), images, strict=True):
        image.copy_(whole[:, row : row + size[0], column : column + size[1]])
    return cut


def warp(
    images: Tensor, angles: Tensor, factors: Tensor, stretches: Tensor | None = None
) -> Tensor:
    """Turn images about their centre and scale them, linearly interpolated and reflected.

    Args:
        images: (n, c, h, w) float.
        angles: radians (n,), counter-clockwise as one looks at the image.
        factors: (n,), above 1 enlarges.
        stretches: (n,), above 1 makes the content wider and as much lower; none: as it is.
    """
    height, width = images.shape[2:]
    cosine, sine, nought = angles.cos() / factors, angles.sin() / factors, 0 * angles
    # affine_grid measures each axis in halves of its own side
    across = torch.stack([cosine, -sine * height / width, nought], dim=1)
    down = torch.stack([sine * width / height, cosine, nought], dim=1)
    if stretches is not None:
        across, down = across / stretches[:, None], down * stretches[:, None]
    grid = nn.functional.affine_grid(
        torch.stack([across, down], dim=1), list(images.shape), align_corners=False
    )
    return nn.functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )


def retone(images: Tensor, powers: Tensor, factors: Tensor, shifts: Tensor) -> Tensor:
    """``clip(f (x^p - m) + m + s, 0, 1)`` with m the mean of the image ``x^p``.

    Args:
        images: (n, c, h, w) float in [0, 1].
        powers: p of each image, (n,).
        factors: f of each image, (n,).
        shifts: s of each image, (n,).
    """
    powers, factors, shifts = (v.view(-1, 1, 1, 1) for v in (powers, factors, shifts))
    images = images.clamp(0, 1) ** powers
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (factors * (images - mean) + mean + shifts).clamp(0, 1)


def _either_way(n: int, generator: torch.Generator) -> Tensor:
    return 2 * torch.rand(n, generator=generator) - 1
