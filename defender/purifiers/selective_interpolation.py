"""Restoration by the best linear guess from what a scaler does not look at."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from torch import Tensor

from defender.purifiers.selective import Selective
from defender.purifiers.windows import Pass, padded, plan, put, windows
from defender.scaling import Pipeline, Scaler
from defender.scaling.scaler import Size
from defender.types import Images, Seeds, parameter

_SYSTEMS = 256
"""Systems of equations solved at a time: 30 MB for windows of 11 x 11."""

_SHARE = 16
"""Blocks are larger by this than where whole windows are held: one value of each is."""


@dataclass(frozen=True)
class SelectiveInterpolation(Selective):
    """Estimates each considered pixel linearly from the unconsidered ones of its window.

    Images are taken for a random field whose expected squared difference grows with distance,
    ``E (z(p) - z(q))^2 / 2 = |p - q|``, seen with white noise of variance ``noise``. The weights
    are those of the unbiased linear estimate with the least expected squared error: with
    distances D between the unconsidered pixels of the window and d from them to its centre,

        (noise I - D) w + l 1 = -d,    sum(w) = 1.

    Without noise the estimate follows the nearest pixels; with much it is their plain mean. The
    window is that of the selective median, up to 11 x 11.

    Being linear, the estimate makes restoration and resize one linear map, whose
    :meth:`hiding_gain` bounds what an attacker can hide who knows of both; noise lowers it, at
    the cost of detail in clean images.

    Args:
        pipeline: how the model's pipeline resizes.
        bandwidth: divisor of the window, whose reach is ``floor(ratio / bandwidth)`` pixels,
            at most 5.
        noise: variance of the noise, in units of half the expected squared difference of
            neighbouring pixels.

    Raises:
        ValueError: a bandwidth below 1, or noise below 0.

    Source: ours, after ordinary kriging: G. Matheron, "Principles of Geostatistics", 1963, Economic
    Geology 58(8), DOI 10.2113/gsecongeo.58.8.1246.
    Differs: from kriging in nothing but the use; the variogram is fixed, not fitted.
    """

    paper: ClassVar[str] = (
        "ours, after G. Matheron, Principles of Geostatistics, 1963, Economic Geology 58(8)"
    )

    # the widest support, of 8 pixels, has others within 5; farther ones add little
    limit: ClassVar[int | None] = 5

    pipeline: Pipeline
    bandwidth: int = parameter(1, doc="divisor of the window: reach floor(ratio / it)", low=1)
    noise: float = parameter(
        3.0, doc="variance of the noise in the unconsidered pixels", low=0, unit="of a neighbour"
    )

    def replaced(self, images: Images, scaler: Scaler, seeds: Seeds) -> Images:
        """Estimated images, clamped to [0, 1]; without draws, differentiable."""
        return self.estimated(images, scaler).clamp(0.0, 1.0)

    def estimated(self, images: Images, scaler: Scaler) -> Images:
        """The linear map itself: images (n, c, h, w) to such images, not clamped."""
        made = images.clone()
        todo = plan(scaler, self.bandwidth, self.limit)
        tables = _weights(scaler, self.bandwidth, self.limit, float(self.noise))
        for step, (patterns, which) in zip(todo.passes, tables, strict=True):
            planes = padded(images, todo.reach, 0.0)
            values, start = [], 0
            for index in windows(step, todo.reach, -(-len(planes) // _SHARE), images.device):
                weights = patterns[which[start : start + len(index)]].T.to(images)
                start += len(index)
                total = planes.new_zeros(len(planes), len(index))
                # one value of the windows at a time: sums in one order, whatever the batch
                for places, weight in zip(index.T.contiguous(), weights, strict=True):
                    total.add_(planes.index_select(1, places).mul_(weight))
                values.append(total)
            made = put(made, values, step)
        return made

    def hiding_gain(self, source: Size) -> float:
        """``G = 10 log10((N M / n m) ||scale o D||^2)`` of the defended pipeline, in dB.

        Every image A that the defended pipeline takes to exactly T, without an estimate leaving
        [0, 1], has ``PSNR(A, S) <= PSNR(scale(D(S)), T) + G``, also if the attack is made against
        restoration and resize together. The counterpart without D is ``Scaler.hiding_gain``.

        Args:
            source: height and width of the images, pixels.

        Returns:
            Decibels, to 0.01. Takes seconds at 224 x 224.
        """
        scaler = self.pipeline.scaler(source)
        size = math.prod(scaler.source)

        def gram(vector: NDArray[np.float64]) -> NDArray[np.float64]:
            with torch.inference_mode(False), torch.enable_grad():
                image = torch.from_numpy(vector.reshape(1, 1, *scaler.source)).requires_grad_()
                small = scaler.linear(self.estimated(image, scaler))
                (back,) = torch.autograd.grad(small, image, small.detach())
            return back.numpy().reshape(-1)

        operator = scipy.sparse.linalg.LinearOperator((size, size), matvec=gram, dtype=np.float64)
        start = np.random.default_rng(0).random(size)
        (square,) = scipy.sparse.linalg.eigsh(
            operator, k=1, v0=start, tol=1e-3, return_eigenvectors=False
        )
        return 10 * math.log10(size / math.prod(scaler.target) * square)


@lru_cache(maxsize=32)
def _weights(
    scaler: Scaler, bandwidth: int, limit: int | None, noise: float
) -> tuple[tuple[Tensor, Tensor], ...]:
    """For each pass of the plan, weights by pattern of a window, and the pattern of each window.

    Returns:
        Pairs of float64 (patterns, values) and int64 (windows,).
    """
    todo = plan(scaler, bandwidth, limit)
    with torch.inference_mode(False), torch.no_grad():
        return tuple(_weights_of(step, todo.reach, noise) for step in todo.passes)


def _weights_of(step: Pass, reach: Size, noise: float) -> tuple[Tensor, Tensor]:
    free = padded((~step.mask).view(1, 1, *step.mask.shape), reach, False)[0]
    found = [free[index] for index in windows(step, reach, 1, free.device)]
    values = (2 * reach[0] + 1) * (2 * reach[1] + 1)
    seen = torch.cat(found) if found else free.new_zeros(0, values)
    packed, which = np.unique(np.packbits(seen.numpy(), axis=1), axis=0, return_inverse=True)
    patterns = torch.from_numpy(np.unpackbits(packed, axis=1, count=values).astype(bool))
    solved = [_solve(part, reach, noise) for part in torch.split(patterns, _SYSTEMS)]
    return torch.cat(solved), torch.from_numpy(which.reshape(-1))


def _solve(patterns: Tensor, reach: Size, noise: float) -> Tensor:
    """Weights (patterns, values) of windows of which only some pixels, bool of that shape, count.

    What does not count gets an equation of its own that makes its weight zero.
    """
    down, across = (torch.arange(-side, side + 1, dtype=torch.float64) for side in reach)
    places = torch.cartesian_prod(down, across)
    size = len(places)
    system = torch.zeros(len(patterns), size + 1, size + 1, dtype=torch.float64)
    system[:, :size, :size] = noise * torch.eye(size) - torch.cdist(places, places)
    system[:, size, :size] = system[:, :size, size] = 1
    known = torch.cat([patterns, torch.ones(len(patterns), 1, dtype=torch.bool)], 1)
    both = known.unsqueeze(1) & known.unsqueeze(2)
    system = torch.where(both, system, torch.eye(size + 1, dtype=torch.float64))
    right = torch.cat([-places.norm(dim=1), torch.ones(1, dtype=torch.float64)])
    solution: Tensor = torch.linalg.solve(system, torch.where(known, right, 0.0))
    return solution[:, :size] * patterns
