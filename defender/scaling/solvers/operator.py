"""The resize ``K(X) = L X R`` with what solvers need to know of it besides its products."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from defender.scaling.bands import Bands, Separable
from defender.scaling.coefficients import Taps
from defender.scaling.scaler import Scaler


@dataclass(frozen=True, eq=False)
class Operator:
    """A linear resize between planes.

    Small planes are held transposed, (b, width, height), which saves every product a transposition.

    Args:
        resize: coefficients along both axes.
        curvature: (width, height), numbers D with ``diag(D) >= K K^T``: steps of ``1 / D`` ascend.
        disjoint: no input pixel has a part in two output pixels.
    """

    resize: Separable
    curvature: Tensor
    disjoint: bool

    @classmethod
    def of(cls, vertical: Taps, horizontal: Taps) -> Operator:
        """The operator of the coefficients along both axes."""
        resize = Separable.of(vertical, horizontal)
        curvature = torch.outer(_curvature(horizontal.matrix()), _curvature(vertical.matrix()))
        back = (resize.left_adjoint, resize.right_adjoint)
        return cls(resize, curvature, all(bands.index.shape[1] == 1 for bands in back))

    def to(self, device: torch.device, dtype: torch.dtype) -> Operator:
        """The same on a device, in a floating type."""
        return Operator(
            self.resize.to(device, dtype), self.curvature.to(device, dtype), self.disjoint
        )

    @property
    def taps(self) -> tuple[Bands, Bands]:
        """Input rows of each output row, and input columns of each output column."""
        return self.resize.left, self.resize.right

    def forward(self, planes: Tensor) -> Tensor:
        """``(L X R)^T`` of planes (b, N, M): (b, m, n)."""
        return self.resize.right(self.resize.left(planes).mT)

    def adjoint(self, small: Tensor) -> Tensor:
        """``L^T Y R^T`` of transposed planes Y^T (b, m, n): (b, N, M)."""
        return self.resize.left_adjoint(self.resize.right_adjoint(small).mT)


def _curvature(matrix: Tensor) -> Tensor:
    """Numbers d with ``diag(d) >= A A^T``, as small as their proportions allow.

    Row sums of ``|A A^T|`` are such numbers, because ``diag(d) - A A^T`` is then diagonally
    dominant; the largest eigenvalue says by how much all of them can be lowered.
    """
    gram = matrix @ matrix.T
    sums: Tensor = gram.abs().sum(1)
    scaled = gram / (sums.sqrt().unsqueeze(1) * sums.sqrt())
    largest: Tensor = torch.linalg.eigvalsh(scaled)[-1]
    return sums * largest.clamp(max=1)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _known(scaler: Scaler, device: torch.device, dtype: torch.dtype) -> Operator:
    return Operator.of(*scaler.taps()).to(device, dtype)


def operator(scaler: Scaler, like: Tensor) -> Operator:
    """The operator of a scaler, on the device and in the type of a tensor."""
    return _known(scaler, like.device, like.dtype)


def identity(size: int) -> Taps:
    """Coefficients of an axis that stays as it is."""
    return Taps(torch.arange(size).unsqueeze(1), torch.ones(size, 1, dtype=torch.float64), size)


def with_identity(taps: Taps) -> Taps:
    """Coefficients of an axis that is resized and, after that, also kept as it is."""
    kept = identity(taps.size)
    fill = (0, taps.index.shape[1] - 1)
    return Taps(
        torch.cat([taps.index, pad(kept.index, fill)]),
        torch.cat([taps.weight, pad(kept.weight, fill)]),
        taps.size,
    )
