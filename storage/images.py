"""Images of one chunk in zarr: one array, one zarr chunk, compressed, with a checksum.

Images of one shape are an array (n, c, h, w) of uint8. Images of several shapes lie one after the
other in a flat array; their shapes are in its attributes. Sizes are never changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BloscShuffle, Crc32cCodec
from zarr.core.buffer import Buffer, cpu
from zarr.storage import MemoryStore

from storage.errors import DamagedChunk, StoreError
from storage.files import Place, Written, read_patiently, remove_folder, write_hashed

Pixels = NDArray[np.uint8]


def write_images(folder: Place, images: Sequence[Pixels]) -> dict[str, Written]:
    """Write the images of a chunk as the array ``folder``, replacing what was there.

    Args:
        folder: where the array goes; its parent is made.
        images: uint8 arrays (c, h, w), at least one.

    Returns:
        What was written, by name relative to ``folder``.

    Raises:
        StoreError: where the disk is full or cannot be written.
        ValueError: where an image is not uint8 (c, h, w).
    """
    for image in images:
        if image.dtype != np.uint8 or image.ndim != 3:
            raise ValueError(f"expected uint8 (c, h, w), got {image.dtype} {image.shape}")
    shapes = [list(image.shape) for image in images]
    stacked = all(shape == shapes[0] for shape in shapes)
    data = np.stack(images) if stacked else np.concatenate([image.ravel() for image in images])
    attributes: dict[str, Any] = {} if stacked else {"shapes": shapes}
    files: dict[str, Buffer] = {}
    with zarr.config.set({"array.write_empty_chunks": True}):
        array = zarr.create_array(
            MemoryStore(files),
            shape=data.shape,
            chunks=data.shape,
            dtype="uint8",
            compressors=[
                BloscCodec(typesize=1, cname="zstd", clevel=1, shuffle=BloscShuffle.bitshuffle),
                Crc32cCodec(),
            ],
            attributes=attributes,
        )
        array[...] = data
    remove_folder(folder)
    return {
        name: write_hashed(_below(folder, name), content.to_bytes())
        for name, content in sorted(files.items())
    }


def _below(folder: Place, name: str) -> Place:
    for part in name.split("/"):
        folder = folder / part
    return folder


def read_images(folder: Place) -> list[Pixels]:
    """Read the images of a chunk.

    Returns:
        uint8 arrays (c, h, w) in the order they were written.

    Raises:
        DamagedChunk: where the array is not there or its checksum does not agree.
    """
    try:
        files = {"zarr.json": _read(folder / "zarr.json")}
        array = zarr.open_array(MemoryStore(files, read_only=True), mode="r")
        name = "/".join(["c", *("0" for _ in array.shape)])
        files[name] = _read(_below(folder, name))
        data = np.asarray(array[...])
    except (DamagedChunk, StoreError):
        raise
    except Exception as error:
        raise DamagedChunk(f"cannot read the images in {folder}: {error}") from error
    shapes: Any = array.attrs.asdict().get("shapes")
    if shapes is None:
        return list(data)
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    parts = np.split(data, ends[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _read(path: Place) -> Buffer:
    try:
        return cpu.Buffer.from_bytes(read_patiently(path))
    except FileNotFoundError:
        raise DamagedChunk(f"expected {path} in the store, got nothing") from None


def content_digest(ids: Sequence[str], images: Sequence[Pixels]) -> str:
    """SHA-256 over ids, shapes and pixels: what the images are, however they are compressed."""
    digest = hashlib.sha256()
    for name, image in zip(ids, images, strict=True):
        digest.update(f"{name} {image.shape} ".encode())
        digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()
