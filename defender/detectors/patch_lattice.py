"""Squares of flat cells in images: steps along a lattice, and nothing between its lines.

A printed grid patch is a square of G x G cells of k x k pixels with one colour each. Neighbouring
pixels inside a cell are equal, neighbours across a line of the lattice mostly are not. In anything
else the lines of a lattice are pixels like all others. Differences are gathered for every square
by integral images, one of them with the stride of the cells, so that a square costs eight lookups.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from defender.detectors.scoring import LEVELS
from defender.luma import luma

SCANNED = (4, 5, 6, 8, 10, 13, 16)
"""Cells along a side that are searched for everywhere; what lies between is found by refining."""

LEAST_CELL = 2
_STEP_OF_COLOUR, _NOISE_OF_COLOUR = 0.5, 0.25
"""What a difference of the most different channel counts beside one of luma, at lines and inside
cells. JPEG keeps colour at half the resolution, so it changes inside cells by more than luma."""


@dataclass(frozen=True)
class Evidence:
    """What counts for and against a square.

    Args:
        contrast: difference of neighbours from which on it counts fully, in 8-bit levels.
        least_step: share of that which the lines of a patch exceed on average.
        flatness: weight of what differs inside cells.
    """

    contrast: float
    least_step: float
    flatness: float


@dataclass(frozen=True)
class Square:
    """A square of cells.

    Args:
        score: its evidence.
        top: first row.
        left: first column.
        cell: side of a cell in pixels.
        cells: cells along a side.
    """

    score: float
    top: int
    left: int
    cell: int
    cells: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Top, left, height, width in pixels."""
        return self.top, self.left, self.cell * self.cells, self.cell * self.cells


