"""Selective filters: replace the pixels that a scaler looks at by what it does not look at.

A scaling attack hides its picture in the pixels that enter the small image. The others still show
the source, and the filters rebuild the former from the latter.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from defender.noise import derive_seeds, uniform
from defender.purifiers.windows import padded, plan, put, windows
from defender.scaling import Pipeline, Scaler
from defender.types import Images, Knowledge, Seeds, check_parameters, parameter

_PAPER = (
    "E. Quiring, D. Klein, D. Arp, M. Johns, K. Rieck, Adversarial Preprocessing: Understanding "
    "and Preventing Image-Scaling Attacks in Machine Learning, 2020, USENIX Security"
)


def selective_median(images: Images, scaler: Scaler, bandwidth: int = 1) -> Images:
    """Replace each considered pixel by the median of the others in its window.

    The window is ``[-b_v, b_v] x [-b_h, b_h]`` with ``b = floor(ratio / bandwidth)`` on each axis,
    cropped at the border; of an even number of values the lower median is taken; channel by
    channel. Where a window holds considered pixels only, :class:`Plan` says what happens. Images
    that are larger than the target on neither axis stay as they are.

    Args:
        images: (n, c, h, w) of the scaler's source size; left unchanged.
        scaler: the pipeline's resize.
        bandwidth: divisor of the window, >= 1.

    Returns:
        (n, c, h, w); gradients pass to the pixel that is the median.

    Raises:
        ValueError: images of another size than the scaler's source, or a bandwidth below 1.

    Source: E. Quiring, D. Klein, D. Arp, M. Johns, K. Rieck, "Adversarial Preprocessing:
    Understanding and Preventing Image-Scaling Attacks in Machine Learning", 2020, USENIX Security.
    Differs: where the exact mask leaves nothing in a window, the weight-aware mask is used.
    """
    _check(images, scaler)
    made = images.clone()
    todo = plan(scaler, bandwidth)
    for step in todo.passes:
        known = images.masked_fill(step.mask.to(images.device), torch.nan)
        planes = padded(known, todo.reach, torch.nan)
        values = [
            _lower_median(planes.index_select(1, index.flatten()).view(-1, *index.shape))
            for index in windows(step, todo.reach, len(planes), images.device)
        ]
        made = put(made, values, step)
    return made


def selective_random(images: Images, scaler: Scaler, seeds: Seeds, bandwidth: int = 1) -> Images:
    """Replace each considered pixel by one of the others in its window, drawn uniformly.

    Windows, border and errors as for :func:`selective_median`; every channel draws for itself.

    Args:
        images: (n, c, h, w) of the scaler's source size; left unchanged.
        scaler: the pipeline's resize.
        seeds: int64 (n,), one an image.
        bandwidth: divisor of the window, >= 1.

    Returns:
        (n, c, h, w); gradients pass to the pixels that were drawn.

    Source: as for :func:`selective_median`.
    Differs: as there; the draws come from a key an image, where the authors' code seeds by the
    size of the image.
    """
    _check(images, scaler)
    made = images.clone()
    todo = plan(scaler, bandwidth)
    for number, step in enumerate(todo.passes):
        stream = derive_seeds(seeds, f"selective random {number}")
        draws = uniform(stream, (images.shape[1], int(step.replaced.sum())))
        draws = draws.to(images.device).flatten(0, 1)
        free = padded((~step.mask).view(1, 1, *step.mask.shape), todo.reach, False)[0]
        free = free.to(images.device)
        planes = padded(images, todo.reach, 0.0)
        values, start = [], 0
        for index in windows(step, todo.reach, len(planes), images.device):
            passed = free[index].cumsum(1)
            share = draws[:, start : start + len(index)].T.double()
            start += len(index)
            rank = (share * passed[:, -1:]).long() + 1
            place = torch.searchsorted(passed, rank.contiguous())
            values.append(planes.gather(1, index.gather(1, place).T))
        made = put(made, values, step)
    return made


def _check(images: Images, scaler: Scaler) -> None:
    if images.ndim != 4 or tuple(images.shape[2:]) != scaler.source:
        height, width = scaler.source
        raise ValueError(f"expected images (n, c, {height}, {width}), got {tuple(images.shape)}")


def _lower_median(values: Tensor) -> Tensor:
    """Lower median of the numbers along the last axis of (planes, windows, values).

    NaN does not count, and which values are NaN is the same in all planes.
    """
    if values.requires_grad or values.device.type != "cpu":
        return values.nanmedian(dim=-1).values
    # numpy sorts short rows ten times as fast as torch selects from them; NaN comes last
    ranked = torch.from_numpy(np.sort(values.numpy(), axis=-1))
    middle = ((~values[:1].isnan()).sum(-1, keepdim=True) - 1) // 2
    return ranked.gather(-1, middle.expand(len(ranked), -1, -1)).squeeze(-1)


class Selective:
    """What the selective purifiers share: they know the pipeline, and show what they replaced."""

    version: ClassVar[int] = 1
    keeps_size: ClassVar[bool] = True
    limit: ClassVar[int | None] = None
    """Largest reach of a window, or None."""

    pipeline: Pipeline
    bandwidth: int

    def __post_init__(self) -> None:
        check_parameters(self)

    @property
    def knowledge(self) -> Knowledge:
        """``"pipeline"``: the image and how the model's pipeline resizes it."""
        return "pipeline"

    def __call__(self, images: Images, *, seeds: Seeds, reference: Images | None = None) -> Images:
        """Replace what the pipeline considers.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged. Those that are larger than the
                pipeline's target on neither axis are returned as they are.
            seeds: int64 (n,), for filters that draw.
            reference: unused.

        Returns:
            (n, c, h, w) in [0, 1].
        """
        return self.replaced(images, self.pipeline.of(images), seeds)

    def parts(
        self, images: Images, *, seeds: Seeds, reference: Images | None = None
    ) -> dict[str, Tensor]:
        """The considered pixels, what is trusted, what was put in, and the purified images.

        Arguments as for the call.

        Returns:
            ``considered`` bool, the exact mask; ``trusted``, the images without the pixels that
            were replaced; ``replacement``, what took their place, black elsewhere; ``purified``;
            floats in [0, 1], all (n, c, h, w).
        """
        scaler = self.pipeline.of(images)
        purified = self.replaced(images, scaler, seeds)
        taken_out = plan(scaler, self.bandwidth, self.limit).replaced().to(images.device)
        return {
            "considered": scaler.considered().to(images.device).expand(images.shape),
            "trusted": images.masked_fill(taken_out, 0.0),
            "replacement": purified.masked_fill(~taken_out, 0.0),
            "purified": purified,
        }

    @abstractmethod
    def replaced(self, images: Images, scaler: Scaler, seeds: Seeds) -> Images:
        """The filter itself: images (n, c, h, w) of the scaler's source size to such images."""


