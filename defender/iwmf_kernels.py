"""The iterative window mean filter compiled with numba: the windows' places and their means.

`defender.iwmf_means` imports this where numba is installed. Machine code is kept on disk: beside
this file, or in the user's cache folder where that cannot be written, or nowhere. Numba looks for
changes in this file only, so all that it compiles is here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

_F = TypeVar("_F", bound=Callable[..., Any])

# those of defender.noise.mix; unsigned, because numba makes floats of int64 with uint64
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


def _compiled(function: _F) -> _F:
    """The function compiled at its first call; it lets other threads of Python run meanwhile."""
    try:
        # raises where there is no folder to keep the code in
        return cast("_F", njit(cache=True, nogil=True)(function))
    except RuntimeError:
        return cast("_F", njit(nogil=True)(function))


@_compiled
def _mix(word: np.uint64) -> np.uint64:
    """One step of SplitMix64, as ``defender.noise.mix``."""
    word = word + _GAMMA
    word = (word ^ (word >> np.uint64(30))) * _FIRST
    word = (word ^ (word >> np.uint64(27))) * _SECOND
    return word ^ (word >> np.uint64(31))


@_compiled
def _draw(
    keys: np.ndarray, rows: np.uint64, columns: np.uint64, width: np.uint64, corners: np.ndarray
) -> None:
    """Fill int32 ``corners`` (n, count) from uint64 ``keys`` (n,)."""
    for image in range(corners.shape[0]):
        first = _mix(keys[image])
        for number in range(corners.shape[1]):
            word = _mix(first + np.uint64(number) * _GAMMA)
            top = ((word >> _HALF) * rows) >> _HALF
            left = ((word & _LOW) * columns) >> _HALF
            corners[image, number] = np.int32(top * width + left)


@_compiled
def _replace(
    planes: np.ndarray, corners: np.ndarray, width: int, side: tuple[int, ...], area: np.floating
) -> None:
    """Replace blocks of ``planes`` (n, c, h * w) by their means, one window after the other."""
    # numba compiles once for each length of the tuple: the loops over a block are unrolled
    size = len(side)
    for image in range(planes.shape[0]):
        sequence = corners[image if corners.shape[0] > 1 else 0]
        for channel in range(planes.shape[1]):
            plane = planes[image, channel]
            for number in range(sequence.shape[0]):
                # unsigned: numba would otherwise ask of every index whether it is negative
                corner = np.uint64(sequence[number])
                total = plane[corner]
                for place in range(1, size * size):
                    total += plane[corner + np.uint64(place // size * width + place % size)]
                mean = total / area
                for row in range(size):
                    for column in range(size):
                        plane[corner + np.uint64(row * width + column)] = mean


def draw(keys: np.ndarray, count: int, size: tuple[int, int], window: int) -> np.ndarray:
    """Places of windows, bit by bit those of ``defender.iwmf_means.draw``.

    Args:
        keys: int64 (n,).
        count: windows an image.
        size: height and width of the images.
        window: side of the windows in pixels.

    Returns:
        int32 (n, count): ``top * width + left`` of each window.
    """
    corners = np.empty((len(keys), count), dtype=np.int32)
    rows, columns = (np.uint64(length - window // 2 * 2) for length in size)
    _draw(np.ascontiguousarray(keys).view(np.uint64), rows, columns, np.uint64(size[1]), corners)
    return corners


def replace(planes: np.ndarray, corners: np.ndarray, width: int, window: int) -> None:
    """Replace blocks by their means in place, one window after the other.

    Args:
        planes: float32 or float64 (n, c, h * w), contiguous.
        corners: int32 (n, count), or (1, count) for all images, contiguous; blocks inside.
        width: w.
        window: side of the blocks in pixels.
    """
    _replace(planes, corners, width, (0,) * window, planes.dtype.type(window * window))
