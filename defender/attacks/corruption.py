"""Changes of images that are no attack: what cameras, storage and transmission do to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from defender.noise import derive_seeds, normal
from defender.norms import from_uint8, to_uint8
from defender.purifiers.filters import JPEG
from defender.smoothing import gaussian_filter
from defender.types import Budget, Images, Objective, Seeds, Threat, check_parameters, parameter

_GREY = 0.5


@dataclass(frozen=True)
class Corruption:
    """Benign damage, in the place of an attack, to rate detectors on what they should let pass.

    * ``jpeg``: JPEG compression with ``quality``.
    * ``blur``: Gaussian blur with ``sigma``.
    * ``noise``: ``x + noise z``, z standard normal for every value.
    * ``brightness``: ``x + brightness``.
    * ``contrast``: ``(x - 1/2) contrast + 1/2``.

    The result is clipped to [0, 1] and rounded to 8 bits; the objective is not asked.

    Args:
        kind: as above.
        quality: of the JPEG encoder.
        sigma: standard deviation of the blur in pixels.
        noise: standard deviation of the noise, in [0, 1] units.
        brightness: what is added, in [0, 1] units.
        contrast: factor of the distance from middle grey.

    Raises:
        ValueError: when called, images with neither 1 nor 3 channels for ``jpeg``, or no larger
            than the reach of the kernel for ``blur``.

    Source: D. Hendrycks, T. Dietterich, "Benchmarking Neural Network Robustness to Common
    Corruptions and Perturbations", 2019, arXiv 1903.12261.
    Differs: five of its kinds, with their quantity as parameter in the place of five severities;
    contrast is taken around middle grey, not around the mean of the image.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "D. Hendrycks, T. Dietterich, Benchmarking Neural Network Robustness to Common "
        "Corruptions and Perturbations, 2019, arXiv 1903.12261"
    )
    threat: ClassVar[Threat] = "none"

    kind: str = parameter(
        "jpeg", doc="what is done", choices=("jpeg", "blur", "noise", "brightness", "contrast")
    )
    quality: int = parameter(75, doc="quality factor of the encoder (jpeg)", low=1, high=95)
    sigma: float = parameter(
        1.0, doc="standard deviation (blur)", low=0, open_low=True, unit="pixels"
    )
    noise: float = parameter(
        0.02, doc="standard deviation (noise)", low=0, high=1, unit="[0, 1] intensity"
    )
    brightness: float = parameter(
        0.1, doc="what is added (brightness)", low=-1, high=1, unit="[0, 1] intensity"
    )
    contrast: float = parameter(
        1.2, doc="factor of the distance from middle grey (contrast)", low=0
    )

    def __post_init__(self) -> None:
        check_parameters(self)

    @property
    def budget(self) -> Budget:
        """Nothing bounds the change but its kind."""
        return "none"

    @torch.no_grad()
    def __call__(self, images: Images, objective: Objective, *, seeds: Seeds) -> Images:
        """Change images.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            objective: not asked.
            seeds: int64 (n,); the noise is drawn from them.

        Returns:
            (n, c, h, w) in [0, 1], multiples of 1/255.
        """
        return torch.empty_like(images).copy_(from_uint8(to_uint8(self._changed(images, seeds))))

    def _changed(self, images: Images, seeds: Seeds) -> Images:
        if self.kind == "jpeg":
            return JPEG(self.quality).filtered(images)
        if self.kind == "blur":
            return gaussian_filter(images, self.sigma)
        if self.kind == "brightness":
            return images + self.brightness
        if self.kind == "contrast":
            return (images - _GREY) * self.contrast + _GREY
        drawn = normal(derive_seeds(seeds, "corruption"), tuple(images.shape[1:]))
        return images + self.noise * drawn.to(images)