@dataclass(frozen=True)
class SelectiveMedian(Selective):
    """Median of the unconsidered pixels around each considered one: :func:`selective_median`.

    Args:
        pipeline: how the model's pipeline resizes.
        bandwidth: divisor of the window, whose reach is ``floor(ratio / bandwidth)`` pixels.

    Raises:
        ValueError: a bandwidth below 1.

    Source: E. Quiring, D. Klein, D. Arp, M. Johns, K. Rieck, "Adversarial Preprocessing:
    Understanding and Preventing Image-Scaling Attacks in Machine Learning", 2020, USENIX Security.
    Differs: see :func:`selective_median`.
    """

    paper: ClassVar[str] = _PAPER

    pipeline: Pipeline
    bandwidth: int = parameter(1, doc="divisor of the window: reach floor(ratio / it)", low=1)

    def replaced(self, images: Images, scaler: Scaler, seeds: Seeds) -> Images:
        """Selective median; without draws."""
        return selective_median(images, scaler, self.bandwidth)


@dataclass(frozen=True)
class SelectiveRandom(Selective):
    """An unconsidered pixel around each considered one, drawn: :func:`selective_random`.

    Args:
        pipeline: how the model's pipeline resizes.
        bandwidth: divisor of the window, whose reach is ``floor(ratio / bandwidth)`` pixels.

    Raises:
        ValueError: a bandwidth below 1.

    Source: E. Quiring, D. Klein, D. Arp, M. Johns, K. Rieck, "Adversarial Preprocessing:
    Understanding and Preventing Image-Scaling Attacks in Machine Learning", 2020, USENIX Security.
    Differs: see :func:`selective_random`.
    """

    paper: ClassVar[str] = _PAPER

    pipeline: Pipeline
    bandwidth: int = parameter(1, doc="divisor of the window: reach floor(ratio / it)", low=1)

    def replaced(self, images: Images, scaler: Scaler, seeds: Seeds) -> Images:
        """Selective random filter; draws from the seeds."""
        return selective_random(images, scaler, seeds, self.bandwidth)
