"""Patches that nobody fitted, at the places of one that was: what covering alone does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from defender.noise import derive_seeds, uniform
from defender.patch_placing import (
    PLACES,
    cell_side,
    corners,
    enlarged,
    in_channels,
    paste,
    square_boxes,
)
from defender.patch_training import check_theta
from defender.types import Budget, Images, Objective, Seeds, Threat, check_parameters, parameter
from defender.universal import Perturbation


@dataclass(frozen=True)
class ControlPatch:
    """A square of the size and at the place of GridPatch under the same seeds.

    * ``random``: each cell has one colour, uniformly random in each image.
    * ``mean``: one colour, the mean of theta, a fitted patch's colours, over its cells.
    * ``noise``: uniform noise in every pixel and channel.

    The objective is not asked.

    Args:
        kind: as above.
        grid: cells along a side; with ``size`` it decides the side in pixels.
        size: side of the patch, as a share of the image's shorter side.
        place: where it is pasted, see :func:`defender.patch_placing.corners`.
        perturbation: theta, for ``mean``; None where it is yet to be fitted.
        model: classifier whose heat map says where the object is, for ``place="off-object"``.

    Raises:
        ValueError: a perturbation outside [0, 1]; when called, none for ``mean``, or images on
            which a cell is smaller than a pixel.

    Source: T. B. Brown, D. Mané, A. Roy, M. Abadi, J. Gilmer, "Adversarial Patch", 2017,
    arXiv 1712.09665, for the comparison with patches that were not optimised.
    Differs: colours in the place of real objects.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "T. B. Brown, D. Mané, A. Roy, M. Abadi, J. Gilmer, Adversarial Patch, 2017, "
        "arXiv 1712.09665"
    )
    budget: ClassVar[Budget] = "patch"
    threat: ClassVar[Threat] = "control"

    kind: str = parameter("random", doc="what is painted", choices=("random", "mean", "noise"))
    grid: int = parameter(10, doc="cells along a side", low=1)
    size: float = parameter(
        0.15, doc="side as a share of the image's shorter side", low=0, high=1, open_low=True
    )
    place: str = parameter("random", doc="where it is pasted", choices=PLACES)
    perturbation: Perturbation | None = None
    model: Any = None

    def __post_init__(self) -> None:
        check_parameters(self)
        if self.perturbation is not None:
            check_theta(self.perturbation.values, "perturbation")

    @property
    def must_fit(self) -> bool:
        """Whether it needs the colours of a fitted patch and has none."""
        return self.kind == "mean" and self.perturbation is None

    def __call__(self, images: Images, objective: Objective, *, seeds: Seeds) -> Images:
        """Change images.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            objective: not asked.
            seeds: int64 (n,); places and colours follow from them.

        Returns:
            (n, c, h, w) in [0, 1].
        """
        return self.apply(images, seeds=seeds)[0]

    @torch.no_grad()
    def apply(
        self, images: Images, theta: Tensor | None = None, *, seeds: Seeds
    ) -> tuple[Images, Tensor]:
        """Paste the patch on images.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            theta: (c, G, G) in [0, 1] of which ``mean`` takes the mean; None: the perturbation.
            seeds: int64 (n,); places and colours follow from them.

        Returns:
            Images (n, c, h, w), and int64 (n, 4) boxes top, left, height, width in pixels.
        """
        cell = cell_side(self.size, self.grid, (images.shape[2], images.shape[3]))
        side = self.grid * cell
        patches = self._painted(images, theta, cell, seeds)
        top, left = corners(images, side, self.place, seeds, self.model)
        boxes = square_boxes(top, left, side).to(images.device)
        changed = paste(images, patches.to(images), top, left)
        return torch.empty_like(images).copy_(changed), boxes

    def _painted(self, images: Images, theta: Tensor | None, cell: int, seeds: Seeds) -> Tensor:
        n, channels = images.shape[:2]
        if self.kind == "mean":
            if theta is None:
                if self.perturbation is None:
                    raise ValueError(f"perturbation: expected a fitted one, got {self!r}")
                theta = self.perturbation.values
            check_theta(theta, "theta")
            colour = in_channels(theta.mean(dim=(1, 2), keepdim=True), channels)
            return colour.expand(n, -1, self.grid * cell, self.grid * cell)
        drawn = derive_seeds(seeds, f"control patch {self.kind}")
        if self.kind == "random":
            return enlarged(uniform(drawn, (channels, self.grid, self.grid)), cell)
        return uniform(drawn, (channels, self.grid * cell, self.grid * cell))
