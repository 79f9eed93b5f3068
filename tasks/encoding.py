"""Pixels as pictures that a page carries inside itself."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from storage.images import Pixels

CRISP = 96
"""Pictures up to so many pixels a side are kept pixel for pixel."""
FACTORS = (64, 32, 16, 8, 4, 2, 1)


@dataclass(frozen=True)
class Picture:
    """One picture of a row.

    Args:
        role: what it shows, the heading of its column.
        alt: the same in words for those who do not see it.
        uri: the picture itself as a data URI.
        width: pixels across, as encoded.
        height: pixels down, as encoded.
        crisp: every pixel is one of the image's, so it is to be enlarged without smoothing.
        caption: class and confidence, or a figure.
        verdict: ``"right"`` or ``"wrong"`` where the caption names a class and the true one is
            known, otherwise empty.
        note: a figure of the image, beneath the caption.
    """

    role: str
    alt: str
    uri: str
    width: int
    height: int
    crisp: bool
    caption: str = ""
    verdict: str = ""
    note: str = ""


def data_uri(pixels: Pixels, side: int, *, exact: bool = False) -> tuple[str, int, int]:
    """Encode an image as PNG where it is small and as JPEG where it has to be reduced.

    Args:
        pixels: uint8 (c, h, w) with one channel or three; of others the first three are taken.
        side: longest side in pixels of the encoded picture, at least.
        exact: take the nearest pixel when reducing and never lose colours, for masks.

    Returns:
        The data URI, its width and its height.
    """
    limit = max(side, CRISP)
    picture = Image.fromarray(_channels_last(pixels))
    reduced = max(picture.size) > limit
    if reduced:
        scale = limit / max(picture.size)
        size = tuple(max(1, round(length * scale)) for length in picture.size)
        chosen = Image.Resampling.NEAREST if exact else Image.Resampling.BOX
        picture = picture.resize((size[0], size[1]), chosen)
    sink = io.BytesIO()
    if exact or max(picture.size) <= CRISP:
        kind = "png"
        picture.save(sink, "PNG", optimize=True)
    else:
        kind = "jpeg"
        picture.save(sink, "JPEG", quality=85)
    text = base64.b64encode(sink.getvalue()).decode()
    return f"data:image/{kind};base64,{text}", picture.width, picture.height


def _channels_last(pixels: Pixels) -> Pixels:
    """Pixels (h, w) or (h, w, 3) of (c, h, w), as Pillow takes them."""
    if pixels.shape[0] in (1, 2):
        return np.ascontiguousarray(pixels[0])
    return np.ascontiguousarray(pixels[:3].transpose(1, 2, 0))


def picture(
    role: str,
    pixels: Pixels,
    side: int,
    *,
    subject: str,
    caption: str = "",
    verdict: str = "",
    exact: bool = False,
    note: str = "",
) -> Picture:
    """A picture with its words.

    Args:
        role: what it shows.
        pixels: uint8 (c, h, w).
        side: longest side in pixels, at least.
        subject: the image's name, for the alternative text.
        caption: what stands under it.
        verdict: ``"right"``, ``"wrong"`` or empty.
        exact: as for :func:`data_uri`.
        note: what stands beneath the caption.
    """
    uri, width, height = data_uri(pixels, side, exact=exact)
    alt = f"{role} of {subject}"
    if caption:
        alt += f", predicted {caption}" if verdict else f", {caption}"
    alt += f", {note}" if note else ""
    crisp = max(width, height) <= CRISP
    return Picture(role, alt, uri, width, height, crisp, caption, verdict, note)


def amplification(changes: Sequence[NDArray[np.int16]]) -> int:
    """The largest factor of 1, 2, 4, ... 64 that keeps all changes well within the grey scale."""
    largest = max((int(np.abs(change).max(initial=0)) for change in changes), default=0)
    return next(factor for factor in FACTORS if largest * factor <= 96 or factor == 1)


def change_of(before: Pixels, after: Pixels) -> NDArray[np.int16]:
    """Signed difference of two images of one shape."""
    return after.astype(np.int16) - before.astype(np.int16)


def amplified(change: NDArray[np.int16], factor: int) -> Pixels:
    """A signed difference about middle grey."""
    return np.clip(128 + factor * change.astype(np.int32), 0, 255).astype(np.uint8)


def side_for(room: float, pictures: int) -> int:
    """Longest side of reduced pictures so that so many of them fit into so many bytes."""
    each = room / max(1, pictures)
    return int(min(256, max(CRISP, math.sqrt(each / 0.5))))
