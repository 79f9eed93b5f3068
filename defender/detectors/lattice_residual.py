"""Are the considered pixels rougher than the others: a test of the attack's own geometry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from defender.detectors.scoring import ImageScore
from defender.scaling import Pipeline, Scaler
from defender.scaling.coefficients import Taps
from defender.scaling.considered import considered_mask
from defender.shifted_sums import correlate, gaussian_weights
from defender.types import Images, Knowledge, Scores, Seeds, parameter

_FLOOR = 1e-5
"""Added to mean residuals, so that those of flat images, rounding errors, are all alike."""

_SLACK = 0.01


@dataclass(frozen=True)
class LatticeResidual(ImageScore):
    """How much rougher an image is where the scaler looks than beside it, rows against columns.

    With the residual ``r = x - blur(x)`` and the coefficients of the scaler shifted by whole
    pixels to where it does not look, L down by a and R right by b,

        E(a, b) = mean over output pixels and channels of |L_a r R_b|,

    the score is the interaction of both axes,

        log E(0, 0) - mean_b log E(0, b) - mean_a log E(a, 0) + mean_ab log E(a, b),

    a and b running over the shifts with the least overlap with L and R. Texture, noise, blur and
    contrast raise or lower all E alike. What repeats with rows or columns, as the blocks of JPEG
    and the grid of an earlier resize do, is a factor of rows times a factor of columns, and
    cancels. A scaling attack changes pixels only where considered rows meet considered columns,
    which does not. Benign images score about 0 whatever the pipeline, and less if they were
    enlarged before.

    Output pixels at the border whose lattice would leave the image are left out. The score is 0 for
    flat images, where the image is larger than the target along neither axis, and for images
    no larger than the reach of the blur; where it is larger along one axis, it is
    ``log E(0) - mean_a log E(a)`` of that axis. A ratio below 2 leaves no shift that does not
    overlap, and antialiased and area scaling consider all pixels alike: there it says little.

    Args:
        pipeline: how the model's pipeline resizes.
        sigma: standard deviation of the Gaussian blur.
        sides: ``"above"``, or ``"both"``: the size of the interaction whatever its sign. An attack
            that changes the surroundings too, so as to pass a median filter, leaves the considered
            pixels smoother than theirs; so does enlarging a benign image by the pipeline's own
            ratio.

    Source: none, ours.
    Differs: none.
    """

    paper: ClassVar[str] = "none: image-defender's own"
    knowledge: ClassVar[Knowledge] = "pipeline"

    pipeline: Pipeline
    sigma: float = parameter(
        1.5, doc="standard deviation of the blur", low=0, open_low=True, unit="pixels"
    )
    sides: str = parameter(
        "above",
        doc="whether considered pixels are suspicious if rougher, or if smoother too",
        choices=("above", "both"),
    )

    def score(self, images: Images, seeds: Seeds) -> Scores:
        """Interaction (n,), natural logarithm of a ratio of ratios."""
        residual = self._residual(images)
        if residual is None:
            return images.new_zeros(len(images))
        down, across = _lattices(self.pipeline.of(images))
        # (n, c, shifts across, pixels across, shifts down, pixels down)
        gathered = down(across(residual).movedim(2, -1))
        levels = (gathered.abs().mean(dim=(1, 3, 5)) + _FLOOR).double().log()
        interaction = _interaction(levels)
        return interaction.abs() if self.sides == "both" else interaction

    def where(self, images: Images, seeds: Seeds) -> Tensor | None:
        """Considered values whose residual is larger than the others' is on average."""
        residual = self._residual(images)
        mask = considered_mask(self.pipeline.of(images), "weighted").to(images.device)
        if residual is None or mask.all():
            return torch.zeros_like(images, dtype=torch.bool)
        size = residual.abs()
        usual = size[:, :, ~mask].mean(dim=(1, 2)).view(-1, 1, 1, 1)
        return (size > usual) & mask

    def _residual(self, images: Images) -> Tensor | None:
        reach = max(1, math.ceil(3 * self.sigma))
        if min(images.shape[2:]) <= reach:
            return None
        padded = functional.pad(images, [reach] * 4, mode="reflect")
        return images - correlate(padded, gaussian_weights(self.sigma, reach))


@dataclass(frozen=True, eq=False)
class _Lattice:
    """A scaler's coefficients along one axis, and the same shifted by whole pixels.

    Args:
        index: int64 (shifts, output pixels, taps), the unshifted lattice first.
        weight: float32 (output pixels, taps).
    """

    index: Tensor
    weight: Tensor

    def __call__(self, values: Tensor) -> Tensor:
        """Gather along the last axis: (..., input pixels) to (..., shifts, output pixels)."""
        index = self.index.to(values.device)
        taken = values.index_select(-1, index.flatten())
        weighted: Tensor = taken.view(*values.shape[:-1], *index.shape) * self.weight.to(values)
        return weighted.sum(-1)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _lattices(scaler: Scaler) -> tuple[_Lattice, _Lattice]:
    vertical, horizontal = scaler.taps()
    return _lattice(vertical), _lattice(horizontal)


def _lattice(taps: Taps) -> _Lattice:
    shifts = [0, *_apart(taps)]
    reached = torch.where(taps.weight != 0, taps.index, 0).amax(1)
    inside = reached + shifts[-1] < taps.size
    if not inside.any():
        shifts, inside = [0], torch.ones_like(inside)
    index = taps.index[inside] + torch.tensor(shifts).view(-1, 1, 1)
    return _Lattice(index.clamp_max(taps.size - 1), taps.weight[inside].float())


def _apart(taps: Taps) -> list[int]:
    """Shifts, in pixels and below the ratio, at which the weights overlap least with themselves."""
    weights = torch.zeros(taps.size, dtype=torch.float64)
    weights.index_add_(0, taps.index.flatten(), taps.weight.abs().flatten())
    candidates = range(1, math.ceil(taps.size / len(taps.index)))
    overlaps = [float(weights[:-shift] @ weights[shift:]) for shift in candidates]
    enough = min(overlaps, default=0.0) + _SLACK * float(weights @ weights)
    return [s for s, overlap in zip(candidates, overlaps, strict=True) if overlap <= enough]


def _interaction(levels: Tensor) -> Scores:
    """Unshifted minus mean of the shifted along both axes of (n, across, down) that are shifted."""
    if levels.shape[1] == levels.shape[2] == 1:
        return torch.zeros_like(levels[:, 0, 0])
    for _ in range(2):
        shifted = levels[..., 1:].mean(-1) if levels.shape[-1] > 1 else 0.0
        levels = levels[..., 0] - shifted
    return levels
