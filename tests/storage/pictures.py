"""Small image files made for the tests of datasets."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from storage.sources import Source


def gradient(height: int = 8, width: int = 12, channels: int = 3) -> NDArray[np.uint8]:
    """An array (h, w) or (h, w, c) in which every pixel differs from its neighbours."""
    values = np.arange(height * width * channels, dtype=np.uint32) * 37 % 256
    shape = (height, width) if channels == 1 else (height, width, channels)
    return values.astype(np.uint8).reshape(shape)


def encode(image: Image.Image | NDArray[Any], format: str = "PNG", **options: Any) -> bytes:
    """Encode a picture."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def png(number: int = 0, height: int = 8, width: int = 12) -> bytes:
    """A PNG of one colour that the number decides."""
    return encode(Image.new("RGB", (width, height), (number % 256, number // 256 % 256, 7)))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        sealed = kind + data
        return struct.pack(">I", len(data)) + sealed + struct.pack(">I", zlib.crc32(sealed))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def write_tree(root: Path, tree: dict[str, bytes]) -> Path:
    """Files by relative path in a folder."""
    for name, data in tree.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def write_zip(path: Path, tree: dict[str, bytes]) -> Path:
    """Files by relative path in a zip."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as stream:
        for name, data in tree.items():
            stream.writestr(name, data)
    return path


def contents(source: Source) -> list[Any]:
    """Everything that a source holds."""
    return list(source.read(list(source.items())))
