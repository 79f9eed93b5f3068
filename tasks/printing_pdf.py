"""A patch as PDF: rectangles in exact device RGB, crop marks, a ruler and a colour chart."""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterable
from typing import Any

import numpy as np

from tasks.errors import SpecError
from tasks.printing_artefact import MM, Printable
from tasks.printing_layout import (
    BORDER,
    GAP,
    GREYS,
    HEADING,
    LARGEST_PITCH,
    MARGIN,
    NARROWEST,
    ROW,
    SPACE,
    SWATCH,
    Chart,
    Layout,
    arrange,
)

POINTS = 72 / MM
"""Points of a millimetre."""
MOST_COLOURS = 100
"""Swatches of a patch's own colours; of more, so many are chosen evenly from dark to light."""
REGULAR, BOLD = "Vera", "VeraBd"
"""Fonts that come with reportlab; they are embedded, as printers' shops want it."""
INK, FAINT = 0.13, 0.45
HAIRLINE = 0.25
"""Width of marks in points."""
SEAM = 0.5
"""Width in points of what lies beneath the edges of cells."""

PALE = 0.85
"""Swatches whose darkest channel is above this get an outline."""

Colour = tuple[float, ...]
Swatch = tuple[str, Colour]
Line = tuple[float, float, float, float, Colour]


def draw(
    patch: Printable, side: float, page: str, copies: int, *, chart: bool
) -> tuple[bytes, dict[str, Any]]:
    """Draw a patch.

    Args:
        patch: what to draw.
        side: of the square in millimetres.
        page: ``a4``, ``letter`` or ``fit``.
        copies: of the square.
        chart: whether there is a colour chart.

    Returns:
        The file, the same for the same arguments, and the facts about it.

    Raises:
        SpecError: where it does not fit on the page, or reportlab is not installed.
    """
    swatches = _swatches(patch)
    layout = arrange(side, page, copies, patch.grid, len(swatches) if chart else None)
    sheet = _Sheet(layout.size, f"{patch.name}, {side:g} mm")
    for number, spots in enumerate(layout.pages):
        for left, top in spots:
            _square(sheet, patch, left, top, side)
        _foot(sheet, patch, layout, layout.foot(number))
        if layout.chart is not None and not layout.chart_apart and spots is layout.pages[-1]:
            _chart(sheet, patch, layout.chart, layout.chart_top, swatches)
        sheet.turn()
    if layout.chart is not None and layout.chart_apart:
        _chart(sheet, patch, layout.chart, layout.chart_top, swatches)
        sheet.turn()
    facts = {
        "size_mm": side,
        "page": page,
        "page_mm": list(layout.size),
        "pages": len(layout.pages) + layout.chart_apart,
        "copies": copies,
        "colours": len(swatches) if chart else 0,
    }
    return sheet.finish(), facts


