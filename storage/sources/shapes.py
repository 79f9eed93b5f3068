"""A procedural set of ten coloured shapes, the same everywhere and of any count."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from storage.errors import SourceError
from storage.sources.items import JSON, Content, Item, identity_of, require_count, require_text

Plane = NDArray[np.float64]

SIDE = 32
GENERATOR = 1
"""Version of the pictures; it changes with any pixel of any of them."""

_MEAN = (SIDE - 1) / 2
_Y, _X = (axis.astype(np.float64) for axis in np.mgrid[0:SIDE, 0:SIDE])
_DRAWS = 64
_COUNTER = 7  # digits of an index in a name


@dataclass(frozen=True)
class Shapes:
    """Coloured shapes on a shaded ground, 32 x 32, ten classes in equal shares.

    Image ``index`` is drawn from SHAKE-256 of seed, split and index alone, with arithmetic that is
    exact by standard, so that it is the same in any order and on any machine. Colours, place,
    size and rotation are random; the ground has a gradient, and a small blob and noise disturb.

    Args:
        count: number of images, 0 or more; the first ones do not depend on it.
        seed: another seed gives other images.
        split: another split gives other images; any word will do.
    """

    kind: ClassVar[str] = "builtin:shapes"
    doc: ClassVar[str] = "ten classes of coloured shapes, 32 x 32, drawn on demand"

    count: int = 1000
    seed: int = 0
    split: str = "test"

    def __post_init__(self) -> None:
        """Check the options."""
        require_count("count", self.count)
        require_count("seed", self.seed)
        require_text("split", self.split, least=1)

    def identity(self) -> dict[str, JSON]:
        """Kind, options and the generator's version."""
        return {**identity_of(self), "generator": GENERATOR}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the ten shapes."""
        return tuple(_SHAPES)

    def items(self) -> Iterator[Item]:
        """List the images by index; label ``i % 10``, stamp the generator's version."""
        for index in range(self.count):
            name = f"{self.split}/{index:0{_COUNTER}d}"
            yield Item(name, index % len(_SHAPES), f"generator-{GENERATOR}", 3 * SIDE * SIDE)

    def read(self, items: Sequence[Item]) -> Iterator[Content]:
        """Draw the images: uint8 arrays (32, 32, 3)."""
        for item in items:
            split, _, index = item.name.rpartition("/")
            if split != self.split or not index.isdigit() or int(index) >= self.count:
                yield SourceError(f"expected one of {self.count} of {self.split}")
            else:
                yield draw(self.seed, self.split, int(index))


def draw(seed: int, split: str, index: int) -> NDArray[np.uint8]:
    """Draw one image.

    Args:
        seed: 0 or more.
        split: any word.
        index: 0 or more; the shape is number ``index % 10``.

    Returns:
        uint8 array (32, 32, 3).
    """
    noise_bytes = 2 * 3 * SIDE * SIDE
    stream = hashlib.shake_256(f"shapes {GENERATOR} {seed} {split} {index}".encode())
    data = stream.digest(4 * _DRAWS + noise_bytes)
    draws = iter((np.frombuffer(data, "<u4", _DRAWS) / 2.0**32).tolist())

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(next(draws))

    ground = np.array([uniform(30, 225) for _ in range(3)])
    slope = np.array([uniform(-60, 60) for _ in range(3)])
    ink = np.array([uniform(0, 255) for _ in range(3)])
    contrast = float(np.abs(ink - ground).sum())
    least = uniform(50, 200)
    if contrast < least:  # push the ink away from the ground
        ink = np.where(ground < 127.5, ground + least / 3, ground - least / 3)
    blob_ink = np.array([uniform(0, 255) for _ in range(3)])

    ramp = _turned(0.0, 0.0, uniform(0, 2 * math.pi))[0] / SIDE
    image = ground + ramp[..., None] * slope
    size = uniform(5.5, 12.0)
    room = max(_MEAN - size, 0.0)
    x, y = _turned(uniform(-room, room), uniform(-room, room), uniform(0, 2 * math.pi))
    shape = list(_SHAPES.values())[index % len(_SHAPES)]
    image = _paint(image, shape(x, y, size), ink)
    x, y = _turned(uniform(-_MEAN, _MEAN), uniform(-_MEAN, _MEAN), uniform(0, 2 * math.pi))
    image = _paint(image, _diamond(x, y, uniform(1.0, 4.0)), blob_ink)

    pairs = np.frombuffer(data, np.uint8, noise_bytes, 4 * _DRAWS).astype(np.float64)
    triangular = (pairs[0::2] - pairs[1::2]).reshape(SIDE, SIDE, 3) / 255.0
    image = image + uniform(10, 60) * triangular
    return np.clip(np.floor(image + 0.5), 0, 255).astype(np.uint8)


