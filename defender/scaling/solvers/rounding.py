"""Rounding attack images to 8 bits so that the real library still makes the target of them."""

from __future__ import annotations

import torch
from torch import Tensor

from defender.norms import from_uint8, lengths, to_uint8
from defender.scaling.scaler import Scaler
from defender.scaling.solvers.operator import Operator, operator

ROUNDS = 24
REACH = 8.0
MARGIN = 0.05
SLACK = 1e-3


def errors(attacked: Tensor, target: Tensor, scaler: Scaler) -> Tensor:
    """What the real library's 8-bit resize misses the target by, in grey levels.

    Args:
        attacked: (n, c, h, w) in [0, 1]; rounded to 8 bits.
        target: (n, c, height, width) in [0, 1].
        scaler: the resize.

    Returns:
        (n, c, height, width), ``scale(A) - T`` in levels, whole for 8-bit targets.
    """
    return scaler(to_uint8(attacked)).to(target.dtype) - 255 * target


@torch.no_grad()
def round_to(
    attacked: Tensor,
    source: Tensor,
    target: Tensor,
    scaler: Scaler,
    levels: float,
    *,
    rounds: int = ROUNDS,
) -> tuple[Tensor, Tensor]:
    """Round to 8 bits and repair what the rounding broke.

    Rounding pixels, and the library's own rounding, move an output pixel by a level or so. For
    every output pixel that misses by more than ``levels``, the pixels with most weight are moved
    by one level to the side wanted, as many as it takes by the linear model; then the library is
    asked again. A pixel that was moved before comes after others of half its weight, so that
    neighbours who want opposite things do not do the same for ever. Each image keeps the best
    that it met: the smallest largest miss, then the smallest change. An image that misses by more
    than such moves can mend is only rounded.

    Args:
        attacked: (n, c, h, w) in [0, 1], not yet rounded.
        source: (n, c, h, w) in [0, 1].
        target: (n, c, height, width) in [0, 1].
        scaler: the resize; its real library is run.
        levels: the miss allowed, in grey levels; 8 bits allow no less than half a level.
        rounds: how often to repair at most; 0 only rounds.

    Returns:
        images (n, c, h, w), multiples of 1/255, and the largest miss (n,) of each in grey levels.
    """
    limit = max(levels, 0.5) + SLACK
    resize = operator(scaler, attacked)
    now, moves = to_uint8(attacked).to(attacked.dtype), torch.zeros_like(attacked)
    best, best_miss = now.clone(), now.new_full((len(now),), torch.inf)
    best_change = best_miss.clone()
    going = torch.arange(len(now), device=now.device)
    for number in range(rounds + 1):
        part, goal = now[going], 255 * target[going]
        error = scaler(part.to(torch.uint8)).to(goal.dtype) - goal
        miss, change = error.abs().amax((1, 2, 3)), lengths(part - 255 * source[going])
        tie = (miss == best_miss[going]) & (change < best_change[going])
        better = ((miss < best_miss[going]) | tie).nonzero().squeeze(1)
        best[going[better]] = part[better]
        best_miss[going[better]], best_change[going[better]] = miss[better], change[better]
        open_ = ((miss > limit) & (miss < limit + REACH)).nonzero().squeeze(1)
        going, part, error = going[open_], part[open_], error[open_]
        if number == rounds or not len(going):
            break
        linear = resize.forward(part.flatten(0, 1)).transpose(1, 2).view(error.shape)
        step = _step(part, error, linear - goal[open_], limit, moves[going], resize)
        now[going] = part + step
        moves[going] += step.abs()
    return from_uint8(best.to(torch.uint8)).to(attacked.dtype), best_miss


def _step(
    levels: Tensor, error: Tensor, linear: Tensor, limit: float, moves: Tensor, resize: Operator
) -> Tensor:
    """Moves by one level (n, c, h, w), in -1, 0, 1, for the output pixels beyond the limit.

    Args:
        levels: (n, c, h, w), whole numbers in 0..255.
        error: (n, c, height, width), what the library misses the target by.
        linear: the same without the library's rounding.
        limit: the miss allowed.
        moves: (n, c, h, w), how often each pixel was moved before.
        resize: coefficients of the resize.
    """
    beyond = error.abs() - limit
    image, channel, row, column = (beyond > 0).nonzero(as_tuple=True)
    at = (image, channel, row, column)
    side = -error[at].sign()
    needed = torch.maximum(beyond[at] - 1, -side * linear[at] - limit - 0.5) + MARGIN
    pixel, weight = _taps(image * levels.shape[1] + channel, row, column, resize, levels.shape)
    direction = side.unsqueeze(1) * weight.sign()
    value = levels.flatten()[pixel]
    room = torch.where(direction > 0, value < 255, value > 0)
    gain = torch.where(room, weight.abs(), 0)
    rank = (gain / (1 + moves.flatten()[pixel])).argsort(dim=1, descending=True, stable=True)
    gain = gain.gather(1, rank)
    chosen = (gain > 0) & (gain.cumsum(1) - gain < needed.clamp_min(MARGIN).unsqueeze(1))
    step = torch.zeros_like(levels).flatten()
    step.index_add_(0, pixel.gather(1, rank)[chosen], direction.gather(1, rank)[chosen])
    return step.clamp_(-1, 1).view(levels.shape)


def _taps(
    plane: Tensor, row: Tensor, column: Tensor, resize: Operator, shape: torch.Size
) -> tuple[Tensor, Tensor]:
    """Flat places and weights (v, taps) of the pixels behind output pixels given by place (v,)."""
    (down, across), (height, width) = resize.taps, shape[2:]
    high = plane.unsqueeze(1) * height + down.index[row]
    pixel = high.unsqueeze(2) * width + across.index[column].unsqueeze(1)
    weight = down.weight[row].unsqueeze(2) * across.weight[column].unsqueeze(1)
    return pixel.flatten(1), weight.flatten(1)
