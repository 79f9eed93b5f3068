"""Patches that are printed, and an independent reader of what comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from tasks.printing import PrintRequest, print_patch

pypdf = pytest.importorskip("pypdf")
pdfium = pytest.importorskip("pypdfium2")
pytest.importorskip("reportlab")

MM = 25.4 / 72
CLOSE = 1e-4
"""Millimetres that numbers with six digits may be off."""


def theta_of(channels: int, grid: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(channels, grid, grid, generator=torch.Generator().manual_seed(seed))


def saved(folder: Path, theta: torch.Tensor, name: str = "theta") -> Path:
    path = folder / f"{name}.safetensors"
    save_file({"values": theta.contiguous()}, path)
    return path


def printed(folder: Path, theta: torch.Tensor, name: str = "patch.pdf", **options: Any) -> Any:
    options = {"size_cm": 10.0, **options}
    out = folder / name
    return out, print_patch(PrintRequest(saved(folder, theta), out, **options))


class Box(NamedTuple):
    """A filled rectangle in millimetres from the upper left of its page."""

    left: float
    top: float
    width: float
    height: float
    colour: tuple[float, ...]


class Line(NamedTuple):
    """A stroke in millimetres from the upper left of its page."""

    left: float
    top: float
    right: float
    bottom: float
    colour: tuple[float, ...]


class Page(NamedTuple):
    """What an independent reader finds on a page."""

    size: tuple[float, float]
    boxes: list[Box]
    lines: list[Line]
    text: str


def pages_of(path: Path) -> list[Page]:
    return [_page(page) for page in pypdf.PdfReader(path).pages]


def _page(page: Any) -> Page:
    width, height = (float(side) * MM for side in page.mediabox[2:])
    boxes: list[Box] = []
    lines: list[Line] = []
    fill = stroke = (0.0, 0.0, 0.0)
    waiting: list[tuple[float, ...]] = []
    start = end = (0.0, 0.0)
    kept: list[Any] = []
    for operands, operator in page.get_contents().operations:
        if operator in (b"cm", b"gs"):
            assert list(map(float, operands)) == [1, 0, 0, 1, 0, 0], "nothing may be rescaled"
        numbers = tuple(float(n) for n in operands if isinstance(n, int | float))
        if operator == b"q":
            kept.append((fill, stroke))
        elif operator == b"Q":
            fill, stroke = kept.pop()
        elif operator == b"rg":
            fill = numbers  # type: ignore[assignment]
        elif operator == b"RG":
            stroke = numbers  # type: ignore[assignment]
        elif operator == b"re":
            waiting.append(numbers)
        elif operator == b"m":
            start = numbers  # type: ignore[assignment]
        elif operator == b"l":
            end = numbers  # type: ignore[assignment]
        elif operator == b"f":
            for x, y, across, up in waiting:
                place = (x * MM, height - (y + up) * MM, across * MM, up * MM)
                boxes.append(Box(*place, fill))
            waiting = []
        elif operator == b"S":
            across = sorted((start[0] * MM, end[0] * MM))
            down = sorted((height - start[1] * MM, height - end[1] * MM))
            lines.append(Line(across[0], down[0], across[1], down[1], stroke))
    assert not waiting
    assert not kept
    return Page((width, height), boxes, lines, page.extract_text())


def cells_of(page: Page, side: float, grid: int) -> list[Box]:
    """Boxes that are as large as cells."""
    cell = side / grid
    return [
        box for box in page.boxes if abs(box.width - cell) < 0.01 and abs(box.height - cell) < 0.01
    ]


def rendered(path: Path, dpi: float, page: int = 0) -> NDArray[np.uint8]:
    document = pdfium.PdfDocument(path)
    try:
        return document[page].render(scale=dpi / 72).to_numpy()[..., ::-1].copy()
    finally:
        document.close()
