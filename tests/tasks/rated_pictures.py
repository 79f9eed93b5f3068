"""Pictures of known sharpness with opinions that follow from it, for trainings of seconds."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

Row = Sequence[Any]


def draw(folder: Path, count: int, side: int, seed: int = 0) -> list[tuple[str, float]]:
    """Write blurred textures ``000.png``, ...; the more blur, the lower the opinion.

    Returns:
        Name and opinion, from 1 to 5, of each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    opinions = []
    for number in range(count):
        severity = generator.uniform()
        texture = generator.normal(size=(side, side, 3))
        blurred = gaussian_filter(texture, (2.5 * severity + 0.3, 2.5 * severity + 0.3, 0))
        pixels = 128 + 45 * blurred / blurred.std()
        name = f"{number:03d}.png"
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / name)
        opinions.append((name, round(5 - 4 * severity, 3)))
    return opinions


def write_table(path: Path, rows: Iterable[Row], header: Row = ("image_name", "MOS")) -> Path:
    """Write a CSV file."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path
