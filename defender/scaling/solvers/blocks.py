"""The smallest change for a wanted resize in closed form, where output pixels share no input."""

from __future__ import annotations

import torch
from torch import Tensor

from defender.scaling.solvers.operator import Operator

TOLERANCE = 1e-7


@torch.no_grad()
def solve(source: Tensor, target: Tensor, operator: Operator, epsilon: float) -> Tensor:
    """``argmin ||A - S||_2`` subject to ``|K A - T| <= epsilon`` and ``0 <= A <= 1``, exactly.

    Every output pixel has a block of input pixels of its own, with weights w, so that the problem
    falls apart: with ``b = clip(<w, S>, T - epsilon, T + epsilon)``, the block of the solution is
    ``A = clip(S + mu w, 0, 1)`` with the one mu for which ``<w, A> = b``. From mu = 0 towards its
    sign the sum is concave (pixels only drop out, at a bound), so Newton's method reaches mu from
    below without overshooting, in at most as many steps as the block has pixels. Where the box
    leaves b out of reach, every pixel ends at its bound: the nearest value that can be reached.

    Args:
        source: (n, c, N, M) in [0, 1].
        target: (n, c, height, width) in [0, 1].
        operator: a resize whose output pixels share no input pixels.
        epsilon: >= 0, in [0, 1] units.

    Returns:
        (n, c, N, M) in [0, 1].

    Raises:
        ValueError: for a resize whose output pixels share input pixels.

    Source: E. Quiring, D. Klein, D. Arp, M. Johns, K. Rieck, "Adversarial Preprocessing:
    Understanding and Preventing Image-Scaling Attacks in Machine Learning", 2020, USENIX Security.
    Differs: they solve two problems one after the other, with a general solver.
    """
    if not operator.disjoint:
        raise ValueError(
            "method: expected output pixels that share no input pixels for 'exact', got some "
            "that do"
        )
    planes, goal = source.flatten(0, 1), target.transpose(2, 3).flatten(0, 1)
    pixels, weights = _blocks(planes, operator)
    resized, around = (pixels * weights).sum(0), goal.flatten()
    wanted = torch.clamp(resized, around - epsilon, around + epsilon)
    multiplier = _multipliers(pixels, weights, wanted, wanted - resized)
    spread = operator.adjoint(multiplier.view(goal.shape))
    return spread.add_(planes).clamp_(0, 1).view(source.shape)


def _blocks(source: Tensor, operator: Operator) -> tuple[Tensor, Tensor]:
    """The pixels of each output pixel's block and their weights, both (taps, b * m * n)."""
    down, across = operator.taps
    (rows, tall), (columns, wide) = down.index.shape, across.index.shape
    picked = source.index_select(1, down.index.flatten()).index_select(2, across.index.flatten())
    split = picked.view(len(source), rows, tall, columns, wide).permute(2, 4, 0, 3, 1)
    weights = torch.einsum("nk,ml->klmn", down.weight, across.weight).unsqueeze(2)
    return (
        split.reshape(tall * wide, -1),
        weights.expand(-1, -1, len(source), -1, -1).reshape(tall * wide, -1),
    )


def _multipliers(pixels: Tensor, weights: Tensor, wanted: Tensor, missing: Tensor) -> Tensor:
    """Newton's method for every block that is not yet where it should be: mu of each (blocks,)."""
    result = torch.zeros_like(wanted)
    block = torch.arange(len(wanted), device=wanted.device)
    value = pixels
    for _ in range(len(pixels) + 1):
        upwards = (weights > 0) == (missing > 0)
        free = torch.where(upwards, value < 1, value > 0)
        slope = torch.where(free, weights.square(), 0).sum(0)
        going = ((missing.abs() > TOLERANCE) & (slope > TOLERANCE**2)).nonzero().squeeze(1)
        if not len(going):
            break
        block, wanted = block[going], wanted[going]
        weights, pixels = weights[:, going], pixels[:, going]
        moved = result[block] + missing[going] / slope[going]
        result[block] = moved
        value = (pixels + moved * weights).clamp_(0, 1)
        missing = wanted - (value * weights).sum(0)
    return result
