"""Sign steps along an accumulated gradient, in a linf ball of each image's own radius."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from defender.gradients import check_finite, gradient
from defender.types import Images, Objective


@torch.no_grad()
def momentum_ascent(
    images: Images,
    objective: Objective,
    radii: Tensor,
    steps: int,
    decay: float,
    steepest: Callable[[Images, int], Tensor] | None = None,
) -> Images:
    """Climb with momentum: ``m = decay m + g / |g|_1``, ``x = clip(x + radius / steps sign(m))``.

    Args:
        images: (n, c, h, w) in [0, 1]; left unchanged.
        objective: what to raise.
        radii: (n,), radius of the linf ball of each image, >= 0, in [0, 1] units.
        steps: number of steps; 0 returns the images.
        decay: share of the momentum that is kept in a step.
        steepest: what takes the place of the gradient g (n, c, h, w), given where the images are
            and the number of the step; None for the gradient of the objective.

    Returns:
        (n, c, h, w) in [0, 1], each image within its radius of ``images``.

    Raises:
        TypeError: an objective without a gradient.
        FloatingPointError: a gradient that is not finite.

    Source: Y. Dong et al., "Boosting Adversarial Attacks with Momentum", 2018, arXiv 1710.06081,
    algorithm 1.
    Differs: none.
    """
    attacked = images.clone()
    if steps == 0:
        return attacked
    reach = radii.to(images).view(-1, 1, 1, 1)
    low, high = (images - reach).clamp_min_(0.0), (images + reach).clamp_max_(1.0)
    momentum, total = torch.zeros_like(images), images.new_zeros(())
    smallest = torch.finfo(images.dtype).tiny
    for step in range(steps):
        if steepest is None:
            slope = gradient(objective, attacked, check=False)
        else:
            slope = steepest(attacked, step)
        total += slope.sum()
        length = slope.abs().sum(dim=(1, 2, 3), keepdim=True).clamp_min_(smallest)
        momentum.mul_(decay).addcdiv_(slope, length)
        attacked.addcmul_(momentum.sign(), reach / steps)
        torch.clamp(attacked, low, high, out=attacked)
    check_finite(total, objective)
    return attacked
