"""Products with the banded matrices of a resize, several times faster than dense ones.

A row of L holds a few coefficients only. The products gather and sum just those, in an order that
depends on nothing but the row, so that an image's result does not depend on its batch mates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from defender.scaling.coefficients import Taps


@dataclass(frozen=True, eq=False)
class Bands:
    """The coefficients of a matrix, row by row.

    Args:
        index: int64 (rows, k), columns; entries that only fill a row have weight 0.
        weight: float (rows, k).
    """

    index: Tensor
    weight: Tensor

    @classmethod
    def of(cls, taps: Taps, *, transposed: bool = False) -> Bands:
        """The coefficients of an axis, without duplicates and zeros, or those of its adjoint."""
        matrix = taps.sparse()
        if transposed:
            matrix = matrix.T.tocsr()
        count = torch.from_numpy(matrix.indptr).long().diff()
        place = torch.arange(max(1, int(count.max())))
        used = place < count.unsqueeze(1)
        index = torch.zeros(used.shape, dtype=torch.int64)
        weight = torch.zeros(used.shape, dtype=torch.float64)
        index[used] = torch.from_numpy(matrix.indices).long()
        weight[used] = torch.from_numpy(matrix.data)
        return cls(index, weight)

    def to(self, device: torch.device, dtype: torch.dtype) -> Bands:
        """The same on a device, in a floating type."""
        return Bands(self.index.to(device), self.weight.to(device, dtype))

    def __call__(self, planes: Tensor) -> Tensor:
        """The matrix times each plane: (b, columns, w) to (b, rows, w)."""
        count, columns, width = planes.shape
        rows, taps = self.index.shape
        if not count:
            return planes.new_zeros(0, rows, width)
        offset = torch.arange(count, device=planes.device).view(-1, 1, 1) * columns
        summed = functional.embedding_bag(
            (self.index + offset).view(-1, taps),
            planes.reshape(count * columns, width),
            mode="sum",
            per_sample_weights=self.weight.expand(count, -1, -1).reshape(-1, taps),
        )
        return summed.view(count, rows, width)


@dataclass(frozen=True, eq=False)
class Separable:
    """A linear map ``L X R`` of images and its adjoint, differentiable any number of times.

    Args:
        left: coefficients of L.
        right: coefficients of R transposed.
        left_adjoint: coefficients of L transposed.
        right_adjoint: coefficients of R.
    """

    left: Bands
    right: Bands
    left_adjoint: Bands
    right_adjoint: Bands

    @classmethod
    def of(cls, vertical: Taps, horizontal: Taps) -> Separable:
        """The map of the coefficients along both axes."""
        axes = (vertical, horizontal)
        across = [Bands.of(taps, transposed=True) for taps in axes]
        return cls(*(Bands.of(taps) for taps in axes), *across)

    def to(self, device: torch.device, dtype: torch.dtype) -> Separable:
        """The same on a device, in a floating type."""
        bands = (self.left, self.right, self.left_adjoint, self.right_adjoint)
        return Separable(*(one.to(device, dtype) for one in bands))

    @property
    def adjoint(self) -> Separable:
        """The transposed map."""
        return Separable(self.left_adjoint, self.right_adjoint, self.left, self.right)

    def __call__(self, images: Tensor) -> Tensor:
        """``L X R`` of images (n, c, h, w)."""
        made: Tensor = _Product.apply(images, self)
        return made

    def product(self, images: Tensor) -> Tensor:
        """The same, without a gradient."""
        planes = images.flatten(0, 1)
        if len(self.left.index) <= images.shape[2]:
            # what shrinks comes first, what enlarges last
            planes = self.right(self.left(planes).mT).mT.contiguous()
        else:
            planes = self.left(self.right(planes.mT).mT)
        return planes.view(*images.shape[:2], *planes.shape[1:])


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def separable(
    vertical: Taps, horizontal: Taps, device: torch.device, dtype: torch.dtype
) -> Separable:
    """The map of the coefficients along both axes, on a device; made once for the same taps."""
    return Separable.of(vertical, horizontal).to(device, dtype)


class _Product(torch.autograd.Function):
    """Forward: the map. Backward: its adjoint, itself a map."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, resize: Separable) -> Tensor:
        ctx.resize = resize
        return resize.product(images)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.resize.adjoint(gradients[0]), None