def square_sizes(size: tuple[int, int], smallest: float, largest: float) -> list[tuple[int, int]]:
    """Pixels a cell and cells a side of the squares that are searched for.

    Args:
        size: height and width of the image.
        smallest: least side of a square as a share of the shorter side of the image.
        largest: greatest side of a square, as such a share.

    Returns:
        Pairs in order of the cells; none for an image that is too small.
    """
    shorter = min(size)
    return [
        (cell, cells)
        for cell in range(LEAST_CELL, int(largest * shorter) // SCANNED[0] + 1)
        for cells in SCANNED
        if smallest * shorter <= cell * cells <= largest * shorter
    ]


def strongest_square(
    image: Tensor, evidence: Evidence, smallest: float, largest: float
) -> Square | None:
    """The square that looks most like a printed grid.

    With e and i the differences of neighbours at lines and in general, as shares of ``contrast``
    and at most 1, the evidence of one direction is ``sum over pairs across lines of (e -
    least_step) - flatness / (k - 1) * sum over pairs inside cells of i``. That of a square is the
    lesser of both directions, doubled and divided by the root of the number of pairs across lines.
    The best square is refined on its own lattice, see :meth:`_Tables.refined`.

    Args:
        image: (c, h, w) in [0, 1], c 1 or 3.
        evidence: what counts.
        smallest: least side as a share of the shorter side of the image.
        largest: greatest side, as such a share.

    Returns:
        The square, or None where the image is too small for any.
    """
    sizes = square_sizes((image.shape[1], image.shape[2]), smallest, largest)
    if not sizes:
        return None
    tables = _Tables(image, evidence)
    scores = torch.stack([tables.everywhere(cell, cells).amax() for cell, cells in sizes])
    cell, cells = sizes[int(scores.argmax())]
    found = tables.everywhere(cell, cells)
    top, left = divmod(int(found.argmax()), found.shape[1])
    return tables.refined(Square(float(scores.max()), top, left, cell, cells), smallest, largest)


def _line_pairs(cell: int, cells: int) -> int:
    """Pairs of neighbours across the inner lines of a square, of both directions."""
    return 2 * (cells - 1) * cells * cell


class _Tables:
    """Integral images of one image: of its differences, and of them along lattices."""

    def __init__(self, image: Tensor, evidence: Evidence) -> None:
        self.evidence = evidence
        scaled = image[None].float() * (LEVELS / evidence.contrast)
        grey = luma(scaled)
        self.size = (image.shape[1], image.shape[2])
        self.steps, self.noise = [], []
        for axis in (2, 3):
            brightness = grey.diff(dim=axis).abs()[0, 0]
            colour = scaled.diff(dim=axis).abs().amax(dim=1)[0]
            self.steps.append(torch.maximum(brightness, _STEP_OF_COLOUR * colour).clamp_(max=1))
            self.noise.append(torch.maximum(brightness, _NOISE_OF_COLOUR * colour).clamp_(max=1))
        self.all_noise = [integral_image(noise) for noise in self.noise]
        self.cell, self.lines = 0, list[Tensor]()

    def along(self, cell: int) -> list[Tensor]:
        """Integral images of the evidence at lines, down and across, at the stride of the cells."""
        if self.cell != cell:
            weight, least = self._weight(cell), self.evidence.least_step
            self.lines = [
                _lattice_integral(step.add(noise, alpha=weight) - least, cell, axis)
                for axis, (step, noise) in enumerate(zip(self.steps, self.noise, strict=True))
            ]
            self.cell = cell
        return self.lines

    def _weight(self, cell: int) -> float:
        return self.evidence.flatness / (cell - 1)

    def everywhere(self, cell: int, cells: int) -> Tensor:
        """Scores of all squares of a size, by their first row and column."""
        side = cell * cells
        rows, columns = (slice(0, length - side + 1) for length in self.size)
        both = (self._evidence(axis, cell, rows, columns, (side, side)) for axis in (0, 1))
        return torch.minimum(*both) * (2 / math.sqrt(_line_pairs(cell, cells)))

    def _evidence(
        self, axis: int, cell: int, rows: Any, columns: Any, sides: tuple[int, int]
    ) -> Tensor:
        """Evidence of pairs along one axis in rectangles of whole cells.

        Args:
            axis: 0 for pairs of rows, 1 for pairs of columns.
            cell: side of the cells.
            rows: first rows, a slice or indices.
            columns: first columns, likewise.
            sides: height and width.
        """
        # a line lies between a pixel and the next one: the last pair ends inside the rectangle
        first, last = [0, 0], list(sides)
        last[axis] -= 1
        noise = _within(self.all_noise[axis], rows, columns, first, last)
        first[axis] = cell - 1
        lines = _within(self.along(cell)[axis], rows, columns, first, last)
        return lines.sub_(noise, alpha=self._weight(cell))

    def refined(self, square: Square, smallest: float, largest: float) -> Square:
        """The best square on the lattice of one that was found, around its centre.

        Rows of cells belong to the patch if pairs of columns in them show at least half of what
        they show in the found square on average, and columns of cells likewise by pairs of rows.
        The line between patch and surroundings, often the strongest, says nothing of either side.
        The square is that of the largest sum of the differences to that half. The score stays.
        """
        cell, cells = square.cell, square.cells
        sums = []
        for axis, start in enumerate((square.top, square.left)):
            bands = torch.arange(start % cell, self.size[axis] - cell + 1, cell)
            bands = bands.to(self.steps[0].device)
            rows, columns = (bands, square.left) if axis == 0 else (square.top, bands)
            sides = (cell, cell * cells) if axis == 0 else (cell * cells, cell)
            shown = self._evidence(1 - axis, cell, rows, columns, sides) / ((cells - 1) * cell)
            shown = shown.double().cpu() + self.evidence.least_step
            middle = shown[start // cell : start // cell + cells].mean() / 2
            sums.append(functional.pad((shown - middle).cumsum(0), (1, 0)))
        best, places = -math.inf, (square.top, square.left, cells)
        for wanted in range(SCANNED[0], SCANNED[-1] + 1):
            if not smallest * min(self.size) <= wanted * cell <= largest * min(self.size):
                continue
            found = [
                _best_run(total, start // cell + cells // 2, wanted)
                for total, start in zip(sums, (square.top, square.left), strict=True)
            ]
            if sum(value for value, _ in found) > best:
                best = sum(value for value, _ in found)
                top, left = (
                    start % cell + place * cell
                    for start, (_, place) in zip((square.top, square.left), found, strict=True)
                )
                places = top, left, wanted
        top, left, cells = places
        return Square(square.score, top, left, cell, cells)


def _best_run(sums: Tensor, middle: int, length: int) -> tuple[float, int]:
    """The largest sum over a run of places that holds the middle one, and its first place.

    Args:
        sums: cumulated sums (places + 1,), the first one 0.
        middle: a place.
        length: places of the run.
    """
    first = max(0, middle - length + 1)
    end = min(middle + 1, len(sums) - length)
    if first >= end:
        return -math.inf, 0
    values = sums[first + length : end + length] - sums[first:end]
    place = int(values.argmax())
    return float(values[place]), first + place


def _within(table: Tensor, rows: Any, columns: Any, first: list[int], last: list[int]) -> Tensor:
    """Sums over rectangles that begin ``first`` and end before ``last`` from rows and columns."""
    top, bottom = _moved(rows, first[0]), _moved(rows, last[0])
    left, right = _moved(columns, first[1]), _moved(columns, last[1])
    total = table[bottom, right] - table[bottom, left]
    return total.sub_(table[top, right]).add_(table[top, left])


def _moved(places: Any, by: int) -> Any:
    """Places further on."""
    if isinstance(places, slice):
        return slice(places.start + by, places.stop + by)
    return places + by


def integral_image(values: Tensor) -> Tensor:
    """Sums over what is above and left of each corner: (..., h, w) to (..., h + 1, w + 1)."""
    return functional.pad(values.cumsum(-2).cumsum(-1), (1, 0, 1, 0))


def _lattice_integral(values: Tensor, stride: int, axis: int) -> Tensor:
    """An integral image that takes steps of ``stride`` along one axis.

    Args:
        values: (h, w).
        stride: length of the steps, >= 1.
        axis: 0 or 1.

    Returns:
        For axis 1 (0 likewise) a table whose entry ``[y, x + stride]`` is the sum of
        ``values[r, x - j stride]`` over all rows r < y and all j >= 0.
    """
    height, width = values.shape
    if axis == 0:
        rows = -(-height // stride) + 1
        table = values.new_zeros(rows * stride, width + 1)
        table[stride : stride + height, 1:] = values.cumsum(1)
        return table.view(rows, stride * (width + 1)).cumsum(0).view(rows * stride, width + 1)
    columns = -(-width // stride) + 1
    table = values.new_zeros(height + 1, columns * stride)
    table[1:, stride : stride + width] = values.cumsum(0)
    return table.view(height + 1, columns, stride).cumsum(1).view(height + 1, columns * stride)
