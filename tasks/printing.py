"""Adversarial patches on paper: a fitted patch as a PDF or PNG of a stated physical size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.files import write_atomic
from tasks.errors import SpecError
from tasks.printing_artefact import Printable, load_patch
from tasks.printing_pdf import draw
from tasks.printing_png import paint

PAGE = "a4"
"""Page of a PDF where none is stated."""


@dataclass(frozen=True)
class PrintRequest:
    """What is to be printed, and how.

    Args:
        artefact: file of the patch, or a folder that holds one such file.
        out: ``.pdf`` or ``.png``; replaced where it is there.
        size_cm: side of the square in centimetres.
        dpi: pixels an inch of a PNG, about: a cell is a whole number of pixels.
        page: ``a4``, ``letter`` or ``fit`` for a PDF, None for ``a4``.
        copies: of the square in a PDF.
        chart: whether a PDF has a colour chart.
        marks: whether a PNG has crop marks; a PDF always has.

    Raises:
        SpecError: for a value out of range, or one that does not go with the suffix.
    """

    artefact: Path
    out: Path
    size_cm: float
    dpi: float = 300.0
    page: str | None = None
    copies: int = 1
    chart: bool = True
    marks: bool = False

    def __post_init__(self) -> None:
        for option, value in (("--size-cm", self.size_cm), ("--dpi", self.dpi)):
            if not (math.isfinite(value) and value > 0):
                raise SpecError(f"{option}: expected a number above 0, got {value:g}")
        if self.copies < 1:
            raise SpecError(f"--copies: expected 1 or more, got {self.copies}")
        if self.kind not in ("pdf", "png"):
            raise SpecError(f"--out: expected a name that ends in .pdf or .png, got {self.out}")
        if self.kind == "png" and (self.page is not None or self.copies > 1):
            raise SpecError("--out: a PNG is one patch without a page; take .pdf for those")

    @property
    def kind(self) -> str:
        """``pdf`` or ``png``."""
        return self.out.suffix.lower().removeprefix(".")

    @property
    def side(self) -> float:
        """Side of the square in millimetres."""
        return 10.0 * self.size_cm


def print_patch(request: PrintRequest) -> dict[str, Any]:
    """Write a patch for the printer.

    Returns:
        What was written: ``out``, ``artefact``, ``digest``, ``grid``, ``size_mm`` as it comes
        out, ``cell_mm``, and for a PDF ``page``, ``page_mm``, ``pages``, ``copies`` and
        ``colours`` of the chart, for a PNG ``pixels``, ``cell_pixels`` and ``dpi``.

    Raises:
        ModelError: naming the file, where it is no patch.
        SpecError: where it cannot be printed so.
        StoreError: where it cannot be written.
    """
    path, patch = load_patch(request.artefact)
    printable = Printable.of(path.name, patch)
    if request.kind == "pdf":
        data, facts = draw(
            printable, request.side, request.page or PAGE, request.copies, chart=request.chart
        )
    else:
        data, facts = paint(printable, request.side, request.dpi, marks=request.marks)
    write_atomic(request.out, data)
    return {
        "out": str(request.out),
        "artefact": str(path),
        "digest": patch.digest,
        "grid": printable.grid,
        "cell_mm": facts["size_mm"] / printable.grid,
        **facts,
    }
