"""The photographs that the scikit-image package carries."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from storage.errors import DatasetNotFound
from storage.sources.folder import read_file
from storage.sources.headers import size_hint
from storage.sources.items import JSON, Content, Item, identity_of

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
    """

    kind: ClassVar[str] = "builtin:photos"
    doc: ClassVar[str] = "the photographs that scikit-image carries (17, mixed sizes, no labels)"

    def identity(self) -> dict[str, JSON]:
        """Kind."""
        return identity_of(self)

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
            with path.open("rb") as stream:
                hint = size_hint(stream)
            yield Item(name, None, f"{path.stat().st_size}-{release}", hint)

    def read(self, items: Sequence[Item]) -> Iterator[Content]:
        """Yield the bytes of the files.

        Raises:
            DatasetNotFound: where scikit-image is not installed.
        """
        folder = _folder()
        for item in items:
            yield read_file(folder / item.name)


def _folder() -> Path:
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise DatasetNotFound("builtin:photos: expected the package scikit-image, got none")
    return Path(spec.origin).parent / "data"
