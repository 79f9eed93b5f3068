"""Denoising by total variation: the least varying image near the given one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from defender.purifiers.filters import Filter, clamp_through, in_blocks
from defender.types import Images, parameter


@dataclass(frozen=True)
class TotalVariation(Filter):
    """The image u that minimises ``||u - x||^2 / 2 + weight TV(u)``, channel by channel.

    TV is the isotropic total variation: the sum over pixels of the length of the gradient by
    forward differences, zero across the border. A fixed number of steps of accelerated gradient
    projection on the dual problem.

    Args:
        weight: price of variation, [0, 1] units; larger smooths more.
        steps: steps of the minimisation.

    Source: A. Beck, M. Teboulle, "Fast Gradient-Based Algorithms for Constrained Total Variation
    Image Denoising and Deblurring Problems", 2009, DOI 10.1109/TIP.2009.2028250, for the problem
    of L. Rudin, S. Osher, E. Fatemi, 1992, DOI 10.1016/0167-2789(92)90242-F.
    Differs: bounds of [0, 1] are not imposed, as the minimum keeps within the range of x.
    """

    paper: ClassVar[str] = (
        "A. Beck, M. Teboulle, Fast Gradient-Based Algorithms for Constrained Total Variation "
        "Image Denoising and Deblurring Problems, 2009, DOI 10.1109/TIP.2009.2028250"
    )

    weight: float = parameter(0.02, doc="price of variation", low=0, open_low=True)
    steps: int = parameter(20, doc="steps of the minimisation", low=1)

    def filtered(self, images: Images) -> Images:
        """Denoised images; differentiable."""
        least = partial(least_variation, weight=self.weight, steps=self.steps)
        return clamp_through(in_blocks(least, images))


def least_variation(images: Images, weight: float, steps: int) -> Images:
    """The minimum of ``||u - x||^2 / 2 + weight TV(u)`` after some steps.

    Args:
        images: x (n, c, h, w).
        weight: price of variation, > 0.
        steps: steps of the minimisation.

    Returns:
        (n, c, h, w), not clamped; differentiable.
    """
    # the dual field, which lives between pixels: nothing below the last row, nothing right of the
    # last column
    down = last_down = torch.zeros_like(images[:, :, 1:])
    across = last_across = torch.zeros_like(images[:, :, :, 1:])
    step, momentum = 1 / (8 * weight), 1.0
    for _ in range(steps):
        primal = _primal(images, down, across, weight)
        down = down.add(primal[:, :, 1:], alpha=step).sub_(primal[:, :, :-1], alpha=step)
        across = across.add(primal[:, :, :, 1:], alpha=step).sub_(primal[:, :, :, :-1], alpha=step)
        square = functional.pad(down.square(), [0, 0, 0, 1])
        square[:, :, :, :-1] += across.square()
        shorter = square.clamp_min(1.0).rsqrt()
        down, across = down * shorter[:, :, :-1], across * shorter[:, :, :, :-1]
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        share = 1 + (momentum - 1) / following
        momentum = following
        down, last_down = torch.lerp(last_down, down, share), down
        across, last_across = torch.lerp(last_across, across, share), across
    return _primal(images, last_down, last_across, weight)


def _primal(images: Images, down: Tensor, across: Tensor, weight: float) -> Images:
    """Images plus ``weight`` times the divergence of a field."""
    result = images.clone()
    result[:, :, :-1].add_(down, alpha=weight)
    result[:, :, 1:].sub_(down, alpha=weight)
    result[:, :, :, :-1].add_(across, alpha=weight)
    result[:, :, :, 1:].sub_(across, alpha=weight)
    return result
