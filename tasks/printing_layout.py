"""Where everything lies on the pages of a printed patch, in millimetres from the upper left."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tasks.errors import SpecError

PAGES = {"a4": (210.0, 297.0), "letter": (215.9, 279.4)}
"""Widths and heights in millimetres of pages that have a size of their own."""
FIT = "fit"
"""A page as large as what is on it."""
LONGEST = 5080.0
"""The longest side of a page that a PDF can state, 200 inches."""

MARGIN = 7.0
"""Edge of a page that printers may leave white."""
GAP, MARK = 2.0, 5.0
"""Distance of a crop mark from its square, and its length."""
BORDER = GAP + MARK
"""Room around a square for its marks."""
FOOT = 37.0
"""Height of ruler and words beneath the squares."""
NARROWEST = 100.0
"""Width that ruler and words need."""

SWATCH = 5.0
"""Height of a swatch of the colour chart."""
ROW = 9.0
"""Height of a swatch and the words beneath it."""
HEADING = 6.0
"""Height of a title above swatches."""
SPACE = 2.0
"""Room between swatches of a row."""
LEAST_PITCH, PITCH, LARGEST_PITCH = 14.0, 19.0, 22.0
"""From one swatch to the next: at least, as a rule, and at most."""
GREYS = 11
"""Swatches of the grey wedge, from black to white."""


@dataclass(frozen=True)
class Chart:
    """The swatches beneath a patch: a grey wedge, and the colours of the patch.

    Args:
        width: what it may cover across.
        grid: cells a side of the patch; the swatches stand as the cells do where there is room.
        colours: how many swatches besides the wedge.
    """

    width: float
    grid: int
    colours: int

    @property
    def columns(self) -> int:
        """Swatches of the patch in a row."""
        as_cells = self.grid * self.grid == self.colours and self.width / self.grid >= LEAST_PITCH
        return self.grid if as_cells else max(1, int(self.width / PITCH))

    @property
    def pitch(self) -> float:
        """From one swatch of the patch to the next."""
        return min((self.width + SPACE) / self.columns, LARGEST_PITCH)

    @property
    def height(self) -> float:
        """What it covers from top to bottom."""
        return 2 * HEADING + ROW * (1 + math.ceil(self.colours / self.columns))


@dataclass(frozen=True)
class Layout:
    """The pages of a print.

    Args:
        size: width and height of every page.
        side: of the square.
        pages: upper left corners of the squares on each page, as (left, top).
        chart: the colour chart, None for none.
        chart_apart: whether the chart has a page of its own, after the others.
    """

    size: tuple[float, float]
    side: float
    pages: tuple[tuple[tuple[float, float], ...], ...]
    chart: Chart | None
    chart_apart: bool

    def foot(self, page: int) -> float:
        """Where ruler and words of a page begin, from the top."""
        return max(top for _, top in self.pages[page]) + self.side + BORDER

    @property
    def chart_top(self) -> float:
        """Where the chart begins on its page, from the top."""
        return MARGIN if self.chart_apart else self.foot(-1) + FOOT


def arrange(side: float, page: str, copies: int, grid: int, colours: int | None) -> Layout:
    """Lay out a print: as many copies a page as fit, and the chart beneath the last ones.

    Args:
        side: of the square.
        page: a name of ``PAGES``, or ``fit`` for a page around one square.
        copies: of the square.
        grid: cells a side.
        colours: swatches of the patch, None for no chart.

    Raises:
        SpecError: where the square is larger than the page allows, with the largest that fits, or
            there is no such page.
    """
    if page == FIT:
        return _around(side, copies, grid, colours)
    if page not in PAGES:
        raise SpecError(f"--page: expected {', '.join(PAGES)} or {FIT}, got {page!r}")
    width, height = PAGES[page]
    across, down = width - 2 * MARGIN, height - 2 * MARGIN - FOOT
    _check_side(side, min(across, down) - 2 * BORDER, f"on {page}, or --page {FIT}")
    pitch = side + 2 * BORDER
    columns, rows = int(across / pitch + 1e-9), int(down / pitch + 1e-9)
    pages = []
    for first in range(0, copies, columns * rows):
        on_page = min(columns * rows, copies - first)
        used = min(columns, on_page)
        start = (width - used * pitch) / 2 + BORDER
        pages.append(
            tuple(
                (start + (i % columns) * pitch, MARGIN + BORDER + (i // columns) * pitch)
                for i in range(on_page)
            )
        )
    chart = None if colours is None else Chart(across, grid, colours)
    layout = Layout((width, height), side, tuple(pages), chart, False)
    if chart is not None and layout.chart_top + chart.height > height - MARGIN:
        return Layout((width, height), side, tuple(pages), chart, True)
    return layout


def _around(side: float, copies: int, grid: int, colours: int | None) -> Layout:
    """A page a copy, as large as it has to be."""
    across = max(side + 2 * BORDER, NARROWEST)
    chart = None if colours is None else Chart(across, grid, colours)
    beneath = FOOT + (0.0 if chart is None else chart.height)
    around = 2 * (MARGIN + BORDER)
    _check_side(side, LONGEST - around - beneath, "on the largest page of a PDF")
    size = (across + 2 * MARGIN, side + around + beneath)
    spot = ((size[0] - side) / 2, MARGIN + BORDER)
    return Layout(size, side, ((spot,),) * copies, chart, False)


def _check_side(side: float, largest: float, where: str) -> None:
    if side > largest + 1e-9:
        cm = math.floor(10 * largest) / 100
        raise SpecError(f"--size-cm: expected at most {cm:g} cm {where}, got {side / 10:g} cm")