class _Sheet:
    """A PDF in millimetres from the upper left, with colours as exact as single precision is."""

    def __init__(self, size: tuple[float, float], title: str) -> None:
        try:
            canvas = importlib.import_module("reportlab.pdfgen.canvas")
            self._fonts = importlib.import_module("reportlab.pdfbase.pdfmetrics")
            fonts = importlib.import_module("reportlab.pdfbase.ttfonts")
        except ImportError as error:
            raise SpecError(
                f"print-patch: a PDF needs the package reportlab: {error}; "
                "pip install 'image-defender[print]'"
            ) from None
        for name in (REGULAR, BOLD):
            self._fonts.registerFont(fonts.TTFont(name, f"{name}.ttf"))
        self._height = size[1]
        self._sink = io.BytesIO()
        points = (size[0] * POINTS, size[1] * POINTS)
        self._canvas = canvas.Canvas(self._sink, points, pageCompression=1, invariant=1)
        self._canvas.setTitle(title)
        self._canvas.setCreator("image-defender")
        # a viewer's print dialogue is to begin with actual size, not with fit to page
        self._canvas.setViewerPreference("PrintScaling", "None")

    def _down(self, top: float) -> float:
        return (self._height - top) * POINTS

    def rectangles(self, many: Iterable[tuple[float, float, float, float, Colour]]) -> None:
        """Fill rectangles (left, top, width, height, colour)."""
        self._literal(
            f"{_words(*colour, digits=None)} rg {_words(left * POINTS, self._down(top + height))} "
            f"{_words(width * POINTS, height * POINTS)} re f"
            for left, top, width, height, colour in many
        )

    def lines(
        self,
        many: Iterable[Line],
        thick: float = HAIRLINE,
    ) -> None:
        """Draw lines (from x, from y, to x, to y, colour), so many points thick, ends cut off."""
        drawn = (
            f"{_words(*colour, digits=None)} RG {_words(x * POINTS, self._down(y))} m "
            f"{_words(to_x * POINTS, self._down(to_y))} l S"
            for x, y, to_x, to_y, colour in many
        )
        self._literal([f"0 J {_words(thick)} w", *drawn])

    def _literal(self, operations: Iterable[str]) -> None:
        self._canvas.addLiteral("\n".join(["q", *operations, "Q"]))

    def text(
        self,
        left: float,
        baseline: float,
        words: str,
        size: float,
        *,
        bold: bool = False,
        ink: float = INK,
        room: float | None = None,
        centred: bool = False,
    ) -> None:
        """Write a line, smaller where it is wider than its room; centred: about ``left``."""
        font = BOLD if bold else REGULAR
        known = self._fonts.getFont(font).face.charToGlyph
        words = "".join(letter if ord(letter) in known else "?" for letter in words)
        wide = self._fonts.stringWidth(words, font, size)
        if room is not None and wide > room * POINTS:
            size *= room * POINTS / wide
        self._canvas.setFillColorRGB(ink, ink, ink)
        self._canvas.setFont(font, size)
        write = self._canvas.drawCentredString if centred else self._canvas.drawString
        write(left * POINTS, self._down(baseline), words)

    def turn(self) -> None:
        """End a page."""
        self._canvas.showPage()

    def finish(self) -> bytes:
        """The file."""
        self._canvas.save()
        return self._sink.getvalue()


def _words(*numbers: float, digits: int | None = 6) -> str:
    """Numbers as PDF spells them, never with an exponent; no digits: all that there are."""
    return " ".join(
        np.format_float_positional(
            np.float32(number) if digits is None else number, precision=digits, trim="-"
        )
        for number in numbers
    )


def _square(sheet: _Sheet, patch: Printable, left: float, top: float, side: float) -> None:
    """The patch itself, its crop marks, and which side is up."""
    grid = patch.grid
    at = [side * i / grid for i in range(grid + 1)]
    cells = [
        (left + at[j], top + at[i], side / grid, side / grid, _colour(patch.colours[i, j]))
        for i in range(grid)
        for j in range(grid)
    ]
    # Two neighbours that each cover a part of a device pixel let the paper shine through, as a
    # light line on screens. A line in the colour of one of them, beneath both, closes the gap.
    beneath = []
    for number, (x, y, across, down, colour) in enumerate(cells):
        if (number + 1) % grid:
            beneath.append((x + across, y, x + across, y + down, colour))
        if number + grid < grid * grid:
            beneath.append((x, y + down, x + across, y + down, colour))
    sheet.lines(beneath, thick=min(SEAM, side / grid * POINTS / 4))
    sheet.rectangles(cells)
    near, far, black = GAP, BORDER, (0.0, 0.0, 0.0)
    marks = []
    for edge in (0.0, side):
        for start, end in ((-far, -near), (side + near, side + far)):
            marks.append((left + start, top + edge, left + end, top + edge, black))
            marks.append((left + edge, top + start, left + edge, top + end, black))
    sheet.lines(marks)
    sheet.text(left + side / 2, top - GAP, "top", 5, ink=FAINT, centred=True)


def _colour(values: Iterable[Any]) -> Colour:
    return tuple(float(value) for value in values)


