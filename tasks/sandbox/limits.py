"""What a defence from a file may use."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of one sandboxed defence.

    Args:
        seconds_per_image: wall-clock time for an image; a batch of n has n times as long.
        start_seconds: wall-clock time to import torch, load the file and make the ``Defense``.
        memory_bytes: resident memory of all its processes together, torch itself (about 0.3 GB)
            and the exchanged images included.
        parameters: parameters of the networks it holds, or None for any number.
        processes: processes and threads at a time.
        file_bytes: size of any file it writes, and of its private ``/tmp``.
        pixels: largest answer, in pixels an image; four times the input's where that is more.
    """

    seconds_per_image: float = 10.0
    start_seconds: float = 60.0
    memory_bytes: int = 4 << 30
    parameters: int | None = None
    processes: int = 64
    file_bytes: int = 64 << 20
    pixels: int = 1 << 20

    def __post_init__(self) -> None:
        for name in ("seconds_per_image", "start_seconds"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
                raise ValueError(f"{name}: expected a number of seconds above 0, got {value!r}")
        for name in ("memory_bytes", "processes", "file_bytes", "pixels"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}: expected a whole number of at least 1, got {value!r}")
        value = self.parameters
        if value is not None and (
            not isinstance(value, int) or isinstance(value, bool) or value < 0
        ):
            raise ValueError(
                f"parameters: expected a whole number of at least 0, or None, got {value!r}"
            )

    def pixels_out(self, height: int, width: int) -> int:
        """Largest answer in pixels for an image of this size."""
        return max(self.pixels, 4 * height * width)
