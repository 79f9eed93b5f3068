"""Purifiers that move an image under the model: turned over, rotated, cropped."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from defender.noise import derive_seeds, integers, uniform
from defender.purifiers.filters import Filter, clamp_through
from defender.purifiers.randomised import Randomised
from defender.types import Images, Seeds, parameter

_COUNTERING = (
    "C. Guo, M. Rana, M. Cissé, L. van der Maaten, Countering Adversarial Images using Input "
    "Transformations, 2018, arXiv 1711.00117"
)


@dataclass(frozen=True)
class Flip(Filter):
    """Turns images over: left to right, upside down, or both.

    Args:
        axes: ``"both"`` (a rotation by half a turn), ``"horizontal"`` (left to right) or
            ``"vertical"`` (upside down).

    Source: E. Gushchin, K. Abud, G. Bychkov, E. Shumitskaya, A. Chistyakova, S. Lavrushkin,
    B. Rasheed, K. Malyshev, D. Vatolin, A. Antsiferova, "Guardians of Image Quality: Benchmarking
    Defenses Against Adversarial Attacks on Image Quality Metrics", 2024, arXiv 2408.01541.
    Differs: the benchmark has both axes only.
    """

    paper: ClassVar[str] = (
        "E. Gushchin et al., Guardians of Image Quality: Benchmarking Defenses Against "
        "Adversarial Attacks on Image Quality Metrics, 2024, arXiv 2408.01541"
    )

    axes: str = parameter(
        "both", doc="which way images are turned", choices=("both", "horizontal", "vertical")
    )

    def filtered(self, images: Images) -> Images:
        """Images the other way round; differentiable."""
        turned = {"both": [2, 3], "horizontal": [3], "vertical": [2]}[self.axes]
        return images.flip(turned)


@dataclass(frozen=True)
class Rotate(Randomised):
    """Rotates images around their centre by a random angle, bilinear, at the same size.

    Args:
        degrees: largest angle; each image's is uniform in [-degrees, degrees].
        border: what comes in at the corners: ``"black"``, or the image ``"reflected"`` at the
            outer edge of its border pixels.

    Source: C. Guo, M. Rana, M. Cissé, L. van der Maaten, "Countering Adversarial Images using
    Input Transformations", 2018, arXiv 1711.00117 (cropping and rescaling); the angle and its
    default are those of E. Gushchin et al., "Guardians of Image Quality", 2024, arXiv 2408.01541.
    Differs: rotation in place of cropping and rescaling.
    """

    paper: ClassVar[str] = _COUNTERING

    degrees: float = parameter(15.0, doc="largest angle", low=0, high=180, unit="degrees")
    border: str = parameter("black", doc="the image's surroundings", choices=("black", "reflected"))

    def drawn(self, images: Images, seeds: Seeds) -> Images:
        """Rotated images; differentiable."""
        angles = uniform(derive_seeds(seeds, "rotation"), (), -self.degrees, self.degrees)
        return rotate(images, angles, self.border)


def rotate(images: Images, angles: Tensor, border: str) -> Images:
    """Rotate images around their centre.

    Args:
        images: (n, c, h, w) in [0, 1].
        angles: (n,) in degrees, counter-clockwise.
        border: ``"black"`` or ``"reflected"``.

    Returns:
        (n, c, h, w) in [0, 1].
    """
    height, width = images.shape[2:]
    turned = angles.double() * (math.pi / 180)
    cosine, sine, zero = turned.cos(), turned.sin(), torch.zeros_like(turned)
    # the grid's units are half heights and half widths, the rotation is one of pixels
    rows = [cosine, -sine * height / width, zero, sine * width / height, cosine, zero]
    matrices = torch.stack(rows, dim=1).view(-1, 2, 3).to(images)
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
    mode = {"black": "zeros", "reflected": "reflection"}[border]
    rotated = functional.grid_sample(images, grid, "bilinear", mode, align_corners=False)
    return clamp_through(rotated)


@dataclass(frozen=True)
class RandomCrop(Randomised):
    """Cuts a square out at a random place.

    An axis along which the image is no longer than the square is kept whole.

    Args:
        size: side of the square in pixels.

    Source: C. Guo, M. Rana, M. Cissé, L. van der Maaten, "Countering Adversarial Images using
    Input Transformations", 2018, arXiv 1711.00117, section 4.1 (image cropping).
    Differs: not rescaled and not averaged; one crop, as in E. Gushchin et al., "Guardians of
    Image Quality", 2024, arXiv 2408.01541.
    """

    keeps_size: ClassVar[bool] = False
    paper: ClassVar[str] = _COUNTERING

    size: int = parameter(128, doc="side of the square", low=1, unit="pixels")

    def drawn(self, images: Images, seeds: Seeds) -> Images:
        """The part of each image that is kept; differentiable."""
        for axis, name in ((2, "top"), (3, "left")):
            length = images.shape[axis]
            kept = min(self.size, length)
            starts = integers(derive_seeds(seeds, f"crop {name}"), length - kept + 1)
            places = starts.to(images.device).unsqueeze(1) + torch.arange(
                kept, device=images.device
            )
            shape = [len(images), 1, 1, 1]
            shape[axis] = kept
            sizes = list(images.shape)
            sizes[axis] = kept
            images = images.gather(axis, places.view(shape).expand(sizes))
        return images
