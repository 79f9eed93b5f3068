"""Pictures of stored images, one at a time, from the chunks that hold them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from storage.chunks import ChunkRef, Store
from storage.errors import DamagedChunk
from storage.images import Pixels, read_images
from tasks.bounded import Bounded
from tasks.encoding import FACTORS, amplification, amplified, change_of
from tasks.result_files import encoded
from tasks.stored_runs import NotStored

if TYPE_CHECKING:
    from tasks.stored_images import StoredImages

KEPT = 256 << 20
"""Bytes of decoded chunks that are kept, at most."""
AT_A_TIME = 3
"""Chunks that are decoded at a time; each may take 64 MB, twice while it is unpacked."""
SIDES = (240,)
"""Longest side to which large pictures are reduced."""
LOOKED_AT = 8
"""Images whose changes say how much the differences of an attack are amplified."""


def _size(images: list[Pixels]) -> int:
    return 100 + sum(image.nbytes for image in images)


class Pictures:
    """Reads pictures; chunks that were decoded last are kept.

    Args:
        limit: bytes of them, at most.
    """

    def __init__(self, limit: int = KEPT) -> None:
        self.chunks: Bounded[list[Pixels]] = Bounded(limit, _size)
        self._factors: Bounded[int] = Bounded(1000)
        self._turn = threading.BoundedSemaphore(AT_A_TIME)

    def png(
        self, run: StoredImages, number: int, place: int, *, times: int = 0, side: int = 0
    ) -> bytes:
        """A picture as PNG.

        Args:
            run: whose picture it is.
            number: of the stage that made it.
            place: of the image in the run.
            times: show what the stage changed, amplified by one of ``FACTORS``; 0: the picture.
            side: longest side, one of ``SIDES``; 0: as it is.

        Raises:
            NotStored: where there is no such picture.
            DamagedChunk: where its chunk cannot be read.
        """
        if (times and times not in FACTORS) or (side and side not in SIDES):
            raise NotStored("expected a known size and amplification, got another")
        pixels = self.pixels(run, number, place)
        if times:
            clean = self.pixels(run, run.node("ingest").number, place)
            if clean.shape != pixels.shape:
                raise NotStored("expected pictures of one size, got two")
            pixels = amplified(change_of(clean, pixels), times)
        # a second channel is transparency of grey, a fourth one that of colours
        pixels = pixels[: 1 if len(pixels) < 3 else 3]
        return encoded(_reduced(pixels, side) if side else pixels)

    def pixels(self, run: StoredImages, number: int, place: int) -> Pixels:
        """A picture as it is stored, uint8 (c, h, w).

        Raises:
            NotStored: where there is no such picture.
            DamagedChunk: where its chunk cannot be read.
        """
        ref, position = run.ref(number, place)
        images = self.chunks.get((str(run.root), ref), lambda: self._read(run, ref))
        if position >= len(images):
            raise DamagedChunk(f"expected more than {position} images in {ref}, got {len(images)}")
        return images[position]

    def _read(self, run: StoredImages, ref: ChunkRef) -> list[Pixels]:
        with self._turn:
            return read_images(Store(run.root).images(ref))

    def factor(self, run: StoredImages, attack: str) -> int:
        """How much the differences that an attack made are amplified, by its first images.

        Returns:
            0 where they cannot be shown: the attack changes the size, or nothing can be read.
        """
        node, ingest = run.node("attack", attack), run.node("ingest")
        key = (str(run.root), node.fingerprint, run.digest)
        return self._factors.get(key, lambda: self._factor(run, node.number, ingest.number))

    def _factor(self, run: StoredImages, attack: int, ingest: int) -> int:
        changes = []
        for place in map(int, run.places):
            try:
                after = self.pixels(run, attack, place)
                before = self.pixels(run, ingest, place)
            except NotStored:
                continue
            except DamagedChunk:
                return 0
            if before.shape != after.shape:
                return 0
            changes.append(change_of(before, after))
            if len(changes) == LOOKED_AT:
                break
        return amplification(changes) if changes else 0


def _reduced(pixels: Pixels, side: int) -> Pixels:
    """A picture whose longest side is at most so long."""
    height, width = pixels.shape[1:]
    scale = side / max(height, width)
    if scale >= 1:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    planes = [Image.fromarray(plane).resize(size, Image.Resampling.BOX) for plane in pixels]
    return np.stack([np.asarray(plane) for plane in planes])
