"""How well a mask of suspected values finds the values that were changed."""

from __future__ import annotations

import torch
from torch import Tensor

from defender.types import Scores


def _check(mask: Tensor, truth: Tensor) -> None:
    if mask.dtype != torch.bool or truth.dtype != torch.bool or mask.shape != truth.shape:
        raise ValueError(
            f"expected two bool masks of one shape, got {mask.dtype} {tuple(mask.shape)} "
            f"and {truth.dtype} {tuple(truth.shape)}"
        )


def mask_precision(mask: Tensor, truth: Tensor) -> Scores:
    """Share of the mask that is true: ``|M and T| / |M|``.

    Args:
        mask: bool (n, ...), the suspected values.
        truth: bool (n, ...), the changed values.

    Returns:
        float64 (n,) in [0, 1]; NaN where the mask is empty.

    Raises:
        ValueError: masks that are not bool or differ in shape.
    """
    _check(mask, truth)
    return _count(mask & truth).double() / _count(mask)


def mask_recall(mask: Tensor, truth: Tensor) -> Scores:
    """Share of the truth that the mask covers: ``|M and T| / |T|``.

    Args:
        mask: bool (n, ...), the suspected values.
        truth: bool (n, ...), the changed values.

    Returns:
        float64 (n,) in [0, 1]; NaN where nothing is true.

    Raises:
        ValueError: masks that are not bool or differ in shape.
    """
    _check(mask, truth)
    return _count(mask & truth).double() / _count(truth)


def top_mask(difference: Tensor, count: Tensor | int) -> Tensor:
    """The values of each image that changed most, exactly as many as asked.

    Args:
        difference: (n, ...), the change of each value; its magnitude counts. Of equal magnitudes
            the first in memory order comes first.
        count: values an image: one number for all, or int64 (n,), such as the size of each mask.

    Returns:
        bool (n, ...).

    Raises:
        ValueError: a count that is neither one number nor one an image.
    """
    magnitude = difference.abs().flatten(1)
    wanted = torch.as_tensor(count, device=difference.device).expand(-1 if _is_list(count) else 1)
    if len(wanted) not in (1, len(difference)):
        raise ValueError(f"count: expected 1 or {len(difference)} numbers, got {len(wanted)}")
    order = magnitude.argsort(dim=1, descending=True, stable=True)
    rank = torch.arange(magnitude.shape[1], device=difference.device).expand_as(order)
    chosen = rank < wanted.view(-1, 1)
    return torch.zeros_like(chosen).scatter_(1, order, chosen).view_as(difference)


def _is_list(count: Tensor | int) -> bool:
    return isinstance(count, Tensor) and count.ndim == 1


def _count(mask: Tensor) -> Tensor:
    return mask.flatten(1).sum(1)
