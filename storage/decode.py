"""From encoded bytes or arrays to uint8 images (c, h, w), on stated rules, or a reason why not.

The rules, in order:

1. The header decides first: the format (``FORMATS`` of ``storage.sources.headers``), sides of 1 to
   65,535 pixels, at most ``max_pixels`` pixels. Nothing is decoded that fails here.
2. Every pixel must be there: a truncated or damaged file is rejected, not patched up.
3. Of several frames or pages the first one counts.
4. EXIF orientation is applied.
5. 16-bit grey is scaled, ``round(value / 257)``, never clipped; 16-bit colour comes from Pillow as
   the high byte. 32-bit integers must lie in 0..65535 and are treated likewise. Floats must lie in
   [0, 1], without NaN, and become ``round(255 value)``. One bit becomes 0 or 255.
6. Palettes are resolved to RGB. CMYK and YCbCr are converted by Pillow, which also handles the
   inverted CMYK of Adobe JPEGs; no colour profile is applied.
7. Transparency is laid over white, as a page or a viewer would show it: colours hidden under
   transparent pixels must not reach a model. Grey with transparency stays grey.
8. Colour: ``rgb`` repeats grey three times, ``grey`` takes the luma of ITU-R 601, ``keep`` leaves
   grey as one channel and colour as three; a palette counts as colour.
9. ``resize``, only where it is asked for and the size differs: Pillow's bicubic, which is
   antialiased when it shrinks.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from storage.sources.headers import (
    FORMATS,
    HEAD,
    MAX_PIXELS,
    dimensions,
    open_header,
    size_problem,
)

Colour = Literal["rgb", "grey", "keep"]
COLOURS = ("rgb", "grey", "keep")

_CONVERTED = {"CMYK", "YCbCr", "HSV", "RGBX", "P", "RGB"}


@dataclass(frozen=True)
class DecodeOptions:
    """How images are decoded; part of what a chunk is made from.

    Args:
        colour: ``rgb``, ``grey`` or ``keep``.
        max_pixels: the most pixels accepted.
        resize: (height, width) in pixels, or None to keep every size.
    """

    colour: Colour = "rgb"
    max_pixels: int = MAX_PIXELS
    resize: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        if self.colour not in COLOURS:
            raise ValueError(f"colour: expected rgb, grey or keep, got {self.colour!r}")
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels: expected at least 1, got {self.max_pixels}")
        if self.resize is not None and (len(self.resize) != 2 or min(self.resize) < 1):
            raise ValueError(f"resize: expected (height, width) of 1 or more, got {self.resize}")


@dataclass(frozen=True)
class Decoded:
    """A usable image.

    Args:
        pixels: uint8 array (c, h, w), contiguous, c 1 or 3.
    """

    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class Rejected:
    """An image that cannot be used.

    Args:
        reason: one sentence without the image's name, such as "is truncated: ...".
    """

    reason: str


class _Unusable(Exception):
    """Carries the reason for a rejection out of the steps."""


def decode(
    data: bytes | NDArray[Any],
    *,
    colour: Colour,
    max_pixels: int = MAX_PIXELS,
    resize: tuple[int, int] | None = None,
) -> Decoded | Rejected:
    """Decode one image by the rules of this module.

    Args:
        data: an encoded file, or an array (h, w) or (h, w, c) with c of 1 (grey), 2 (grey and
            alpha), 3 (RGB) or 4 (RGB and alpha): bool, uint8, uint16 or float in [0, 1].
        colour: ``rgb``, ``grey`` or ``keep``.
        max_pixels: the most pixels accepted.
        resize: (height, width) in pixels, or None.

    Returns:
        The image, or the reason why it cannot be used.

    Raises:
        ValueError: where an option is not one of those stated.
        RuntimeError: where some other code has told Pillow to accept truncated files.
    """
    options = DecodeOptions(colour, max_pixels, resize)
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise RuntimeError("PIL.ImageFile.LOAD_TRUNCATED_IMAGES: expected False, got True")
    try:
        image = _open_array(data, options) if isinstance(data, np.ndarray) else _open(data, options)
        return Decoded(_arrange(image, options))
    except _Unusable as unusable:
        return Rejected(str(unusable))


def _open(data: bytes, options: DecodeOptions) -> Image.Image:
    """Steps 1 to 4."""
    if not data:
        raise _Unusable("is empty: the file has 0 bytes")
    if (stated := dimensions(data[: 16 * HEAD])) is not None:
        _check_size(stated[0], stated[1], options)
    try:
        image = open_header(io.BytesIO(data))
    except Exception as error:
        raise _damaged(error) from error
    if image is None:
        if stated is not None:
            raise _Unusable("is damaged: its header begins like an image and cannot be read")
        raise _Unusable(f"is not an image in a supported format ({', '.join(FORMATS)})")
    _check_size(*image.size, options)
    try:
        image.load()
    except Exception as error:
        raise _damaged(error) from error
    return _upright(image)


def _check_size(width: int, height: int, options: DecodeOptions) -> None:
    if (problem := size_problem(width, height, options.max_pixels)) is not None:
        raise _Unusable(problem)


def _damaged(error: Exception) -> Exception:
    """Name what a reader raised; a lack of memory is not the image's fault."""
    if isinstance(error, MemoryError):
        return error
    text = str(error) or type(error).__name__
    truncated = isinstance(error, EOFError | struct.error) or any(
        word in text.lower() for word in ("truncated", "unexpected end", "not enough")
    )
    return _Unusable(f"is {'truncated' if truncated else 'damaged'}: {text}")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF raises nearly anything; such an image states no orientation
        return image


