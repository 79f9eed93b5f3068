"""What is printed is measured back: sizes in millimetres, colours against theta."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tasks.errors import ModelError, SpecError
from tasks.printing import PrintRequest, print_patch
from tasks.printing_artefact import load_patch
from tasks.printing_layout import BORDER, FOOT, GAP, LONGEST, MARGIN, Chart, arrange
from tests.tasks.printed_pages import (
    CLOSE,
    Line,
    cells_of,
    pages_of,
    printed,
    pypdf,
    rendered,
    saved,
    theta_of,
)


@pytest.mark.parametrize(
    ("channels", "grid", "size_cm", "page"),
    [(3, 10, 10.0, "a4"), (1, 4, 4.2, "letter"), (3, 7, 3.33, "fit"), (3, 32, 18.2, "a4")],
)
def test_every_cell_has_its_place_size_and_colour(
    tmp_path: Path, channels: int, grid: int, size_cm: float, page: str
) -> None:
    theta = theta_of(channels, grid)
    out, facts = printed(tmp_path, theta, size_cm=size_cm, page=page)
    first = pages_of(out)[0]
    side = 10 * size_cm
    cells = cells_of(first, side, grid)
    assert len(cells) == grid * grid
    left, top = min(box.left for box in cells), min(box.top for box in cells)
    for number, box in enumerate(cells):
        row, column = divmod(number, grid)
        assert box.left == pytest.approx(left + column * side / grid, abs=CLOSE)
        assert box.top == pytest.approx(top + row * side / grid, abs=CLOSE)
        expected = theta[:, row, column].expand(3)
        assert torch.equal(torch.tensor(box.colour, dtype=torch.float32), expected)
    assert max(box.left + box.width for box in cells) - left == pytest.approx(side, abs=CLOSE)
    assert max(box.top + box.height for box in cells) - top == pytest.approx(side, abs=CLOSE)
    assert facts["size_mm"] == pytest.approx(side)
    assert first.size == pytest.approx(tuple(facts["page_mm"]), abs=1e-3)


@pytest.mark.parametrize(("page", "size"), [("a4", (210, 297)), ("letter", (215.9, 279.4))])
def test_pages_are_as_large_as_paper(tmp_path: Path, page: str, size: tuple[float, float]) -> None:
    out, _ = printed(tmp_path, theta_of(3, 4), page=page)
    assert pages_of(out)[0].size == pytest.approx(size, abs=1e-3)


def test_dark_colours_are_written_without_exponents(tmp_path: Path) -> None:
    theta = torch.tensor([[1e-7, 1.0], [3e-5, 0.0]]).expand(3, 2, 2)
    out, _ = printed(tmp_path, theta, chart=False)
    (page,) = pages_of(out)
    got = [box.colour[0] for box in cells_of(page, 100, 2)]
    assert torch.equal(torch.tensor(got), theta[0].flatten())


def inside(line: Line, left: float, top: float, side: float) -> bool:
    return (
        line.right > left + CLOSE
        and line.left < left + side - CLOSE
        and line.bottom > top + CLOSE
        and line.top < top + side - CLOSE
    )


def test_crop_marks_stay_outside_and_point_at_the_edges(tmp_path: Path) -> None:
    out, _ = printed(tmp_path, theta_of(3, 5), chart=False)
    (page,) = pages_of(out)
    cells = cells_of(page, 100, 5)
    left, top = cells[0].left, cells[0].top
    black = [line for line in page.lines if line.colour == (0, 0, 0)]
    assert len(black) == 8
    assert not any(inside(line, left, top, 100) for line in black)
    for line in black:
        if line.left == line.right:
            assert min(abs(line.left - edge) for edge in (left, left + 100)) < CLOSE
            distance = min(abs(line.bottom - top), abs(line.top - top - 100))
        else:
            assert min(abs(line.top - edge) for edge in (top, top + 100)) < CLOSE
            distance = min(abs(line.right - left), abs(line.left - left - 100))
        assert distance == pytest.approx(GAP, abs=CLOSE)


def test_other_lines_in_the_square_lie_beneath_the_cells(tmp_path: Path) -> None:
    out, _ = printed(tmp_path, theta_of(3, 3), chart=False)
    (page,) = pypdf.PdfReader(out).pages
    names = [operator for _, operator in page.get_contents().operations]
    parsed = pages_of(out)[0]
    cells = cells_of(parsed, 100, 3)
    within = [line for line in parsed.lines if inside(line, cells[0].left, cells[0].top, 100)]
    assert len(within) == 2 * 3 * 2
    first_cell = names.index(b"re")
    assert names[:first_cell].count(b"S") == len(within)


@pytest.mark.parametrize("dpi", [72.0, 97.3, 150.0])
def test_no_paper_shines_through_between_cells(tmp_path: Path, dpi: float) -> None:
    out, facts = printed(tmp_path, torch.zeros(3, 9, 9), chart=False, page="fit", size_cm=7.0)
    left = (facts["page_mm"][0] - 70) / 2
    pixels = rendered(out, dpi)
    scale = dpi / 25.4
    rows = slice(int((MARGIN + BORDER) * scale) + 2, int((MARGIN + BORDER + 70) * scale) - 2)
    columns = slice(int(left * scale) + 2, int((left + 70) * scale) - 2)
    assert pixels[rows, columns].max() == 0


def test_rendered_cells_have_the_colours_of_theta(tmp_path: Path) -> None:
    theta = theta_of(3, 10)
    out, _ = printed(tmp_path, theta)
    cells = cells_of(pages_of(out)[0], 100, 10)
    pixels = rendered(out, 100)
    middle = [
        pixels[
            int((box.top + box.height / 2) / 25.4 * 100),
            int((box.left + box.width / 2) / 25.4 * 100),
        ]
        for box in cells
    ]
    expected = (255 * theta).permute(1, 2, 0).reshape(-1, 3).numpy()
    # the renderer cuts where it may round
    assert np.abs(np.array(middle, dtype=np.float64) - expected).max() <= 1.0


def test_copies_fill_pages_and_do_not_touch(tmp_path: Path) -> None:
    out, facts = printed(tmp_path, theta_of(3, 4), size_cm=4.0, copies=14)
    pages = pages_of(out)
    counts = [len(cells_of(page, 40, 4)) // 16 for page in pages]
    # 196 mm across and 246 mm down hold 3 and 4 squares of 54 mm with their marks
    assert counts == [12, 2]
    assert facts["pages"] == 2
    corners = [(box.left, box.top) for box in cells_of(pages[0], 40, 4)[::16]]
    assert sorted({round(x, 3) for x, _ in corners}) == [31.0, 85.0, 139.0]
    assert sorted({round(y, 3) for _, y in corners}) == [14.0, 68.0, 122.0, 176.0]


def test_the_chart_names_every_colour_and_a_grey_wedge(tmp_path: Path) -> None:
    theta = theta_of(3, 4)
    out, facts = printed(tmp_path, theta)
    (page,) = pages_of(out)
    swatches = [box for box in page.boxes if box.height == pytest.approx(5.0, abs=CLOSE)]
    levels = (255 * theta).round().to(torch.uint8).permute(1, 2, 0).reshape(-1, 3)
    names = ["#" + bytes(row.tolist()).hex() for row in levels]
    assert facts["colours"] == len(set(names)) == 16
    greys = [f"#{level:02x}{level:02x}{level:02x}" for level in (0, 51, 102, 153, 204, 255)]
    assert all(name in page.text for name in names + greys)
    found = [tuple(round(255 * part) for part in box.colour) for box in swatches]
    assert found[11:] == [tuple(row.tolist()) for row in levels]
    assert found[:11] == [(g, g, g) for g in (0, 26, 51, 76, 102, 128, 153, 178, 204, 230, 255)]
    square = max(box.top + box.height for box in cells_of(page, 100, 4))
    assert min(box.top for box in swatches) > square
    plain, facts = printed(tmp_path, theta, "plain.pdf", chart=False)
    assert facts["colours"] == 0
    assert len(pages_of(plain)[0].boxes) == 16


def test_of_very_many_colours_the_chart_shows_a_hundred(tmp_path: Path) -> None:
    out, facts = printed(tmp_path, theta_of(3, 40), size_cm=18.0)
    pages = pages_of(out)
    assert facts["colours"] == 100
    assert len(pages) == facts["pages"] == 2
    assert len(cells_of(pages[0], 180, 40)) == 1600
    assert "(100 of 1600)" in pages[1].text
    assert len(pages[1].boxes) == 111
    bottom = max(box.top + box.height for box in pages[1].boxes)
    assert bottom < pages[1].size[1] - MARGIN


def test_the_page_says_what_is_printed(tmp_path: Path) -> None:
    out, facts = printed(tmp_path, theta_of(3, 10), size_cm=12.5)
    text = pages_of(out)[0].text
    _, patch = load_patch(tmp_path / "theta.safetensors")
    assert facts["digest"] == patch.digest
    for words in (
        "theta.safetensors",
        "125 \u00d7 125 mm, 10 \u00d7 10 cells of 12.5 mm",
        "Print at 100 %, no colour correction",
        patch.digest,
    ):
        assert words in text
    preferences = pypdf.PdfReader(out).trailer["/Root"]["/ViewerPreferences"]
    assert preferences["/PrintScaling"] == "/None"


def test_the_ruler_is_ten_centimetres_long(tmp_path: Path) -> None:
    out, _ = printed(tmp_path, theta_of(3, 2), chart=False)
    (page,) = pages_of(out)
    flat = [line for line in page.lines if line.top == line.bottom and line.top > 120]
    assert max(line.right - line.left for line in flat) == pytest.approx(100, abs=CLOSE)
    ticks = [line for line in page.lines if line.left == line.right and line.top > 120]
    long = sorted(line.left for line in ticks if line.bottom - line.top == pytest.approx(3))
    assert np.diff(long) == pytest.approx([10] * 10, abs=CLOSE)


def test_the_same_patch_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("patch.pdf", "patch.png"):
        out, _ = printed(tmp_path, theta_of(3, 10), name)
        first = out.read_bytes()
        printed(tmp_path, theta_of(3, 10), name)
        assert out.read_bytes() == first


@pytest.mark.parametrize(("page", "largest"), [("a4", "18.2"), ("letter", "18.79")])
def test_a_patch_larger_than_the_page_is_told_the_largest(
    tmp_path: Path, page: str, largest: str
) -> None:
    with pytest.raises(SpecError, match=re.escape(f"at most {largest} cm on {page}")):
        printed(tmp_path, theta_of(3, 4), page=page, size_cm=19)
    assert not (tmp_path / "patch.pdf").exists()
    printed(tmp_path, theta_of(3, 4), page=page, size_cm=float(largest))
    _, facts = printed(tmp_path, theta_of(3, 4), page="fit", size_cm=19)
    assert facts["page_mm"][0] == pytest.approx(190 + 2 * (MARGIN + BORDER))


@pytest.mark.parametrize("grid", [1, 4, 10, 13, 60])
@pytest.mark.parametrize("side", [5.0, 40.0, 100.0, 130.0, 182.0])
@pytest.mark.parametrize("copies", [1, 3, 50])
def test_nothing_runs_off_a_page(grid: int, side: float, copies: int) -> None:
    colours = min(100, grid * grid)
    for name in ("a4", "letter", "fit"):
        layout = arrange(side, name, copies, grid, colours)
        width, height = layout.size
        assert sum(len(spots) for spots in layout.pages) == copies
        for number, spots in enumerate(layout.pages):
            for left, top in spots:
                assert left - BORDER >= MARGIN - 1e-6
                assert left + side + BORDER <= width - MARGIN + 1e-6
                assert top - BORDER >= MARGIN - 1e-6
            assert layout.foot(number) + FOOT <= height - MARGIN + 1e-6
        assert layout.chart is not None
        assert layout.chart_top + layout.chart.height <= height - MARGIN + 1e-6
        assert layout.chart.columns * layout.chart.pitch <= layout.chart.width + 2.0 + 1e-6


def test_swatches_stand_as_cells_do_where_there_is_room() -> None:
    assert Chart(196.0, 10, 100).columns == 10
    assert Chart(196.0, 4, 16).columns == 4
    assert Chart(196.0, 10, 99).columns == 10
    assert Chart(100.0, 10, 100).columns == 5


def test_no_page_is_longer_than_a_pdf_can_state() -> None:
    with pytest.raises(SpecError, match="on the largest page of a PDF, got 600 cm"):
        arrange(6000.0, "fit", 1, 10, 100)
    assert max(arrange(4500.0, "fit", 1, 10, 100).size) <= LONGEST


def test_a_file_name_in_another_script_is_no_obstacle(tmp_path: Path) -> None:
    path = saved(tmp_path, theta_of(3, 2), "\u6f22\u5b57-caf\u00e9" + "x" * 100)
    print_patch(PrintRequest(path, tmp_path / "patch.pdf", 5.0))
    assert "??-caf\u00e9xxx" in pages_of(tmp_path / "patch.pdf")[0].text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size_cm": 0.0}, "--size-cm: expected a number above 0, got 0"),
        ({"size_cm": float("nan")}, "--size-cm: expected a number above 0, got nan"),
        ({"dpi": -1.0}, "--dpi: expected a number above 0, got -1"),
        ({"copies": 0}, "--copies: expected 1 or more, got 0"),
        ({"page": "a5"}, "--page: expected a4, letter or fit, got 'a5'"),
        ({"name": "patch.svg"}, "ends in .pdf or .png, got"),
        ({"name": "patch.png", "page": "a4"}, "a PNG is one patch without a page"),
        ({"name": "patch.png", "copies": 2}, "a PNG is one patch without a page"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=re.escape(words)):
        printed(tmp_path, theta_of(3, 4), **options)


@pytest.mark.parametrize(
    ("theta", "words"),
    [
        (torch.rand(3, 4, 5), r"expected cells \(1 or 3, side, side\) of a patch, got \(3, 4, 5\)"),
        (torch.rand(2, 4, 4), r"got \(2, 4, 4\)"),
        (torch.full((3, 4, 4), 1.25), r"expected values in \[0, 1\], got 1.25 to 1.25"),
        (torch.full((3, 4, 4), -0.1), r"expected values in \[0, 1\], got -0.1 to -0.1"),
        (torch.rand(4, 4), r"expected \(c, height, width\)"),
        (torch.full((3, 4, 4), torch.nan), "finite"),
    ],
)
def test_what_is_no_patch_is_named(tmp_path: Path, theta: torch.Tensor, words: str) -> None:
    with pytest.raises(ModelError, match=f"artefact: .*theta.safetensors: .*{words}"):
        printed(tmp_path, theta)


def test_a_folder_with_one_artefact_stands_for_it(tmp_path: Path) -> None:
    path = saved(tmp_path, theta_of(3, 4))
    assert load_patch(tmp_path)[0] == path
    saved(tmp_path, theta_of(3, 4), "another")
    with pytest.raises(ModelError, match=r"expected one file \.safetensors in it, got 2"):
        load_patch(tmp_path)
    with pytest.raises(ModelError, match="artefact: expected a file"):
        load_patch(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="is not safetensors"):
        load_patch(tmp_path / "bad.safetensors")
