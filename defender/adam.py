"""Adam, value by value, so that the images of a batch do not influence each other."""

from __future__ import annotations

import torch
from torch import Tensor


class Adam:
    """Adam's step sizes for a tensor that is changed from outside.

    ``m = b1 m + (1 - b1) g``, ``v = b2 v + (1 - b2) g^2``, and after t steps the change to
    subtract is ``step_size * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)``. The first one is
    ``step_size * sign(g)`` wherever ``|g|`` is much larger than ``eps``.

    The state is ``first`` (m), ``second`` (v) and ``steps`` (t), which may be stored and set again
    to go on.

    Args:
        like: tensor whose shape, type and device the gradients will have.
        step_size: largest change of a value in a step, about.
        betas: decay of the mean gradient and of the mean squared gradient, in [0, 1).
        eps: added to the root of the mean squared gradient.

    Source: D. P. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", 2015,
    arXiv 1412.6980, algorithm 1.
    Differs: values of a gradient that are not finite count as 0.
    """

    def __init__(
        self,
        like: Tensor,
        step_size: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.step_size = step_size
        self.betas = betas
        self.eps = eps
        self.first = torch.zeros_like(like)
        self.second = torch.zeros_like(like)
        self.steps = 0

    @torch.no_grad()
    def step(self, gradient: Tensor) -> Tensor:
        """The change to subtract in order to descend.

        Args:
            gradient: gradient of what should become small; left unchanged.

        Returns:
            A new tensor of the same shape.
        """
        gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
        self.steps += 1
        self.first.lerp_(gradient, 1 - self.betas[0])
        self.second.mul_(self.betas[1]).addcmul_(gradient, gradient, value=1 - self.betas[1])
        scale = (self.second / (1 - self.betas[1] ** self.steps)).sqrt_().add_(self.eps)
        return self.first.div(scale).mul_(self.step_size / (1 - self.betas[0] ** self.steps))
