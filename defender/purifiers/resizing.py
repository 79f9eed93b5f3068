"""Purifiers that make an image smaller, and larger again or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.nn import functional

from defender.purifiers.filters import Filter, clamp_through
from defender.types import Images, parameter

_BENCHMARK = (
    "E. Gushchin et al., Guardians of Image Quality: Benchmarking Defenses Against Adversarial "
    "Attacks on Image Quality Metrics, 2024, arXiv 2408.01541"
)


def resized(images: Images, height: int, width: int) -> Images:
    """Images (n, c, h, w) in [0, 1] at another size, bilinear with antialiasing; differentiable."""
    made = functional.interpolate(
        images, size=(height, width), mode="bilinear", antialias=True, align_corners=False
    )
    return clamp_through(made)


@dataclass(frozen=True)
class Resize(Filter):
    """Scales images down, bilinear with antialiasing, and leaves them at the smaller size.

    The result has ``int(scale h)`` by ``int(scale w)`` pixels, at least one each. Half the size
    is the baseline of the task that attacks and defends the Linearity metric.

    Args:
        scale: new side divided by the old one.

    Source: E. Gushchin et al., "Adversarial purification for no-reference image-quality metrics:
    applicability study and new methods", 2024, arXiv 2404.06957; it does what torchvision's
    ``Resize`` does with tensors.
    Differs: none.
    """

    keeps_size: ClassVar[bool] = False
    paper: ClassVar[str] = (
        "E. Gushchin et al., Adversarial purification for no-reference image-quality metrics: "
        "applicability study and new methods, 2024, arXiv 2404.06957"
    )

    scale: float = parameter(
        0.5, doc="new side divided by the old one", low=0, high=1, open_low=True
    )

    def filtered(self, images: Images) -> Images:
        """Smaller images; differentiable."""
        height, width = images.shape[2:]
        return resized(images, max(1, int(self.scale * height)), max(1, int(self.scale * width)))


@dataclass(frozen=True)
class Upscale(Resize):
    """Scales images down as :class:`Resize` does, and back up to their size, bilinear.

    Args:
        scale: smaller side divided by the old one.

    Source: E. Gushchin et al., "Guardians of Image Quality: Benchmarking Defenses Against
    Adversarial Attacks on Image Quality Metrics", 2024, arXiv 2408.01541.
    Differs: back to the image's own size, where the benchmark has one size.
    """

    keeps_size: ClassVar[bool] = True
    paper: ClassVar[str] = _BENCHMARK

    def filtered(self, images: Images) -> Images:
        """Images of the same size, without their fine detail; differentiable."""
        height, width = images.shape[2:]
        return resized(super().filtered(images), height, width)