def _open_array(data: NDArray[Any], options: DecodeOptions) -> Image.Image:
    if data.ndim not in (2, 3) or (data.ndim == 3 and data.shape[2] not in (1, 2, 3, 4)):
        raise _Unusable(f"has a wrong shape: expected (h, w) or (h, w, 1..4), got {data.shape}")
    _check_size(data.shape[1], data.shape[0], options)
    if data.dtype == np.bool_:
        data = data.astype(np.uint8) * np.uint8(255)
    elif data.dtype == np.uint16:
        data = _from_sixteen(data)
    elif np.issubdtype(data.dtype, np.floating):
        data = _from_float(data)
    elif data.dtype != np.uint8:
        expected = "bool, uint8, uint16 or float"
        raise _Unusable(f"has a wrong type: expected {expected}, got {data.dtype}")
    if data.ndim == 3 and data.shape[2] == 1:
        data = data[..., 0]
    return Image.fromarray(np.ascontiguousarray(data))


def _from_sixteen(values: NDArray[Any]) -> NDArray[np.uint8]:
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _from_integers(values: NDArray[Any]) -> NDArray[np.uint8]:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65_535:
        raise _Unusable(f"has values out of range: expected 0 to 65,535, got {low:,} to {high:,}")
    return _from_sixteen(values)


def _from_float(values: NDArray[Any]) -> NDArray[np.uint8]:
    if np.isnan(values).any():
        raise _Unusable(f"has NaN in {int(np.isnan(values).sum()):,} values")
    low, high = float(values.min()), float(values.max())
    if low < 0.0 or high > 1.0:
        raise _Unusable(f"has values out of range: expected 0 to 1, got {low:g} to {high:g}")
    return np.floor(values.astype(np.float64) * 255.0 + 0.5).astype(np.uint8)


def _arrange(image: Image.Image, options: DecodeOptions) -> NDArray[np.uint8]:
    """Steps 5 to 9."""
    image = _flat(image)
    if options.colour == "rgb" and image.mode != "RGB":
        image = image.convert("RGB")
    elif options.colour == "grey" and image.mode != "L":
        image = image.convert("L")
    if options.resize is not None and image.size != options.resize[::-1]:
        height, width = options.resize
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(pixels)


def _flat(image: Image.Image) -> Image.Image:
    """Bring any mode to eight bits, L or RGB, without transparency."""
    mode = image.mode
    if mode == "F":
        return Image.fromarray(_from_float(np.asarray(image)))
    if mode == "I" or mode.startswith("I;16"):
        return Image.fromarray(_from_integers(np.asarray(image)))
    if mode not in _CONVERTED | {"1", "L", "LA", "La", "PA", "RGBA", "RGBa"}:
        raise _Unusable(f"has an unsupported colour mode: {mode}")
    final = "L" if mode in ("1", "L", "LA", "La") else "RGB"
    if image.has_transparency_data:
        if mode == "La":
            image = image.convert("LA")
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, layered)
    return image if image.mode == final else image.convert(final)
