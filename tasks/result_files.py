"""Image files that a command makes of others: their names, and their bytes."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath
from typing import Any

from PIL import Image

from storage.images import Pixels

PNG_COMPRESSION = 3
"""Of PNG: X-rays come out as small as with 6, the default, in less than half of the time."""
FORMATS = {".png": "PNG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}
"""Lossless formats by the end of a file name."""

_SUFFIX = re.compile(r"[A-Za-z0-9._-]*\.[a-z]+")


def check_suffix(suffix: str) -> str:
    """The suffix of results, as it is.

    Args:
        suffix: what follows the stem, such as ``.png`` or ``-purified.png``.

    Raises:
        ValueError: for one that names no lossless format.
    """
    if not _SUFFIX.fullmatch(suffix) or PurePosixPath(f"x{suffix}").suffix not in FORMATS:
        known = ", ".join(FORMATS)
        raise ValueError(f"expected {known}, or -word.png and the like, got {suffix!r}")
    return suffix


def shared_names(names: Sequence[str], suffix: str = ".png") -> list[str]:
    """Those of the names that differ from another in nothing but what the suffix replaces."""
    plain = {name: result_name(name, suffix) for name in names}
    counted = Counter(plain.values())
    return [name for name, result in plain.items() if counted[result] > 1]


def result_name(name: str, suffix: str = ".png", shared: Collection[str] = ()) -> str:
    """Name of the result of one picture.

    The suffix takes the place of the picture's own, or follows it where that is all that tells
    the picture from another.

    Args:
        name: of the picture, with forward slashes.
        suffix: of the result.
        shared: what :func:`shared_names` says of all pictures.
    """
    stem = name if name in shared else PurePosixPath(name).with_suffix("").as_posix()
    return f"{stem}{suffix}"


def result_names(names: Sequence[str], suffix: str = ".png") -> dict[str, str]:
    """Names of results by names of pictures."""
    shared = frozenset(shared_names(names, suffix))
    return {name: result_name(name, suffix, shared) for name in names}


def name_problem(names: dict[str, str]) -> str | None:
    """Why results cannot lie under these names in one folder, or None where they can.

    Args:
        names: of results by names of pictures.
    """
    folders = {str(parent) for one in names.values() for parent in PurePosixPath(one).parents}
    seen: dict[str, str] = {}
    for name, result in names.items():
        path = PurePosixPath(result)
        if path.is_absolute() or ".." in path.parts:
            return f"expected names inside the output folder, got {name!r}"
        if result in seen:
            return f"expected one result a name, got {result!r} twice: {seen[result]!r}, {name!r}"
        if result in folders:
            return f"expected a file {result!r} for {name!r}, got a folder of that name"
        seen[result] = name
    return None


def encoded(pixels: Pixels, suffix: str = ".png", **options: Any) -> bytes:
    """A picture as the bytes of a lossless file; the same picture gives the same bytes.

    Args:
        pixels: uint8 (c, h, w) with one channel or three.
        suffix: says which of ``FORMATS``, by its end.
        options: of Pillow's writer.
    """
    kind = FORMATS[PurePosixPath(f"x{suffix}").suffix]
    if kind == "PNG":
        options = {"compress_level": PNG_COMPRESSION, **options}
    sink = io.BytesIO()
    grey = len(pixels) == 1
    Image.fromarray(pixels[0] if grey else pixels.transpose(1, 2, 0).copy()).save(
        sink, kind, **options
    )
    return sink.getvalue()
