"""A patch as PNG: every cell a square of so many pixels, and the size in the file."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from tasks.errors import SpecError
from tasks.printing_artefact import MM, Printable
from tasks.printing_layout import BORDER, GAP

MOST_PIXELS = 1 << 28
HAIRLINE = 0.1
"""Width of a crop mark in millimetres."""
METRE = 1000


def paint(
    patch: Printable, side: float, dpi: float, *, marks: bool
) -> tuple[bytes, dict[str, Any]]:
    """Paint a patch.

    A cell has a whole number of pixels; the density that the file states is what makes the
    square as large as was asked for, to the whole pixels a metre that PNG can state.

    Args:
        patch: what to paint.
        side: of the square in millimetres.
        dpi: wanted pixels an inch.
        marks: white paper around the square, with crop marks.

    Returns:
        The file, and the facts about it.

    Raises:
        SpecError: where a cell would be less than a pixel, or the picture too large.
    """
    cell = round(side / MM * dpi / patch.grid)
    if cell < 1:
        least = patch.grid * MM / side
        raise SpecError(f"--dpi: expected {least:.0f} or more for a pixel a cell, got {dpi:g}")
    across = cell * patch.grid
    density = round(across / side * METRE)
    border = round(BORDER / METRE * density) if marks else 0
    if (across + 2 * border) ** 2 > MOST_PIXELS:
        raise SpecError(
            f"--dpi: expected at most {MOST_PIXELS:,} pixels, got {across + 2 * border:,} a side; "
            "a PDF has none and prints as sharp"
        )
    levels = patch.levels[..., :1] if patch.grey else patch.levels
    pixels = np.repeat(np.repeat(levels, cell, axis=0), cell, axis=1)
    if marks:
        pixels = _with_marks(pixels, border, density)
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", patch.name)
    text.add_text("Description", f"adversarial patch {patch.digest}, {side:g} mm x {side:g} mm")
    sink = io.BytesIO()
    stated = density * MM / METRE
    image = Image.fromarray(pixels[..., 0] if patch.grey else pixels)
    image.save(sink, "PNG", dpi=(stated, stated), pnginfo=text, optimize=True)
    return sink.getvalue(), {
        "size_mm": across / density * METRE,
        "pixels": across,
        "cell_pixels": cell,
        "dpi": stated,
        "border_pixels": border,
    }


def _with_marks(square: NDArray[np.uint8], border: int, density: int) -> NDArray[np.uint8]:
    """The square on white paper, with marks that end before it reaches them."""
    across = len(square)
    paper = np.full((across + 2 * border, across + 2 * border, square.shape[2]), 255, np.uint8)
    paper[border:-border, border:-border] = square
    length = max(1, border - max(1, round(GAP / METRE * density)))
    thick = max(1, round(HAIRLINE / METRE * density))
    for edge in (border, border + across):
        line = slice(edge - thick // 2, edge - thick // 2 + thick)
        for end in (slice(0, length), slice(-length, None)):
            paper[line, end] = 0
            paper[end, line] = 0
    return paper
