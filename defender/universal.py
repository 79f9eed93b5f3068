"""One perturbation for all images: what it is, and how it is fitted to an objective."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from defender.adam import Adam
from defender.gradients import value_and_gradient
from defender.tiling import tiled
from defender.types import Images, Objective, check_parameters, parameter

Batches = Callable[[int], Iterable[tuple[Images, Tensor]]]
"""Asked with an epoch: its batches of clean images (n, c, h, w), and their places int64 (n,)."""

Goals = Callable[[Images, Tensor], Objective]
"""Asked with a batch and the places of its images: what an attack on them should raise."""


class Perturbation:
    """A fitted perturbation, known by what it holds.

    Args:
        values: (c, height, width), the change of each value in [0, 1] units; copied.

    Raises:
        ValueError: another shape, or values that are not finite.
    """

    def __init__(self, values: Tensor) -> None:
        if values.ndim != 3 or not values.numel():
            raise ValueError(f"values: expected (c, height, width), got {tuple(values.shape)}")
        self.values = values.detach().to("cpu", torch.float32, copy=True).contiguous()
        if not self.values.isfinite().all():
            raise ValueError("values: expected finite numbers, got others among them")
        header = f"{tuple(self.values.shape)} ".encode()
        self.digest = hashlib.sha256(header + self.values.numpy().tobytes()).hexdigest()

    def over(self, images: Images) -> Tensor:
        """The perturbation (1, c, h, w) of images (n, c, h, w); see :func:`covering`."""
        return covering(self.values.to(images), images)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Perturbation) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"uap@{self.digest[:12]}"


def covering(values: Tensor, images: Images) -> Tensor:
    """A perturbation repeated over images, with their number of channels.

    Args:
        values: (c, height, width).
        images: (n, c', h, w) of any size. Grey images take the mean over channels; a grey
            perturbation is the same in all channels of colour images.

    Returns:
        (1, c', h, w), the perturbation repeated from the upper left corner and cut; gradients
        pass to ``values``.

    Raises:
        ValueError: numbers of channels that differ and are both above 1.
    """
    channels = images.shape[1]
    if values.shape[0] != channels:
        if channels == 1:
            values = values.mean(dim=0, keepdim=True)
        elif values.shape[0] == 1:
            values = values.expand(channels, -1, -1)
        else:
            raise ValueError(f"images: expected 1 or {values.shape[0]} channels, got {channels}")
    return tiled(values.unsqueeze(0), (images.shape[2], images.shape[3]))


@dataclass
class UniversalState:
    """Everything that continues a fitting exactly: plain numbers and tensors only.

    ``first``, ``second`` and ``steps`` are Adam's. ``history`` holds one record an epoch: the mean
    objective of the images with the perturbation of the moment, before the step.
    """

    epoch: int = 0
    values: Tensor = field(default_factory=lambda: torch.zeros(0))
    first: Tensor = field(default_factory=lambda: torch.zeros(0))
    second: Tensor = field(default_factory=lambda: torch.zeros(0))
    steps: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain containers, fit for ``torch.save`` and a weights-only load."""
        return dict(vars(self))

    @property
    def result(self) -> dict[str, Tensor]:
        """What the fitting is for."""
        return {"values": self.values}


@dataclass(frozen=True)
class UniversalTraining:
    """Adam on one perturbation that is added to every image of a data set.

    For each batch, ``v <- clip(v - Adam(gradient), -limit, limit)`` with the gradient of the mean
    over the batch of ``-objective(clip(x + v)) / span``, v being repeated over the image and the
    gradient passing through the clipping to [0, 1] unchanged.

    Args:
        epochs: passes over the images.
        step_size: of Adam, in [0, 1] units.
        limit: largest change of a value, in [0, 1] units.
        side: height and width of the perturbation in pixels.
        channels: channels of the perturbation.
        start: largest value at the start, drawn uniformly of either sign.

    Source: S.-M. Moosavi-Dezfooli, A. Fawzi, O. Fawzi, P. Frossard, "Universal Adversarial
    Perturbations", 2017, arXiv 1610.08401; fitted by gradients to a quality metric as in
    E. Shumitskaya, A. Antsiferova, D. Vatolin, "Universal Perturbation Attack on Differentiable
    No-Reference Image- and Video-Quality Metrics", 2022, arXiv 2211.00366, with the defaults of
    A. Gushchin et al., "Guardians of Image Quality", 2025.
    Differs: it is fitted as it is used, repeated over images of their own size, where the
    benchmark cuts or resizes them to 256 x 256; every image is seen once an epoch; the start is
    drawn, not one number.
    """

    version: ClassVar[int] = 1

    epochs: int = parameter(5, doc="passes over the images", low=1)
    step_size: float = parameter(0.001, doc="Adam's step", low=0, unit="[0, 1] intensity")
    limit: float = parameter(
        0.1, doc="largest change of a value", low=0, high=1, unit="[0, 1] intensity"
    )
    side: int = parameter(256, doc="height and width", low=1, unit="pixels")
    channels: int = parameter(3, doc="channels of the perturbation", low=1)
    start: float = parameter(
        1e-4, doc="largest value at the start", low=0, high=1, unit="[0, 1] intensity"
    )

    def __post_init__(self) -> None:
        check_parameters(self)

    def fit(
        self, batches: Batches, goals: Goals, *, seed: int, state: UniversalState | None = None
    ) -> Iterator[UniversalState]:
        """Fit a perturbation and yield a state after each epoch.

        Args:
            batches: the images of an epoch in [0, 1]; the same every time it is asked.
            goals: makes the objective of a batch.
            seed: seed of the start.
            state: a state yielded before; the fitting goes on after it, to the same bits.

        Raises:
            TypeError: an objective without a gradient.
            ValueError: an epoch without images.
        """
        state = state or self._beginning(seed)
        while state.epoch < self.epochs:
            values, adam = state.values.clone(), Adam(state.values, self.step_size)
            adam.first, adam.second = state.first.clone(), state.second.clone()
            adam.steps = state.steps
            scores: list[float] = []
            for images, places in batches(state.epoch):
                objective = goals(images, places)
                scores += self._step(values, adam, images, objective)
            if not scores:
                raise ValueError(f"batches: expected images in epoch {state.epoch}, got none")
            record = {"score": math.fsum(scores) / len(scores)}
            state = UniversalState(
                state.epoch + 1,
                values,
                adam.first,
                adam.second,
                adam.steps,
                [*state.history, record],
            )
            yield state

    def _beginning(self, seed: int) -> UniversalState:
        generator = torch.Generator().manual_seed(seed)
        values = torch.rand(self.channels, self.side, self.side, generator=generator)
        values = values.mul_(2).sub_(1).mul_(min(self.start, self.limit))
        return UniversalState(0, values, torch.zeros_like(values), torch.zeros_like(values))

    def _step(
        self, values: Tensor, adam: Adam, images: Images, objective: Objective
    ) -> list[float]:
        """Change the values in place for a batch; returns the scores that they had on it."""
        span = float(getattr(objective, "span", 1.0))
        with torch.inference_mode(False), torch.enable_grad():
            leaf = values.detach().requires_grad_(True)
            cover = covering(leaf.to(images), images)
            attacked = (images + cover.detach()).clamp_(0.0, 1.0)
            scores, gradient = value_and_gradient(objective, attacked, check=False)
            upward = gradient.nan_to_num(0.0, 0.0, 0.0).mean(dim=0, keepdim=True) / span
            (slope,) = torch.autograd.grad(cover, leaf, upward)
        with torch.no_grad():
            values.sub_(adam.step(-slope)).clamp_(-self.limit, self.limit)
        return [float(score) for score in scores.tolist()]
