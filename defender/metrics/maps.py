"""How alike two heat maps of an image are, and how much of one lies inside a rectangle.

Heat maps are floats (n, h, w), at least 0. What cannot be said of a map is NaN, so that it is left
out of a mean and counted beside it: a map that is zero everywhere, as Grad-CAM gives where nothing
speaks for the class, has no centre and no mass to be shared out, and does not vary with anything.
"""

from __future__ import annotations

import math

import scipy
import torch
from torch import Tensor

from defender.boxes import box_mask
from defender.types import Scores


def _check(maps: Tensor, others: Tensor) -> None:
    same = maps.shape[1:] == others.shape[1:] and len(others) in (1, len(maps))
    if maps.ndim != 3 or not same:
        raise ValueError(
            f"expected maps (n, h, w) and as many others or one, got {tuple(maps.shape)} "
            f"and {tuple(others.shape)}"
        )


def pearson(maps: Tensor, others: Tensor) -> Scores:
    """Linear correlation of two maps over their pixels.

    Args:
        maps: (n, h, w).
        others: (n, h, w), or (1, h, w) to compare all with.

    Returns:
        float64 (n,) in [-1, 1]; NaN where either map has one value everywhere, such as 0.

    Raises:
        ValueError: shapes that differ.
    """
    _check(maps, others)
    return _correlation(maps.double().flatten(1), others.double().flatten(1))


def spearman(maps: Tensor, others: Tensor) -> Scores:
    """Rank correlation of two maps over their pixels, ties at their mean rank.

    All places where a map is 0 tie.

    Args:
        maps: (n, h, w).
        others: (n, h, w), or (1, h, w) to compare all with.

    Returns:
        float64 (n,) in [-1, 1]; NaN where either map has one value everywhere, such as 0.

    Raises:
        ValueError: shapes that differ.
    """
    _check(maps, others)
    return _correlation(_ranks(maps.flatten(1)), _ranks(others.flatten(1)))


def _ranks(values: Tensor) -> Tensor:
    """Mean ranks float64 (n, places) within each row."""
    ranks: Tensor = torch.from_numpy(scipy.stats.rankdata(values.cpu().numpy(), axis=1))
    return ranks.to(values.device, torch.float64)


def _correlation(x: Tensor, y: Tensor) -> Scores:
    # told by the values: what rounding leaves of the variance of equal values need not be 0
    varied = (x.amax(1) > x.amin(1)) & (y.amax(1) > y.amin(1))
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    lengths = torch.linalg.vector_norm(x, dim=1) * torch.linalg.vector_norm(y, dim=1)
    found: Scores = ((x * y).sum(1) / lengths).clamp(-1, 1)
    return found.masked_fill(~varied, math.nan)


def top_iou(maps: Tensor, others: Tensor, share: float = 0.15) -> Scores:
    """Area that the hottest parts of two maps have in common, as a share of what either covers.

    The hottest part is that of the ``share`` of all pixels, rounded and at least one, with the
    largest values, and those that equal the smallest of these. Pixels where a map is 0 are never
    hot: a map that is 0 nearly everywhere has a smaller part.

    Args:
        maps: (n, h, w), at least 0.
        others: (n, h, w), or (1, h, w) to compare all with.
        share: of the pixels, in (0, 1].

    Returns:
        float64 (n,) in [0, 1]; 0 where one of the maps is 0 everywhere, NaN where both are.

    Raises:
        ValueError: shapes that differ, or a share out of range.
    """
    _check(maps, others)
    if not 0 < share <= 1:
        raise ValueError(f"share: expected (0, 1], got {share}")
    first, second = _hottest(maps, share), _hottest(others, share)
    return (first & second).sum(1).double() / (first | second).sum(1)


def _hottest(maps: Tensor, share: float) -> Tensor:
    """Bool (n, places)."""
    values = maps.flatten(1)
    places = values.shape[1]
    least = values.kthvalue(places + 1 - max(1, round(share * places)), dim=1, keepdim=True).values
    return (values >= least) & (values > 0)


def centroid_shift(maps: Tensor, others: Tensor) -> Scores:
    """Distance between the centres of mass of two maps, in diagonals of the image.

    Args:
        maps: (n, h, w), at least 0.
        others: (n, h, w), or (1, h, w) to compare all with.

    Returns:
        float64 (n,) in [0, 1), the diagonal being ``sqrt(h^2 + w^2)`` pixels; NaN where either map
        is 0 everywhere and has no centre.

    Raises:
        ValueError: shapes that differ.
    """
    _check(maps, others)
    apart = _centroids(maps) - _centroids(others)
    distance: Scores = torch.linalg.vector_norm(apart, dim=1) / math.hypot(*maps.shape[1:])
    return distance


def _centroids(maps: Tensor) -> Tensor:
    """Row and column float64 (n, 2) of the centres of mass; NaN without mass."""
    mass = maps.double()
    down, across = (torch.arange(side, device=maps.device).double() for side in maps.shape[1:])
    moments = torch.stack([mass.sum(2) @ down, mass.sum(1) @ across], dim=1)
    return moments / mass.sum((1, 2))[:, None]


def energy_in_boxes(maps: Tensor, boxes: Tensor) -> Scores:
    """Share of a map's mass that lies inside a rectangle, such as a patch.

    Args:
        maps: (n, h, w), at least 0.
        boxes: int64 (n, 4) top, left, height, width in pixels.

    Returns:
        float64 (n,) in [0, 1]; NaN where the map is 0 everywhere and has no mass.

    Raises:
        ValueError: boxes that are not one a map.
    """
    inside = _inside(maps, boxes)
    mass = maps.double()
    return (mass * inside).sum((1, 2)) / mass.sum((1, 2))


def energy_ratio(maps: Tensor, boxes: Tensor) -> Scores:
    """How much hotter a map is inside a rectangle than on average: mass share by area share.

    Args:
        maps: (n, h, w), at least 0.
        boxes: int64 (n, 4) top, left, height, width in pixels; what lies outside the image does
            not count.

    Returns:
        float64 (n,), at least 0, 1 for a map that is the same everywhere; NaN where the map is 0
        everywhere or the rectangle holds no pixel.

    Raises:
        ValueError: boxes that are not one a map.
    """
    return energy_in_boxes(maps, boxes) / _inside(maps, boxes).double().mean((1, 2))


def _inside(maps: Tensor, boxes: Tensor) -> Tensor:
    """Bool (n, h, w)."""
    if maps.ndim != 3 or boxes.shape != (len(maps), 4):
        raise ValueError(
            f"boxes: expected ({len(maps)}, 4) for maps (n, h, w), got {tuple(boxes.shape)} "
            f"for {tuple(maps.shape)}"
        )
    height, width = maps.shape[1:]
    return box_mask(boxes, (height, width))[:, 0]
