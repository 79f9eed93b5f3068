"""Squares in images: how large a patch of cells is painted, where it lies, and how it is pasted."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from defender.noise import derive_seeds, integers
from defender.types import Images, Seeds

PLACES = (
    "random",
    "centre",
    "upper-left",
    "upper-right",
    "lower-left",
    "lower-right",
    "off-object",
)
"""Where a patch lies; see :func:`corners`."""

CANDIDATES = 16
"""Random places of which the one with the least heat is kept that lies off the object."""

_ROUNDING = 1e-9
"""A share that stands for a whole number of pixels may miss it by so little in binary."""


def cell_side(size: float, grid: int, shape: tuple[int, int]) -> int:
    """Side of a cell in pixels: ``floor(size * shorter side / grid)``.

    Args:
        size: side of the patch as a share of the image's shorter side, in (0, 1].
        grid: cells along a side.
        shape: height and width of the image.

    Returns:
        At least 1; the patch is painted over ``grid`` times as many pixels.

    Raises:
        ValueError: cells smaller than a pixel, naming the smallest size that works.
    """
    shorter = min(shape)
    cell = math.floor(size * shorter / grid + _ROUNDING)
    if cell >= 1:
        return cell
    if grid > shorter:
        advice = f"at most {shorter} cells a side fit"
    else:
        advice = f"the smallest size that works is {math.ceil(grid / shorter * 1e4) / 1e4:g}"
    raise ValueError(
        f"size: expected cells of at least 1 pixel, got {size:g} with grid {grid} on images of "
        f"{shape[0]} x {shape[1]}, whose shorter side is {shorter}: cells of "
        f"{size * shorter / grid:.2g} pixels; {advice}"
    )


def corners(
    images: Images, side: int, place: str, seeds: Seeds, model: Any = None
) -> tuple[Tensor, Tensor]:
    """Top and left of a square in each image, which lies inside.

    Args:
        images: (n, c, h, w) in [0, 1], without the patch.
        side: of the square, at most that of the images, in pixels.
        place: ``"random"`` draws uniformly among all places; ``"centre"`` and the four corners
            are what they say; ``"off-object"`` draws :data:`CANDIDATES` places, the first of
            them that of ``"random"``, and takes the one with the least mass of the Grad-CAM map
            of the class that the model predicts for the image.
        seeds: int64 (n,), one an image; what is drawn depends on nothing else and the sizes.
        model: a classifier with convolutions, for ``"off-object"``.

    Returns:
        Two int64 (n,) on the device of the seeds.

    Raises:
        ValueError: ``"off-object"`` without a model.
    """
    down, across = images.shape[2] - side, images.shape[3] - side
    if place == "random":
        return _drawn(seeds, down, across)
    if place == "off-object":
        return _coolest(images, side, seeds, model)
    top = {"centre": down // 2, "lower-left": down, "lower-right": down}.get(place, 0)
    left = {"centre": across // 2, "upper-right": across, "lower-right": across}.get(place, 0)
    return torch.full_like(seeds, top), torch.full_like(seeds, left)


def _drawn(seeds: Seeds, down: int, across: int, candidate: int = 0) -> tuple[Tensor, Tensor]:
    name = f"patch place {candidate}"
    return (
        integers(derive_seeds(seeds, f"{name} top"), down + 1),
        integers(derive_seeds(seeds, f"{name} left"), across + 1),
    )


def _coolest(images: Images, side: int, seeds: Seeds, model: Any) -> tuple[Tensor, Tensor]:
    if model is None:
        raise ValueError("model: expected a classifier for place='off-object', got None")
    # only this place asks for explanations, which are slow to load
    from defender.explain import gradcam, seen_region

    region = seen_region(model, (images.shape[2], images.shape[3]))
    heat = gradcam(model, images, None, region=region).double()
    sums = torch.zeros(len(heat), heat.shape[1] + 1, heat.shape[2] + 1, dtype=heat.dtype)
    sums[:, 1:, 1:] = heat.cpu().cumsum(dim=1).cumsum(dim=2)
    down, across = images.shape[2] - side, images.shape[3] - side
    drawn = [_drawn(seeds, down, across, k) for k in range(CANDIDATES)]
    tops, lefts = (torch.stack(parts, dim=1).cpu() for parts in zip(*drawn, strict=True))
    row = torch.arange(len(heat))[:, None]
    mass = sums[row, tops + side, lefts + side] - sums[row, tops, lefts + side]
    mass = mass - sums[row, tops + side, lefts] + sums[row, tops, lefts]
    # equal masses differ in the last digits of the sums; the first of them is to be taken
    best = mass.mul(1e6).round().argmin(dim=1, keepdim=True)
    top, left = tops.gather(1, best)[:, 0], lefts.gather(1, best)[:, 0]
    return top.to(seeds.device), left.to(seeds.device)


def square_boxes(top: Tensor, left: Tensor, side: int) -> Tensor:
    """Boxes int64 (n, 4) top, left, height, width of squares with the corners (n,)."""
    sides = torch.full_like(top, side)
    return torch.stack([top, left, sides, sides], dim=1)


def _places(top: Tensor, left: Tensor, side: int) -> tuple[Tensor, slice, Tensor, Tensor]:
    along = torch.arange(side, device=top.device)
    rows = (top[:, None] + along)[:, :, None]
    columns = (left[:, None] + along)[:, None, :]
    return torch.arange(len(top), device=top.device)[:, None, None], slice(None), rows, columns


def paste(images: Images, patches: Tensor, top: Tensor, left: Tensor) -> Images:
    """A copy of images in which squares are replaced; gradients pass to the patches.

    Args:
        images: (n, c, h, w); left unchanged.
        patches: (n, c, side, side).
        top: int64 (n,) first row of each square, which lies inside.
        left: int64 (n,) first column.
    """
    pasted = images.clone()
    where = _places(top.to(images.device), left.to(images.device), patches.shape[2])
    pasted[where] = patches.permute(0, 2, 3, 1)
    return pasted


def cut(images: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
    """The squares (n, c, side, side) of images (n, c, h, w): what :func:`paste` replaces."""
    where = _places(top.to(images.device), left.to(images.device), side)
    return images[where].permute(0, 3, 1, 2)


def enlarged(cells: Tensor, cell: int) -> Tensor:
    """Flat squares of ``cell`` pixels a side: (n, c, G, G) to (n, c, G cell, G cell)."""
    return cells.repeat_interleave(cell, dim=2).repeat_interleave(cell, dim=3)


def cell_means(pixels: Tensor, grid: int) -> Tensor:
    """Mean over the pixels of each cell: (n, c, side, side) to (n, c, grid, grid).

    Applied to the gradient of a loss with respect to the pixels of a patch, the gradient per cell.
    """
    n, channels, side, _ = pixels.shape
    cell = side // grid
    return pixels.reshape(n, channels, grid, cell, grid, cell).mean(dim=(3, 5))


def in_channels(cells: Tensor, channels: int) -> Tensor:
    """Cells (..., c, G, G) in the channels of images; gradients pass.

    Grey images take the mean over channels; grey cells are the same in all channels of colour
    images.

    Raises:
        ValueError: numbers of channels that differ and are both above 1.
    """
    own = cells.shape[-3]
    if own == channels:
        return cells
    if channels == 1:
        return cells.mean(dim=-3, keepdim=True)
    if own == 1:
        return cells.expand(*cells.shape[:-3], channels, -1, -1)
    raise ValueError(f"images: expected 1 or {own} channels, got {channels}")