def _foot(sheet: _Sheet, patch: Printable, layout: Layout, top: float) -> None:
    """A ruler to check the print with, and what was printed."""
    left, side = MARGIN, layout.side
    if layout.size[0] < NARROWEST + 2 * MARGIN:
        raise ValueError(f"layout: expected {NARROWEST} mm for the ruler, got {layout.size}")
    ruler = top + 8.0
    ink = (INK, INK, INK)
    ticks = [(left, ruler, left + NARROWEST, ruler, ink)]
    for number in range(round(NARROWEST) + 1):
        long = 3.0 if number % 10 == 0 else 2.0 if number % 5 == 0 else 1.2
        ticks.append((left + number, ruler, left + number, ruler - long, ink))
    sheet.lines(ticks)
    for number in range(round(NARROWEST) // 10 + 1):
        sheet.text(left + 10 * number, ruler + 2.8, str(number), 6, ink=FAINT, centred=True)
    sheet.text(left + NARROWEST + 2.0, ruler + 2.8, "cm", 6, ink=FAINT)
    cell = side / patch.grid
    notes = [
        (patch.name, 9.0, True),
        (
            f"{side:g} \u00d7 {side:g} mm, {patch.grid} \u00d7 {patch.grid} cells of {cell:.4g} mm",
            7.0,
            False,
        ),
        ("Print at 100 %, no colour correction. The ruler is 10 cm long on paper.", 7.0, False),
        (f"theta {patch.digest}", 5.5, False),
    ]
    baseline = ruler + 9.0
    for words, size, bold in notes:
        room = layout.size[0] - 2 * MARGIN
        sheet.text(left, baseline, words, size, bold=bold, room=room)
        baseline += 4.4


def _swatches(patch: Printable) -> list[Swatch]:
    """Different colours of a patch in reading order, by their 8-bit names; or some of very many."""
    named: dict[str, Colour] = {}
    cells = zip(patch.levels.reshape(-1, 3), patch.colours.reshape(-1, 3), strict=True)
    for levels, values in cells:
        named.setdefault(bytes(levels).hex(), _colour(values))
    listed = list(named.items())
    if len(listed) <= MOST_COLOURS:
        return listed
    listed.sort(key=lambda item: sum(item[1]))
    places = np.linspace(0, len(listed) - 1, MOST_COLOURS).round().astype(int)
    return [listed[place] for place in places]


def _chart(
    sheet: _Sheet, patch: Printable, chart: Chart, top: float, swatches: list[Swatch]
) -> None:
    """A grey wedge and the colours of the patch, each with its 8-bit values."""
    greys = [float(np.float32(i / (GREYS - 1))) for i in range(GREYS)]
    wedge: list[Swatch] = [(f"{round(255 * grey):02x}" * 3, (grey, grey, grey)) for grey in greys]
    pitch = min(chart.width / GREYS, LARGEST_PITCH)
    _title(sheet, chart, "Grey wedge", top)
    _rows(sheet, wedge, top + HEADING, GREYS, pitch, pitch)
    different = len(np.unique(patch.levels.reshape(-1, 3), axis=0))
    shown = f"{len(swatches)}" if len(swatches) == different else f"{len(swatches)} of {different}"
    top += HEADING + ROW
    _title(sheet, chart, f"Colours of {patch.name}, device RGB ({shown})", top)
    _rows(sheet, swatches, top + HEADING, chart.columns, chart.pitch, chart.pitch - SPACE)


def _title(sheet: _Sheet, chart: Chart, words: str, top: float) -> None:
    sheet.text(MARGIN, top + HEADING - 2.0, words, 7, bold=True, room=chart.width)


def _rows(
    sheet: _Sheet,
    swatches: list[Swatch],
    top: float,
    columns: int,
    pitch: float,
    width: float,
) -> None:
    """Swatches in rows, each of this width, with their names beneath."""
    places = [
        (MARGIN + (i % columns) * pitch, top + (i // columns) * ROW) for i in range(len(swatches))
    ]
    sheet.rectangles(
        (left, y, width, SWATCH, colour)
        for (left, y), (_, colour) in zip(places, swatches, strict=True)
    )
    for (left, y), (name, colour) in zip(places, swatches, strict=True):
        if min(colour) > PALE:
            sheet.lines(_outline(left, y, width, SWATCH))
        middle = left + width / 2
        sheet.text(middle, y + SWATCH + 2.4, f"#{name}", 5.5, room=width - 0.6, centred=True)


def _outline(left: float, top: float, width: float, height: float) -> list[Line]:
    """Where a swatch ends that is nearly as light as paper."""
    right, bottom, edge = left + width, top + height, (0.6, 0.6, 0.6)
    return [
        (left, top, right, top, edge),
        (left, bottom, right, bottom, edge),
        (left, top, left, bottom, edge),
        (right, top, right, bottom, edge),
    ]
