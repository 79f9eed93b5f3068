"""Blind purifiers that filter or re-encode an image: median, Gaussian, bit depth, JPEG."""

from __future__ import annotations

import io
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from defender.norms import from_uint8, to_uint8
from defender.smoothing import gaussian_filter, median_filter
from defender.types import Images, Knowledge, Seeds, check_parameters, parameter

_SQUEEZING = (
    "W. Xu, D. Evans, Y. Qi, Feature Squeezing: Detecting Adversarial Examples in Deep Neural "
    "Networks, 2018, arXiv 1704.01155"
)

_BLOCK = 1 << 18
"""Values worked on at a time, few enough to stay in a core's cache between two passes."""


def clamp_through(images: Images) -> Images:
    """Images clamped to [0, 1], gradients passing as if they were not.

    Rounding leaves [0, 1] by an ulp at black and white; a plain clamp would cut gradients there.
    """
    return images + (images.clamp(0.0, 1.0) - images).detach()


def in_blocks(change: Callable[[Images], Images], images: Images, *, alone: bool = False) -> Images:
    """Images changed some at a time on the CPU, all at once elsewhere.

    Args:
        change: maps images (n, c, h, w) to images, each by itself.
        images: (n, c, h, w).
        alone: one at a time, for what multiplies matrices or convolves: such kernels choose their
            arithmetic by the shape of a batch, and an image should not depend on its batch.

    Returns:
        What ``change`` gives for all of them.
    """
    if images.device.type != "cpu" or not len(images):
        return change(images)
    size = 1 if alone else max(1, _BLOCK // max(1, images[:1].numel()))
    return torch.cat([change(part) for part in torch.split(images, size)])


def repr_without(instance: Any, later: tuple[str, ...]) -> str:
    """The ``repr`` of a dataclass without some fields where these have their default.

    The ``repr`` names stored results. A parameter that was added to an algorithm later is left
    out at its default, so that what was stored before keeps its name.

    Args:
        instance: the dataclass.
        later: names of the fields in question.
    """
    values = [(field, getattr(instance, field.name)) for field in fields(instance)]
    shown = [
        f"{field.name}={value!r}"
        for field, value in values
        if field.name not in later or value != field.default
    ]
    return f"{type(instance).__name__}({', '.join(shown)})"


class Filter:
    """What the filters share: they are blind, keep the size and have the result as only part."""

    version: ClassVar[int] = 1
    keeps_size: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_parameters(self)

    @property
    def knowledge(self) -> Knowledge:
        """``"blind"``: only the image."""
        return "blind"

    def __call__(self, images: Images, *, seeds: Seeds, reference: Images | None = None) -> Images:
        """Filter images.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            seeds: unused, the filters are deterministic.
            reference: unused.

        Returns:
            (n, c, h, w) in [0, 1].
        """
        return self.filtered(images)

    def parts(
        self, images: Images, *, seeds: Seeds, reference: Images | None = None
    ) -> dict[str, Tensor]:
        """The purified images under ``"purified"``; arguments as for the call."""
        return {"purified": self(images, seeds=seeds, reference=reference)}

    @abstractmethod
    def filtered(self, images: Images) -> Images:
        """The filter itself: images (n, c, h, w) in [0, 1] to such images."""


@dataclass(frozen=True)
class Median(Filter):
    """Median of the square window around each pixel, channel by channel.

    Args:
        window: odd side of the window in pixels.
        padding: how the image goes on beyond its border: ``"reflect"`` leaves the border pixels
            out (``c b | a b c``), ``"symmetric"`` repeats them (``b a | a b c``).

    Raises:
        ValueError: an even window; when called, reflected images no larger than half of it.

    Source: W. Xu, D. Evans, Y. Qi, "Feature Squeezing: Detecting Adversarial Examples in Deep
    Neural Networks", 2018, arXiv 1704.01155, section II.B (local smoothing).
    Differs: the paper's default window is 2 x 2, which is not centred; only odd ones are allowed.
    """

    paper: ClassVar[str] = _SQUEEZING

    window: int = parameter(3, doc="odd side of the window", low=1, unit="pixels")
    padding: str = parameter(
        "reflect", doc="the image beyond its border", choices=("reflect", "symmetric")
    )

    def __post_init__(self) -> None:
        check_parameters(self)
        if self.window % 2 == 0:
            raise ValueError(f"window: expected an odd number >= 1, got {self.window}")

    def filtered(self, images: Images) -> Images:
        """Median filter; gradients pass to the pixel that is the median."""
        return median_filter(images, self.window, self.padding)


@dataclass(frozen=True, repr=False)
class Gaussian(Filter):
    """Gaussian blur, channel by channel, border reflected.

    Args:
        sigma: standard deviation in pixels.
        window: odd side of the kernel in pixels; None cuts it at ``ceil(3 sigma)``.

    Raises:
        ValueError: an even window; when called, images no larger than the reach of the kernel.

    Source: R. Gonzalez, R. Woods, "Digital Image Processing", 4th edition, 2018, section 3.5.
    Differs: none.
    """

    paper: ClassVar[str] = "R. Gonzalez, R. Woods, Digital Image Processing, 4th edition, 2018"

    sigma: float = parameter(
        1.0, doc="standard deviation of the blur", low=0, open_low=True, unit="pixels"
    )
    window: int | None = parameter(
        None, doc="odd side of the kernel; none: cut at 3 sigma", low=1, unit="pixels"
    )

    def __post_init__(self) -> None:
        check_parameters(self)
        if self.window is not None and self.window % 2 == 0:
            raise ValueError(f"window: expected an odd number >= 1, got {self.window}")

    def __repr__(self) -> str:
        return repr_without(self, later=("window",))

    def filtered(self, images: Images) -> Images:
        """Gaussian blur; differentiable."""
        reach = None if self.window is None else self.window // 2
        return clamp_through(gaussian_filter(images, self.sigma, reach))


@dataclass(frozen=True)
class BitDepth(Filter):
    """Fewer grey levels: ``round(x (2^b - 1)) / (2^b - 1)``.

    Args:
        bits: bits a channel, 1 to 8.

    Source: W. Xu, D. Evans, Y. Qi, "Feature Squeezing: Detecting Adversarial Examples in Deep
    Neural Networks", 2018, arXiv 1704.01155, section II.A (colour depth).
    Differs: halves are rounded to even.
    """

    paper: ClassVar[str] = _SQUEEZING

    bits: int = parameter(5, doc="bits a channel", low=1, high=8)

    def filtered(self, images: Images) -> Images:
        """Rounded images; the exact gradient is zero."""
        levels = 2**self.bits - 1
        rounded: Images = (images * levels).round() / levels
        return rounded


@dataclass(frozen=True)
class JPEG(Filter):
    """JPEG compression and back, image by image on the CPU, through 8-bit values.

    RGB images are compressed with 4:2:0 chroma subsampling, grey ones as grey.

    Args:
        quality: quality factor of the encoder, 1 to 95.

    Raises:
        ValueError: when called, images with neither 1 nor 3 channels.

    Source: G. Dziugaite, Z. Ghahramani, D. Roy, "A Study of the Effect of JPG Compression on
    Adversarial Images", 2016, arXiv 1608.00853.
    Differs: the encoder is Pillow's (libjpeg-turbo); its bytes may change with its version.
    """

    paper: ClassVar[str] = (
        "G. Dziugaite, Z. Ghahramani, D. Roy, A Study of the Effect of JPG Compression on "
        "Adversarial Images, 2016, arXiv 1608.00853"
    )

    quality: int = parameter(75, doc="quality factor of the encoder", low=1, high=95)

    def filtered(self, images: Images) -> Images:
        """Compressed images; without a gradient."""
        channels = images.shape[1]
        if channels not in (1, 3):
            raise ValueError(f"expected images with 1 or 3 channels, got {channels}")
        pixels = to_uint8(images.detach()).permute(0, 2, 3, 1).cpu().numpy()
        decoded = np.stack([self._round_trip(image) for image in pixels]) if len(pixels) else pixels
        return from_uint8(torch.from_numpy(decoded).permute(0, 3, 1, 2)).to(images).contiguous()

    def _round_trip(self, pixels: np.ndarray) -> np.ndarray:
        """Encode and decode uint8 (h, w, c)."""
        grey = pixels.shape[2] == 1
        picture = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if grey else pixels))
        encoded = io.BytesIO()
        picture.save(encoded, "JPEG", quality=self.quality, subsampling="4:2:0")
        encoded.seek(0)
        with Image.open(encoded) as decoded:
            return np.array(decoded, dtype=np.uint8).reshape(pixels.shape)
