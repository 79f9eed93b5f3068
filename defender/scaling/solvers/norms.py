"""Attack images of the fewest, the smallest summed, or the smallest largest changes.

Wanted is an image A near a source S with ``|L A R - T| <= epsilon`` and ``0 <= A <= 1``. Where no
two output pixels look at the same input pixel, every output pixel is a problem of its own with an
exact solution. Otherwise the relaxed problem is solved for the whole image by splitting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from defender.scaling.scaler import Scaler
from defender.scaling.solvers.operator import operator
from defender.types import Images

_NEGLIGIBLE = 1e-6
"""Weights below it are rounding errors of the coefficients: no pixel is asked to move by them."""
_LEVEL = 1 / 255
_RELAXATION = 1.7
"""Over-relaxation of the splitting, in (0, 2)."""
_SHRINK = 0.1
"""Weight of the sums of changes in the splitting, and so the length of its steps, in intensity."""
_HALVINGS = 16
_Step = Callable[[Tensor, Tensor, Tensor], Tensor]


def solve_l0(
    source: Images, target: Images, scaler: Scaler, epsilon: float, *, iterations: int = 300
) -> Images:
    """Change few pixels: to 1 or to 0, until the scaled image is within ``epsilon`` of the target.

    In the block of an output pixel, those pixels are changed first that can do most, by weight
    times room to the bound; the last one is set to what is missing. That is the smallest number
    of pixels. Where blocks overlap, the sum of the changes relative to their room (the convex
    envelope of their number) is minimised over the image first, pixels that several blocks share
    keep what they have there, and each block then chooses among the pixels of its own.

    Args:
        source: (n, c, h, w) in [0, 1] of the scaler's source size.
        target: (n, c, th, tw) in [0, 1] of its target size.
        scaler: the resize in question.
        epsilon: allowed difference of the scaled image from the target, in [0, 1] units.
        iterations: of the splitting, where blocks overlap.

    Returns:
        (n, c, h, w) in [0, 1], not rounded. Where blocks overlap, the scaled image is as near to
        what epsilon allows as the iterations bring it: within a grey level for cubic and area,
        within three for antialiased scalers, where no block has pixels of its own.

    Source: E. Quiring, D. Klein, D. Arp, M. Johns, K. Rieck, "Adversarial Preprocessing:
    Understanding and Preventing Image-Scaling Attacks in Machine Learning", 2020, USENIX Security,
    appendix on area scaling.
    Differs: the authors walk through a block row by row; overlapping blocks are ours.
    """
    if operator(scaler, source).disjoint:
        return _by_block(source, target, scaler, epsilon, _fewest)

    def envelope(centre: Tensor) -> Tensor:
        change = centre - source
        room = torch.where(change > 0, 1 - source, source).clamp_min_(_LEVEL)
        return _shrunk(change, _SHRINK / room).add_(source).clamp_(0, 1)

    near = _split(source, target, scaler, epsilon, envelope, iterations)
    near = torch.where((near - source).abs() < _LEVEL / 2, source, near)
    return _by_block(source, target, scaler, epsilon, _fewest, start=near)


def solve_l1(
    source: Images, target: Images, scaler: Scaler, epsilon: float, *, iterations: int = 300
) -> Images:
    """Smallest sum of absolute changes.

    In the block of an output pixel the pixels of largest weight are changed first, each up to its
    bound (a fractional knapsack). Where blocks overlap, the linear program is solved by splitting.
    Arguments and result as for :func:`solve_l0`.

    Source: as for :func:`solve_l0`; the splitting is that of N. Parikh, S. Boyd, "Block Splitting
    for Distributed Optimization", 2014, DOI 10.1007/s12532-013-0061-8.
    Differs: the authors hand the problem to a general solver.
    """
    if operator(scaler, source).disjoint:
        return _by_block(source, target, scaler, epsilon, _lightest)

    def absolute(centre: Tensor) -> Tensor:
        return _shrunk(centre - source, _SHRINK).add_(source).clamp_(0, 1)

    return _split(source, target, scaler, epsilon, absolute, iterations)


def solve_linf(
    source: Images, target: Images, scaler: Scaler, epsilon: float, *, iterations: int = 200
) -> Images:
    """Smallest largest change.

    In the block of an output pixel every pixel moves by the same r, or to its bound where that is
    nearer, with the sign of its weight; r is the root of a piecewise linear function, found by
    sorting. So the largest change of every block, not only of the image, is the smallest that it
    can be. Where blocks overlap, the linear program is solved by splitting, for the image.
    Arguments and result as for :func:`solve_l0`.

    Source: none; asked of the attack of Q. Xiao, Y. Chen, C. Shen, Y. Chen, K. Li, "Seeing is Not
    Believing: Camouflage Attacks on Image Scaling Algorithms", 2019, USENIX Security.
    Differs: they minimise the Euclidean norm. The splitting is as for :func:`solve_l1`.
    """
    if operator(scaler, source).disjoint:
        return _by_block(source, target, scaler, epsilon, _level)

    def largest(centre: Tensor) -> Tensor:
        change = centre - source
        size = change.abs()
        reach = torch.minimum(size, torch.where(change > 0, 1 - source, source))
        high = reach.amax(dim=(1, 2, 3), keepdim=True)
        low = torch.zeros_like(high)
        # the excess over r of those whom the box lets beyond r falls with r, from above 1 to 0
        for _ in range(_HALVINGS):
            radius = (low + high) / 2
            excess = (size - radius).mul_(reach > radius).sum(dim=(1, 2, 3), keepdim=True)
            low = torch.where(excess > 1, radius, low)
            high = torch.where(excess > 1, high, radius)
        return source + torch.clamp(
            change, -torch.minimum(high, source), torch.minimum(high, 1 - source)
        )

    return _split(source, target, scaler, epsilon, largest, iterations)


@dataclass(frozen=True, eq=False)
class _Axis:
    """The input pixels of each output pixel that no other looks at.

    Args:
        index: int64 (n, k); padded with N.
        weight: float64 (n, k); padded with 0.
    """

    index: Tensor
    weight: Tensor


def _owned(matrix: Tensor) -> _Axis:
    """What the rows of a matrix (n, N) have to themselves."""
    seen = matrix.abs() > _NEGLIGIBLE
    alone = seen & (seen.sum(0) == 1)
    width = max(1, int(alone.sum(1).max()))
    index = alone.int().argsort(dim=1, descending=True, stable=True)[:, :width]
    there = alone.gather(1, index)
    weight = torch.where(there, matrix.gather(1, index), 0.0)
    return _Axis(torch.where(there, index, matrix.shape[1]), weight)


@lru_cache(maxsize=64)
def _axes(scaler: Scaler) -> tuple[_Axis, _Axis]:
    with torch.inference_mode(False):
        left, right = scaler.matrices(torch.float64)
        return _owned(left), _owned(right.T)


def _by_block(
    source: Images,
    target: Images,
    scaler: Scaler,
    epsilon: float,
    step: _Step,
    *,
    start: Images | None = None,
) -> Images:
    """Bring the scaled image within epsilon by the pixels that each block has to itself.

    ``step`` maps the room (n, c, th, tw, k) of each pixel of a block in the wanted direction, its
    absolute weight (th, tw, k) and the gap (n, c, th, tw, 1) to moves like the room. Where blocks
    overlap, the pixels that they share are those of ``start``; their own begin at the source.
    """
    vertical, horizontal = (
        _Axis(axis.index.to(source.device), axis.weight.to(source)) for axis in _axes(scaler)
    )
    n, c, height, width = source.shape
    th, tw = scaler.target
    rows = vertical.index.view(th, 1, -1, 1)
    columns = horizontal.index.view(1, tw, 1, -1)
    weight = vertical.weight.view(th, 1, -1, 1) * horizontal.weight.view(1, tw, 1, -1)
    weight = weight.flatten(2)
    # padding of the blocks reads and writes a row and a column that are cut off again
    values = functional.pad(source, [0, 1, 0, 1])[:, :, rows, columns].flatten(4)
    made = functional.pad(source if start is None else start, [0, 1, 0, 1])
    shape = (n, c, th, tw, rows.shape[2], columns.shape[3])
    made[:, :, rows, columns] = values.view(shape)
    scaled = scaler.linear(made[:, :, :height, :width].contiguous())
    gap = torch.clamp(scaled, target - epsilon, target + epsilon) - scaled
    direction = gap.sign().unsqueeze(-1) * weight.sign()
    room = torch.where(direction > 0, 1 - values, values)
    moved = values + direction * step(room, weight.abs(), gap.abs().unsqueeze(-1))
    made[:, :, rows, columns] = moved.clamp_(0, 1).view(shape)
    return made[:, :, :height, :width].contiguous()


def _greedy(key: Tensor, room: Tensor, weight: Tensor, gap: Tensor) -> Tensor:
    """Moves to the bound, in descending order of the key, until the gap is closed."""
    order = key.argsort(dim=-1, descending=True, stable=True)
    weight = weight.expand_as(room).gather(-1, order)
    effect = weight * room.gather(-1, order)
    before = effect.cumsum(-1) - effect
    taken = torch.minimum((gap - before).clamp_min_(0), effect)
    moves = torch.where(weight > 0, taken / weight, 0.0)
    return torch.zeros_like(room).scatter_(-1, order, moves)


def _fewest(room: Tensor, weight: Tensor, gap: Tensor) -> Tensor:
    return _greedy(weight * room, room, weight, gap)


def _lightest(room: Tensor, weight: Tensor, gap: Tensor) -> Tensor:
    return _greedy(weight.expand_as(room), room, weight, gap)


def _level(room: Tensor, weight: Tensor, gap: Tensor) -> Tensor:
    return torch.minimum(room, _radius(room, weight, gap))


def _radius(room: Tensor, weight: Tensor, gap: Tensor) -> Tensor:
    """Smallest r with ``sum w min(room, r) >= gap``; the largest room where there is none."""
    limit, order = room.sort(-1)
    weight = weight.expand_as(room).gather(-1, order)
    # pixels before a place are at their bound, the others move together
    full = (weight * limit).cumsum(-1) - weight * limit
    free = weight.flip(-1).cumsum(-1).flip(-1)
    reached = full + free * limit >= gap
    place = (~reached).sum(-1, keepdim=True).clamp_max(room.shape[-1] - 1)
    free = free.gather(-1, place).clamp_min(_NEGLIGIBLE)
    radius = (gap - full.gather(-1, place)) / free
    return torch.minimum(radius.clamp_min(0), limit.gather(-1, place))


def _shrunk(change: Tensor, threshold: Tensor | float) -> Tensor:
    """Soft threshold: towards zero by the threshold."""
    return change.sign() * (change.abs() - threshold).clamp_min_(0)


@lru_cache(maxsize=64)
def _spectra(scaler: Scaler) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Eigenvalues and vectors of ``L L^T`` and ``R^T R``, float64."""
    with torch.inference_mode(False):
        left, right = scaler.matrices(torch.float64)
        return *torch.linalg.eigh(left @ left.T), *torch.linalg.eigh(right.T @ right)


