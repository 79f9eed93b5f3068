"""Losses that networks of this package are trained with."""

from __future__ import annotations

import torch
from torch import Tensor


def _normalised(scores: Tensor, q: float, epsilon: float) -> Tensor:
    centred = scores - scores.mean()
    normalised: Tensor = centred / (torch.linalg.vector_norm(centred, q) + epsilon)
    return normalised


def norm_in_norm(
    predicted: Tensor, target: Tensor, p: float = 1.0, q: float = 2.0, epsilon: float = 1e-8
) -> Tensor:
    """Distance between predicted and true scores after each set is centred and normalised.

    With ``yhat = (y - mean(y)) / ||y - mean(y)||_q`` of either set the loss is
    ``(||yhat_predicted - yhat_target||_p / s)^p``, ``s = 2^max(1, 1/q) n^max(0, 1/p - 1/q)``, which
    is at most 1. It does not change when the predictions are shifted, or scaled by a positive
    number; with p = q = 2 it is half of 1 minus Pearson's correlation.

    Args:
        predicted: (n,), with gradients.
        target: (n,), the true scores of the same images.
        p: norm of the difference, >= 1 so that gradients stay bounded.
        q: norm that is divided out, >= 1.
        epsilon: added to the norms, so that equal scores have a finite gradient.

    Returns:
        A scalar in [0, 1]. It is 0, without a gradient, for a single image.

    Raises:
        ValueError: for a norm below 1 or shapes other than (n,) and (n,).

    Source: D. Li, T. Jiang, M. Jiang, "Norm-in-Norm Loss with Faster Convergence and Better
    Performance for Image Quality Assessment", ACM MM 2020, arXiv 2008.03889.
    Differs: p and q below 1 are refused.
    """
    for name, norm in (("p", p), ("q", q)):
        if not norm >= 1:
            raise ValueError(f"{name}: expected a norm >= 1, got {norm}")
    if predicted.ndim != 1 or predicted.shape != target.shape or not len(predicted):
        raise ValueError(
            "expected predicted and target scores (n,), "
            f"got {tuple(predicted.shape)} and {tuple(target.shape)}"
        )
    difference = _normalised(predicted, q, epsilon) - _normalised(target, q, epsilon)
    scale = 2.0 ** max(1.0, 1 / q) * len(predicted) ** max(0.0, 1 / p - 1 / q)
    loss: Tensor = (difference.abs() / scale).pow(p).sum()
    return loss
