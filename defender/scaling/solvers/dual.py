"""The smallest change for a wanted resize, where output pixels share input: dual ascent."""

from __future__ import annotations

import torch
from torch import Tensor

from defender.scaling.solvers.operator import Operator

CHECK_EVERY = 5
FEASIBLE = 0.02 / 255
GAP = 1e-4


@torch.no_grad()
def solve(
    source: Tensor,
    target: Tensor,
    operator: Operator,
    epsilon: float | Tensor,
    *,
    steps: int = 300,
    feasible: float = FEASIBLE,
    gap: float = GAP,
) -> Tensor:
    """``argmin ||A - S||_2`` subject to ``|K A - T| <= epsilon`` and ``0 <= A <= 1``.

    For multipliers m of the output pixels, ``A(m) = clip(S - K^T m, 0, 1)`` minimises the
    Lagrangian, and ``K A(m) - T`` is the gradient of the dual's smooth part. A step is

        ``m <- soft(m + g / D, epsilon / D)``, ``g = K A(m) - T``, ``diag(D) >= K K^T``,

    with Nesterov's extrapolation, which an image starts anew when it points downhill. An image is
    done when no constraint is missed by more than ``feasible`` and what complementarity leaves
    open, ``epsilon ||m||_1 - <m, g>``, the distance between primal and dual value, is at most
    ``gap`` times the primal value. That is asked every few steps, each image for itself.

    Args:
        source: (n, c, N, M) in [0, 1].
        target: (n, c, height, width) in [0, 1].
        operator: the resize.
        epsilon: >= 0, in [0, 1] units; (height, width) for one of each output pixel's own.
        steps: largest number of steps.
        feasible: accepted miss of a constraint, in [0, 1] units.
        gap: accepted relative distance from the optimal value.

    Returns:
        (n, c, N, M) in [0, 1]; the last iterate where the steps ran out, as they do where the box
        leaves no solution.

    Source: A. Beck, M. Teboulle, "A Fast Iterative Shrinkage-Thresholding Algorithm for Linear
    Inverse Problems", 2009, DOI 10.1137/080716542; restart: B. O'Donoghue, E. Candes, "Adaptive
    Restart for Accelerated Gradient Schemes", 2015, arXiv 1204.3982.
    Differs: applied to the dual, with a step size of each multiplier's own.
    """
    # images one by one keep everything in the cache of a core; a GPU wants them all at once
    group = 1 if source.device.type == "cpu" else max(1, len(source))
    parts = zip(torch.split(source, group), torch.split(target.transpose(2, 3), group), strict=True)
    allowed = torch.as_tensor(epsilon, dtype=source.dtype, device=source.device)
    allowed = allowed.expand(target.shape[2:]).mT.contiguous()
    accuracy = (feasible, gap)
    return torch.cat(
        [_ascend(images, goal, operator, allowed, steps, accuracy) for images, goal in parts]
    )


def _ascend(
    source: Tensor,
    target: Tensor,
    operator: Operator,
    epsilon: Tensor,
    steps: int,
    accuracy: tuple[float, float],
) -> Tensor:
    planes, step = source.flatten(0, 1), 1 / operator.curvature
    threshold = epsilon * step
    last = ahead = torch.zeros_like(target)
    age = source.new_ones(len(source), 1, 1, 1)
    result, open_ = torch.empty_like(source), source.new_ones(len(source), dtype=torch.bool)
    for number in range(1, steps + 1):
        attacked = operator.adjoint(ahead.flatten(0, 1))
        torch.sub(planes, attacked, out=attacked).clamp_(0, 1)
        error = operator.forward(attacked).view(target.shape).sub_(target)
        if number % CHECK_EVERY == 0 or number == steps:
            attacked = attacked.view(source.shape)
            done = _done(source, attacked, error, ahead, epsilon, *accuracy)
            if number == steps:
                done = torch.ones_like(open_)
            result = torch.where((done & open_).view(-1, 1, 1, 1), attacked, result)
            open_ &= ~done
            if not bool(open_.any()):
                break
        raised = torch.mul(error, step).add_(ahead)
        fresh = raised.sub_(torch.minimum(torch.maximum(raised, -threshold), threshold))
        move = fresh - last
        downhill = ((ahead - fresh) * move).mul_(operator.curvature).sum((1, 2, 3), keepdim=True)
        age = torch.where(downhill > 0, 1.0, age)
        older = (1 + (1 + 4 * age.square()).sqrt()) / 2
        last, ahead, age = fresh, fresh + move.mul_((age - 1) / older), older
    return result


def _done(
    source: Tensor,
    attacked: Tensor,
    error: Tensor,
    multiplier: Tensor,
    epsilon: Tensor,
    feasible: float,
    gap: float,
) -> Tensor:
    """Which images are close enough to the optimum: bool (n,)."""
    images = (1, 2, 3)
    missed = (error.abs() - epsilon).amax(images)
    value = (attacked - source).square().sum(images) / 2
    left = (epsilon * multiplier.abs() - multiplier * error).sum(images)
    return (missed <= feasible) & (left.abs() <= gap * value + feasible**2)
