"""The smallest change that brings an image onto a hyperplane without leaving [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

from defender.norms import NORMS
from defender.types import Images, Scores


@torch.no_grad()
def step_to_plane(images: Images, slopes: Tensor, values: Scores, norm: str) -> Tensor:
    """The change d of least norm with ``values + <slopes, d> = 0`` and ``images + d`` in [0, 1].

    Every value of an image moves against its slope, by the same length (linf) or in proportion to
    its slope (l2), until it meets 0 or 1; how far is found exactly, from the sorted lengths at
    which the values meet their bounds.

    Args:
        images: (n, c, h, w) in [0, 1].
        slopes: (n, c, h, w), the normals of the hyperplanes.
        values: (n,), what a linear function with these slopes has at the images.
        norm: ``"linf"`` or ``"l2"``.

    Returns:
        (n, c, h, w); where no image in [0, 1] lies on the hyperplane, the change to the one
        nearest to it. A slope of 0 has a change of 0.

    Raises:
        ValueError: for an unknown norm.

    Source: F. Croce, M. Hein, "Minimally distorted Adversarial Examples with a Fast Adaptive
    Boundary Attack", 2020, arXiv 1907.02044, section 2.2.
    Differs: one routine for both norms; the kink is counted off in the place of a bisection.
    """
    if norm not in NORMS:
        raise ValueError(f"norm: expected {' | '.join(NORMS)}, got {norm!r}")
    if images[:1].numel() == 0:
        return torch.zeros_like(images)
    points, normals = images.flatten(1).double(), slopes.flatten(1).double()
    signs = torch.where(values < 0, -1.0, 1.0).double().unsqueeze(1)
    heading = -signs * normals.sign()
    room = torch.where(heading > 0, 1 - points, points) * heading.abs()
    size = normals.abs()
    rates = heading.abs() if norm == "linf" else size
    # at a length t the function has changed by sum weights * min(t, ends)
    weights = size * rates
    ends = torch.where(rates > 0, room / rates.clamp_min(torch.finfo(rates.dtype).tiny), 0.0)
    wanted = values.double().abs()
    sorted_ends, order = ends.sort(dim=1, stable=True)
    sorted_weights = weights.gather(1, order)
    full = (sorted_weights * sorted_ends).cumsum(1)
    moving = sorted_weights.flip(1).cumsum(1).flip(1)  # the weights that no bound stops yet
    reached = full + sorted_ends * (moving - sorted_weights)
    kink = (reached < wanted.unsqueeze(1)).sum(dim=1, keepdim=True)
    beyond = kink.squeeze(1) == ends.shape[1]
    kink = kink.clamp_max(ends.shape[1] - 1)
    before = (full - sorted_weights * sorted_ends).gather(1, kink).squeeze(1)
    rest = moving.gather(1, kink).squeeze(1).clamp_min(torch.finfo(moving.dtype).tiny)
    length = torch.where(beyond, sorted_ends[:, -1], (wanted - before) / rest)
    change = heading * torch.minimum(length.unsqueeze(1) * rates, room)
    return torch.empty_like(images).copy_(change.view(images.shape))
