"""The photographs that the scikit-image package carries."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from storage.errors import DatasetNotFound
from storage.sources.folder import read_file
from storage.sources.headers import size_hint
from storage.sources.items import JSON, Content, Item, identity_of, require_count

FILES = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "clock_motion.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
)
"""Photographs of the package, colour and grey; what it downloads on demand is not among them."""


@dataclass(frozen=True)
class Photos:
    """The photographs in the installed scikit-image package, of mixed sizes, without labels.

    Only files that lie in the package are listed; nothing is downloaded and the package is not
    imported.

    Args:
        crop: side in pixels of the square pieces that each photograph is cut into, without
            overlap and from its middle; photographs that are smaller are left out. None: whole.
        pieces: pieces of a photograph, at most, evenly chosen among all.

    Raises:
        ValueError: options out of range.
    """

    kind: ClassVar[str] = "builtin:photos"
    doc: ClassVar[str] = "the photographs that scikit-image carries (17, mixed sizes, no labels)"

    crop: int | None = None
    pieces: int = 3

    def __post_init__(self) -> None:
        if self.crop is not None:
            require_count("crop", self.crop, least=1)
        require_count("pieces", self.pieces, least=1)

    def identity(self) -> dict[str, JSON]:
        """Kind, and how photographs are cut, if they are."""
        return identity_of(self, without=("crop", "pieces") if self.crop is None else ())

    @property
    def classes(self) -> None:
        """There are no labels."""
        return None

    def items(self) -> Iterator[Item]:
        """List the photographs by name; the stamp is the file's size and the package's version.

        Raises:
            DatasetNotFound: where scikit-image is not installed or has no such files.
        """
        folder = _folder()
        release = version("scikit-image")
        present = [name for name in FILES if (folder / name).is_file()]
        if not present:
            raise DatasetNotFound(f"expected photographs of scikit-image in {folder}, got none")
        for name in present:
            path = folder / name
            stamp = f"{path.stat().st_size}-{release}"
            with path.open("rb") as stream:
                hint = size_hint(stream)
            if self.crop is None:
                yield Item(name, None, stamp, hint)
                continue
            for left, top in self._corners(path, self.crop):
                yield Item(f"{name}/{left}-{top}", None, stamp, 3 * self.crop**2, f"{left} {top}")

    def _corners(self, path: Path, side: int) -> list[tuple[int, int]]:
        """Left and top of the pieces of a photograph."""
        with Image.open(path) as picture:
            width, height = picture.size
        across, down = width // side, height // side
        left, top = (width - across * side) // 2, (height - down * side) // 2
        found = [(left + side * i, top + side * j) for j in range(down) for i in range(across)]
        count = min(self.pieces, len(found))
        return [found[(2 * k + 1) * len(found) // (2 * count)] for k in range(count)]

    def read(self, items: Sequence[Item]) -> Iterator[Content]:
        """Yield the bytes of the files.

        Raises:
            DatasetNotFound: where scikit-image is not installed.
        """
        folder = _folder()
        for item in items:
            if self.crop is None:
                yield read_file(folder / item.name)
                continue
            left, top = (int(part) for part in item.place.split())
            with Image.open(folder / item.name.rpartition("/")[0]) as picture:
                box = (left, top, left + self.crop, top + self.crop)
                yield np.asarray(picture.convert("RGB").crop(box))


def _folder() -> Path:
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise DatasetNotFound("builtin:photos: expected the package scikit-image, got none")
    return Path(spec.origin).parent / "data"
