"""What an image file says of itself before any pixel is decoded."""

from __future__ import annotations

import struct
from typing import IO

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

_PLUGINS = (
    JpegImagePlugin,
    PngImagePlugin,
    GifImagePlugin,
    BmpImagePlugin,
    WebPImagePlugin,
    TiffImagePlugin,
    PpmImagePlugin,
    Jpeg2KImagePlugin,
)  # imported so that they are registered

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000")
"""The formats that are read. Pillow knows more; some of those start other programs (EPS) or have
no signature (TGA), so that any file might be taken for one."""

MAX_PIXELS = 178_956_970
"""Largest image accepted unless told otherwise: 512 MiB as RGB, the limit that Pillow warns of
doubled."""

MAX_SIDE = 65_535
"""Longest side accepted, in pixels: what JPEG can express."""

HEAD = 4096
"""Bytes of a file that are looked at first."""

_JPEG_NO_LENGTH = {0x01, *range(0xD0, 0xD9)}
_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_GREY_MODES = {"1", "L", "LA", "La", "I", "F"}


def open_header(stream: IO[bytes]) -> ImageFile.ImageFile | None:
    """Open an image of an allowed format without decoding its pixels.

    Unlike ``PIL.Image.open`` this neither consults nor changes limits that are global to the
    process; the caller judges the size.

    Args:
        stream: a seekable file.

    Returns:
        The image with its size and mode known, or None where no allowed format matches.

    Raises:
        Exception: whatever the format's reader makes of a broken header.
    """
    prefix = stream.read(16)
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        accepted = accept is None or accept(prefix)
        if not accepted or isinstance(accepted, str):  # text says why a plugin is not available
            continue
        stream.seek(0)
        try:
            opened = factory(stream, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue
        if isinstance(opened, ImageFile.ImageFile):
            return opened
    return None


def dimensions(head: bytes) -> tuple[int, int, int] | None:
    """Width, height and channels as the first bytes of a PNG, JPEG, GIF, BMP or WebP state them.

    Args:
        head: the first bytes of a file; ``HEAD`` of them do in nearly all cases.

    Returns:
        ``(width, height, channels)``, with 1 channel for grey and 3 for colour, or None where
        these bytes do not say.
    """
    try:
        if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
            width, height = struct.unpack_from(">II", head, 16)
            return width, height, 1 if head[25] in (0, 4) else 3
        if head.startswith(b"\xff\xd8\xff"):
            return _jpeg_dimensions(head)
        if head.startswith((b"GIF87a", b"GIF89a")):
            width, height = struct.unpack_from("<HH", head, 6)
            return width, height, 3
        if head.startswith(b"BM") and struct.unpack_from("<I", head, 14)[0] >= 40:
            width, height = struct.unpack_from("<ii", head, 18)
            return abs(width), abs(height), 3
        if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
            return _webp_dimensions(head)
    except (IndexError, struct.error):
        return None
    return None


def _jpeg_dimensions(head: bytes) -> tuple[int, int, int] | None:
    position = 2
    while True:
        if head[position] != 0xFF:
            return None
        marker = head[position + 1]
        if marker == 0xFF:  # padding
            position += 1
        elif marker in _JPEG_NO_LENGTH:
            position += 2
        elif marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", head, position + 5)
            return width, height, 1 if head[position + 9] == 1 else 3
        else:
            position += 2 + struct.unpack_from(">H", head, position + 2)[0]


def _webp_dimensions(head: bytes) -> tuple[int, int, int] | None:
    chunk = head[12:16]
    if chunk == b"VP8X":
        width, height = (int.from_bytes(head[i : i + 3], "little") + 1 for i in (24, 27))
        return (width, height, 3) if len(head) >= 30 else None
    if chunk == b"VP8L":
        bits = struct.unpack_from("<I", head, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, 3
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF, 3
    return None


def size_problem(width: int, height: int, max_pixels: int = MAX_PIXELS) -> str | None:
    """Say why an image of this size is not accepted, or None where it is.

    Args:
        width: pixels, as the header states them.
        height: pixels, as the header states them.
        max_pixels: the most pixels accepted.
    """
    if width < 1 or height < 1:
        return f"has no area: the header says {width} x {height} pixels"
    if max(width, height) > MAX_SIDE:
        return (
            f"has an absurd size: expected sides of at most {MAX_SIDE:,} pixels, "
            f"got {width:,} x {height:,}"
        )
    if width * height > max_pixels:
        return (
            f"is too large (decompression bomb?): expected at most {max_pixels:,} pixels, "
            f"got {width:,} x {height:,}"
        )
    return None


def size_hint(stream: IO[bytes]) -> int:
    """Bytes (c x h x w) that an image takes when decoded, from its header.

    Args:
        stream: a seekable file at its beginning.

    Returns:
        The size, or 0 where the file is not an image that would be accepted.
    """
    found = dimensions(stream.read(HEAD))
    if found is None:
        try:
            stream.seek(0)
            opened = open_header(stream)
        except Exception:  # what cannot be read has no size; decoding says why
            return 0
        if opened is None:
            return 0
        grey = opened.mode in _GREY_MODES or opened.mode.startswith("I;16")
        found = (*opened.size, 1 if grey else 3)
    width, height, channels = found
    return 0 if size_problem(width, height) else width * height * channels
