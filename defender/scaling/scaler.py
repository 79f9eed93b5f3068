"""A resize from one size to another: the real library call, and the linear map behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from defender.scaling.bands import Separable, separable
from defender.scaling.coefficients import Taps, taps
from defender.scaling.libraries import (
    ALGORITHMS,
    resize_opencv,
    resize_pillow,
    resize_torch,
)
from defender.scaling.quantised import quantised
from defender.types import Images

Size = tuple[int, int]


def check_method(library: str, algorithm: str, antialias: bool) -> None:
    """Refuse what no library offers.

    Raises:
        ValueError: naming the field and what was expected.
    """
    if library not in ALGORITHMS:
        raise ValueError(f"library: expected {' | '.join(ALGORITHMS)}, got {library!r}")
    known = ALGORITHMS[library]
    if algorithm not in known:
        raise ValueError(
            f"algorithm: expected {' | '.join(known)} for {library}, got {algorithm!r}"
        )
    if antialias and (library == "opencv" or (library, algorithm) == ("pillow", "nearest")):
        raise ValueError(f"antialias: {library} has no antialiased {algorithm}; expected false")
    if antialias and library == "torch" and algorithm not in ("linear", "cubic"):
        raise ValueError(f"antialias: torch antialiases linear and cubic only, got {algorithm!r}")


@dataclass(frozen=True)
class Scaler:
    """Resizes images as one library does: ``scale(X) = L X R`` up to 8-bit rounding.

    Args:
        library: ``opencv``, ``pillow`` or ``torch``.
        algorithm: ``nearest``, ``nearest-exact`` (OpenCV, torch), ``linear``, ``cubic``,
            ``lanczos`` (OpenCV: 4 lobes, Pillow: 3), ``area`` (Pillow: its box filter),
            ``box``, ``hamming`` (Pillow).
        antialias: torch's antialiased linear and cubic. Pillow always antialiases, whatever is
            said here; OpenCV never does.
        source: height and width of the input, pixels.
        target: height and width of the output, pixels.

    Raises:
        ValueError: a method that the library does not offer, or a size below 1.
    """

    library: str = "opencv"
    algorithm: str = "linear"
    antialias: bool = False
    source: Size = (224, 224)
    target: Size = (64, 64)

    def __post_init__(self) -> None:
        check_method(self.library, self.algorithm, self.antialias)
        for name in ("source", "target"):
            size = tuple(int(side) for side in getattr(self, name))
            if len(size) != 2 or min(size) < 1:
                raise ValueError(f"{name}: expected height and width >= 1, got {size}")
            object.__setattr__(self, name, size)

    def __call__(self, images: Images) -> Images:
        """Run the real library on images of the source size.

        Args:
            images: (n, c, h, w), uint8 in 0..255 or float; each type takes the library's own path
                for it. torch has no 8-bit ``area``: its float result is rounded.

        Returns:
            (n, c, height, width) of the same type. No gradients; see :meth:`linear`.

        Raises:
            ValueError: images of another size than ``source``.
            TypeError: images of another type.
            ModuleNotFoundError: where the library is not installed.
        """
        self._check(images, self.source)
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise TypeError(f"images: expected uint8 or floats, got {images.dtype}")
        images = images.detach()
        if self.library == "opencv":
            return resize_opencv(images, self.algorithm, self.target)
        if self.library == "pillow":
            return resize_pillow(images, self.algorithm, self.target)
        return resize_torch(images, self.algorithm, self.antialias, self.target)

    def quantised(self, images: Images) -> Images:
        """What the library's 8-bit path makes of images, without the library, on any device.

        The same passes in the same order, with the same rounding and clipping between them: within
        one grey level of :meth:`__call__`, nearly always equal.

        Args:
            images: uint8 (n, c, h, w) of the source size.

        Returns:
            uint8 (n, c, height, width).

        Raises:
            ValueError: images of another size than ``source``.
            TypeError: images that are not uint8.
        """
        self._check(images, self.source)
        if images.dtype != torch.uint8:
            raise TypeError(f"images: expected uint8, got {images.dtype}")
        method = "area-upwards" if self._enlarges_area else self.algorithm
        return quantised(images, self.library, method, self.taps(), self.taps(torch.float32))

    def taps(self, precision: torch.dtype = torch.float64) -> tuple[Taps, Taps]:
        """Sparse coefficients along the vertical and the horizontal axis.

        Args:
            precision: of the positions of kernels of fixed width.
        """
        method = "area-upwards" if self._enlarges_area else self.algorithm
        first, second = (
            taps(self.library, method, self.antialias, source, target, precision)
            for source, target in zip(self.source, self.target, strict=True)
        )
        return first, second

    @property
    def _enlarges_area(self) -> bool:
        """OpenCV's area, which is no area on both axes where it enlarges along one."""
        enlarges = any(a < b for a, b in zip(self.source, self.target, strict=True))
        return (self.library, self.algorithm) == ("opencv", "area") and enlarges

    def matrices(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """The matrices L (target height, source height) and R (source width, target width).

        Every row of L and every column of R sums to 1.
        """
        left, right = _matrices(self)
        return left.to(dtype), right.to(dtype)

    def linear(self, images: Images) -> Images:
        """``L X R`` of float images (n, c, h, w), differentiable and without any rounding.

        Raises:
            ValueError: images of another size than ``source``.
            TypeError: images that are not floats.
        """
        self._check(images, self.source)
        return self._separable(images)(images)

    def adjoint(self, small: Images) -> Images:
        """``L^T Y R^T`` of float images of the target size: the transposed linear map.

        Raises:
            ValueError: images of another size than ``target``.
            TypeError: images that are not floats.
        """
        self._check(small, self.target)
        return self._separable(small).adjoint(small)

    def _separable(self, images: Tensor) -> Separable:
        if not images.is_floating_point():
            raise TypeError(f"images: expected floats, got {images.dtype}")
        return separable(*self.taps(), images.device, images.dtype)

    def reverse(self) -> Scaler:
        """The same method from the target size back to the source size."""
        return replace(self, source=self.target, target=self.source)

    def hiding_gain(self) -> float:
        """``G = 10 log10((N M / n m) ||L||^2 ||R||^2)`` in dB.

        Every image A that scales to T exactly has
        ``PSNR(A, S) <= PSNR(scale(S), T) + G``, whatever the attack.
        """
        return _hiding_gain(self)

    def considered(self) -> Tensor:
        """Pixels that have any influence on the output: bool (h, w)."""
        down, across = (one > 0 for one in self.axis_influence())
        return down.unsqueeze(1) & across

    def influence(self) -> Tensor:
        """Sum of the absolute weights with which each pixel enters the output: float64 (h, w)."""
        down, across = self.axis_influence()
        return down.unsqueeze(1) * across

    def axis_influence(self) -> tuple[Tensor, Tensor]:
        """Sums of absolute weights of each row (h,) and each column (w,) of pixels, float64."""
        down, across = (torch.from_numpy(abs(one.sparse()).sum(0)) for one in self.taps())
        return down, across

    def considered_fraction(self) -> float:
        """Share of pixels that have any influence on the output."""
        return math.prod(float((one > 0).double().mean()) for one in self.axis_influence())

    def effective_fraction(self) -> float:
        """``(sum w)^2 / (N sum w^2)`` of the influences w: negligible pixels do not count."""
        return math.prod(
            float(one.sum() ** 2 / (len(one) * one.square().sum())) for one in self.axis_influence()
        )

    def _check(self, images: Tensor, size: Size) -> None:
        if images.ndim != 4 or tuple(images.shape[2:]) != size:
            raise ValueError(
                f"expected images (n, c, {size[0]}, {size[1]}), got {tuple(images.shape)}"
            )


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _matrices(scaler: Scaler) -> tuple[Tensor, Tensor]:
    vertical, horizontal = scaler.taps()
    return vertical.matrix(), horizontal.matrix().T.contiguous()


@lru_cache(maxsize=256)
def _hiding_gain(scaler: Scaler) -> float:
    ratio = math.prod(scaler.source) / math.prod(scaler.target)
    norms = math.prod(one.norm() for one in scaler.taps())
    # rows sum to 1, so that the product is at least 1 but for the last bits
    return max(0.0, 10 * math.log10(ratio * norms**2))


@dataclass(frozen=True)
class Pipeline:
    """How a model's own pipeline resizes whatever it is given: a :class:`Scaler` for any source.

    Args:
        library, algorithm, antialias: as for :class:`Scaler`.
        target: height and width that the model sees, pixels.

    Raises:
        ValueError: a method that the library does not offer, or a size below 1.
    """

    library: str = "opencv"
    algorithm: str = "linear"
    antialias: bool = False
    target: Size = (64, 64)

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", self.scaler((1, 1)).target)

    def scaler(self, source: Size) -> Scaler:
        """The scaler for images of a size."""
        return Scaler(self.library, self.algorithm, self.antialias, source, self.target)

    def of(self, images: Images) -> Scaler:
        """The scaler for these images (n, c, h, w)."""
        return self.scaler((images.shape[2], images.shape[3]))

    def __repr__(self) -> str:
        smooth = " antialiased" if self.antialias else ""
        return f"{self.library} {self.algorithm}{smooth} {self.target[0]}x{self.target[1]}"
