"""Gradients of scores with respect to images, and of nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from defender.types import Images, Scores


@runtime_checkable
class Averaged(Protocol):
    """An objective that is the mean of scores of several draws."""

    @property
    def draws(self) -> int:
        """Number of draws."""
        ...

    def __call__(self, images: Images) -> Scores:
        """Mean score (n,) over the draws."""
        ...

    def score_of_draw(self, draw: int, images: Images) -> Scores:
        """Score (n,) of one draw."""
        ...


def mean_over_draws(objective: Averaged, images: Images) -> Scores:
    """Mean score (n,) over the draws of an averaged objective."""
    scores = objective.score_of_draw(0, images)
    for draw in range(1, objective.draws):
        scores = scores + objective.score_of_draw(draw, images)
    return scores / objective.draws


def ordinary(tensor: Tensor) -> Tensor:
    """The tensor itself, or a copy that autograd can save if it was made in inference mode.

    To be called with inference mode switched off.
    """
    return tensor.clone() if tensor.is_inference() else tensor


def value_and_gradient(
    objective: Callable[[Images], Scores] | Averaged, images: Images, *, check: bool = True
) -> tuple[Scores, Tensor]:
    """Scores and the gradient of each image's own score with respect to that image.

    Parameters of models get no gradients. Works under ``no_grad`` and ``inference_mode``. The
    draws of an averaged objective are differentiated one after the other, so that memory
    does not grow with their number.

    Args:
        objective: scores images; an image's score must not depend on its batch mates.
        images: (n, c, h, w) in [0, 1]; left unchanged.
        check: look for gradients that are not finite now; attacks that wait for no device until
            their end pass False and call :func:`check_finite` once.

    Returns:
        scores (n,) and gradient (n, c, h, w), both detached.

    Raises:
        TypeError: when the score has no gradient, naming the objective.
        ValueError: when there is not one score an image.
        FloatingPointError: when a gradient is not finite, naming the objective.
    """
    if isinstance(objective, Averaged) and objective.draws > 1:
        scores, gradients = _differentiate(partial(objective.score_of_draw, 0), images, objective)
        for draw in range(1, objective.draws):
            more = _differentiate(partial(objective.score_of_draw, draw), images, objective)
            scores, gradients = scores + more[0], gradients + more[1]
        scores, gradients = scores / objective.draws, gradients / objective.draws
    else:
        scores, gradients = _differentiate(objective, images, objective)
    if check:
        check_finite(gradients.sum(), objective)
    return scores, gradients


def gradient(
    objective: Callable[[Images], Scores] | Averaged, images: Images, *, check: bool = True
) -> Tensor:
    """The gradient (n, c, h, w) of :func:`value_and_gradient` alone."""
    return value_and_gradient(objective, images, check=check)[1]


def check_finite(total: Tensor, objective: object) -> None:
    """Raise if a sum of gradients is not finite, which it is not if any gradient is not.

    Args:
        total: scalar sum of gradients, over as many steps as the caller likes.
        objective: what was differentiated, for the message.

    Raises:
        FloatingPointError: naming the objective.
    """
    if not torch.isfinite(total):
        raise FloatingPointError(
            f"expected finite gradients, got {total.item()} from {objective!r}"
        )


def _differentiate(
    score: Callable[[Images], Scores], images: Images, objective: object
) -> tuple[Scores, Tensor]:
    with torch.inference_mode(False), torch.enable_grad():
        leaf = ordinary(images).detach().requires_grad_(True)
        scores = score(leaf)
        if scores.shape != (len(images),):
            raise ValueError(
                f"expected one score an image ({len(images)},), got {tuple(scores.shape)} "
                f"from {objective!r}"
            )
        gradients = None
        if scores.requires_grad:
            (gradients,) = torch.autograd.grad(scores.sum(), leaf, allow_unused=True)
    if gradients is None:
        raise TypeError(
            f"expected an objective with a gradient, got {objective!r}, whose score has none; "
            "use an attack that needs scores only, such as Square"
        )
    return scores.detach(), gradients
