"""What attacks on image-quality metrics share: the gradient in units of the range, Adam's climb."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from defender.adam import Adam
from defender.gradients import gradient
from defender.types import Images, Objective


def range_gradient(objective: Objective, images: Images) -> Tensor:
    """Gradient of the score as a share of the metric's range.

    Args:
        objective: what to raise; divided by its ``span`` where it has one.
        images: (n, c, h, w) in [0, 1]; left unchanged.

    Returns:
        (n, c, h, w), a new tensor; values that are not finite are 0.

    Raises:
        TypeError: an objective without a gradient.
    """
    span = float(getattr(objective, "span", 1.0))
    return gradient(objective, images, check=False).nan_to_num(0.0, 0.0, 0.0).div_(span)


@torch.no_grad()
def adam_ascent(
    images: Images, ascent: Callable[[Images], Tensor], step_size: float, steps: int
) -> Images:
    """Climb with Adam, clipped to [0, 1] after every step.

    Args:
        images: (n, c, h, w) in [0, 1], the start; left unchanged.
        ascent: gradient (n, c, h, w) at images of what should become large.
        step_size: largest change of a value in a step, about, in [0, 1] units.
        steps: number of steps; 0 returns the images.

    Returns:
        (n, c, h, w) in [0, 1].
    """
    attacked = images.clone()
    adam = Adam(attacked, step_size)
    for _ in range(steps):
        # what descends when subtracted climbs when added
        attacked.add_(adam.step(ascent(attacked))).clamp_(0.0, 1.0)
    return attacked