def _turned(x: float, y: float, angle: float) -> tuple[Plane, Plane]:
    """Coordinates about a point (x, y) off the centre, turned; pixels."""
    # rounded, because sine and cosine may differ in the last place between machines
    cosine, sine = round(math.cos(angle), 6), round(math.sin(angle), 6)
    right, down = _X - _MEAN - x, _Y - _MEAN - y
    return cosine * right + sine * down, cosine * down - sine * right


def _paint(image: Plane, distance: Plane, ink: Plane) -> Plane:
    """Lay ink where the signed distance (pixels) is negative, with a soft edge of one pixel."""
    cover = np.clip(0.5 - distance, 0.0, 1.0)[..., None]
    return image * (1.0 - cover) + ink * cover


def _length(x: Plane, y: Plane) -> Plane:
    return np.sqrt(x * x + y * y)


def _circle(x: Plane, y: Plane, r: float) -> Plane:
    return _length(x, y) - 0.85 * r


def _square(x: Plane, y: Plane, r: float) -> Plane:
    return np.maximum(np.abs(x), np.abs(y)) - 0.75 * r


def _triangle(x: Plane, y: Plane, r: float) -> Plane:
    side = 0.8660254 * np.abs(x) + 0.5 * y
    return np.maximum(side, -y) - 0.5 * r


def _cross(x: Plane, y: Plane, r: float) -> Plane:
    across, down = np.abs(x), np.abs(y)
    lying = np.maximum(across - r, down - 0.3 * r)
    return np.minimum(lying, np.maximum(across - 0.3 * r, down - r))


def _ring(x: Plane, y: Plane, r: float) -> Plane:
    return np.abs(_length(x, y) - 0.72 * r) - 0.2 * r


def _star(x: Plane, y: Plane, r: float) -> Plane:
    """Five points: the plane is folded onto one of them."""
    x = np.abs(x)
    for kx, ky in ((0.80901699, -0.58778525), (-0.80901699, -0.58778525)):
        fold = 2.0 * np.maximum(kx * x + ky * y, 0.0)
        x, y = x - fold * kx, y - fold * ky
    x, y = np.abs(x), y - r
    bx, by = 0.42 * 0.58778525, 0.42 * 0.80901699 - 1.0
    along = np.clip((x * bx + y * by) / (bx * bx + by * by), 0.0, r)
    return _length(x - bx * along, y - by * along) * np.sign(y * bx - x * by)


def _diamond(x: Plane, y: Plane, r: float) -> Plane:
    return (0.5 * np.abs(x) + np.abs(y) - 0.5 * r) / 1.1180340


def _crescent(x: Plane, y: Plane, r: float) -> Plane:
    return np.maximum(_length(x, y) - 0.9 * r, 0.75 * r - _length(x - 0.5 * r, y))


def _wave(x: Plane, period: float) -> Plane:
    """Distance to stripes of half a period's width."""
    phase = x / period
    return (np.abs(phase - np.floor(phase) - 0.5) - 0.25) * period


def _stripes(x: Plane, y: Plane, r: float) -> Plane:
    return np.maximum(_length(x, y) - r, _wave(x, 2.5 + 0.25 * r))


def _checker(x: Plane, y: Plane, r: float) -> Plane:
    a, b = _wave(x, 3.0 + 0.4 * r), _wave(y, 3.0 + 0.4 * r)
    return np.maximum(_length(x, y) - r, np.maximum(np.minimum(a, b), -np.maximum(a, b)))


_SHAPES: dict[str, Callable[[Plane, Plane, float], Plane]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "ring": _ring,
    "star": _star,
    "diamond": _diamond,
    "crescent": _crescent,
    "stripes": _stripes,
    "checker": _checker,
}
