"""Shortest changes made to last when they are stored with 8 bits."""

from __future__ import annotations

import torch

from defender.margins import margin
from defender.norms import from_uint8, project_, quantise_within
from defender.types import Images, Objective

_LONGER = (1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 4.0)
"""How much longer changes are tried to be, in this order."""


@torch.no_grad()
def lasting(
    attacked: Images, images: Images, objective: Objective, norm: str, epsilon: float
) -> Images:
    """Changes lengthened until the images still reach their aim when they are stored.

    A shortest change ends on the decision boundary and may be less than half a level, so that
    rounding takes it back.

    Args:
        attacked: (n, c, h, w) in [0, 1].
        images: (n, c, h, w) in [0, 1], the clean ones, multiples of 1/255.
        objective: with a notion of success.
        norm: ``"linf"`` or ``"l2"``.
        epsilon: radius of the ball that changes stay in, in [0, 1] units.

    Returns:
        (n, c, h, w): the change times the least of 1, 1.1, 1.25, 1.5, 2, 3 and 4, inside of the
        ball, with which the stored image reaches the aim; as it was where none does.

    Raises:
        ValueError: clean images that are not multiples of 1/255.
    """
    result, left = attacked, torch.ones(len(images), dtype=torch.bool, device=images.device)
    for factor in _LONGER:
        longer = project_(images + factor * (attacked - images), images, epsilon, norm)
        if factor == 1:
            longer = attacked
        stored = from_uint8(quantise_within(longer, images, norm=norm, epsilon=epsilon))
        lasts = left & (margin(objective, stored.to(images)) > 0)
        result = torch.where(lasts.view(-1, 1, 1, 1), longer, result)
        left = left & ~lasts
        if not left.any():
            break
    return result