def _split(
    source: Images,
    target: Images,
    scaler: Scaler,
    epsilon: float,
    prox: Callable[[Tensor], Tensor],
    iterations: int,
) -> Images:
    """Minimise ``f(A)`` subject to ``|L A R - T| <= epsilon`` by graph-form splitting.

    Alternates the proximal step of f, the clamp to the target's interval, and the projection on
    ``{(A, Z): Z = L A R}``, which is exact by the eigenvectors of ``L L^T`` and ``R^T R``. ``prox``
    maps a centre to ``argmin_A f(A) + 1/2 ||A - centre||^2`` within [0, 1]. The number of
    iterations is fixed, so that no image depends on its batch mates.
    """
    a, u, b, v = (part.to(source) for part in _spectra(scaler))
    # scale the rows so that both sides of the graph weigh alike
    power = 1 / (a.max() * b.max())
    damped = power / (1 + power * a.unsqueeze(1) * b)
    low, high = target - epsilon, target + epsilon
    image, small = source, scaler.linear(source)
    image_dual, small_dual = torch.zeros_like(image), torch.zeros_like(small)
    near = source
    for _ in range(iterations):
        near = prox(image - image_dual)
        scaled = torch.clamp(small - small_dual, low, high)
        mixed = _RELAXATION * near + (1 - _RELAXATION) * image
        mixed_small = _RELAXATION * scaled + (1 - _RELAXATION) * small
        centre = mixed + image_dual
        centre_small = mixed_small + small_dual
        missing = centre_small - scaler.linear(centre)
        image = centre + scaler.adjoint(u @ ((u.T @ missing @ v) * damped) @ v.T)
        small = scaler.linear(image)
        image_dual = centre - image
        small_dual = centre_small - small
    return near
