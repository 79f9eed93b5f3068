"""Patches as PNG: flat cells, and a density that gives the stated size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.errors import SpecError
from tasks.printing_layout import BORDER
from tests.tasks.printed_pages import printed, theta_of


@pytest.mark.parametrize(
    ("channels", "grid", "size_cm", "dpi", "cell"),
    [(3, 10, 10.0, 300.0, 118), (1, 7, 3.0, 96.0, 16), (3, 4, 2.54, 100.0, 25)],
)
def test_pixels_of_a_png_are_flat_cells_of_theta(
    tmp_path: Path, channels: int, grid: int, size_cm: float, dpi: float, cell: int
) -> None:
    theta = theta_of(channels, grid)
    out, facts = printed(tmp_path, theta, "patch.png", size_cm=size_cm, dpi=dpi)
    with Image.open(out) as image:
        pixels = np.asarray(image)
        stated = image.info["dpi"]
        assert image.mode == ("RGB" if channels == 3 else "L")
    assert pixels.shape[:2] == (cell * grid, cell * grid)
    levels = (255 * theta).round().to(torch.uint8)
    expected = levels.repeat_interleave(cell, 1).repeat_interleave(cell, 2).permute(1, 2, 0)
    assert np.array_equal(pixels.reshape(expected.shape), expected.numpy())
    assert stated[0] == stated[1] == pytest.approx(facts["dpi"])
    size = cell * grid / stated[0] * 25.4
    assert size == pytest.approx(10 * size_cm, abs=0.1)
    assert facts["size_mm"] == pytest.approx(size)
    assert (facts["pixels"], facts["cell_pixels"]) == (cell * grid, cell)
    assert facts["dpi"] == pytest.approx(dpi, rel=0.5 / cell + 0.01)


def test_marks_of_a_png_stay_outside(tmp_path: Path) -> None:
    theta = theta_of(3, 5)
    plain, _ = printed(tmp_path, theta, "plain.png", dpi=150.0)
    out, facts = printed(tmp_path, theta, "patch.png", dpi=150.0, marks=True)
    with Image.open(plain) as image, Image.open(out) as marked:
        square, pixels = np.asarray(image), np.asarray(marked)
    border = facts["border_pixels"]
    assert border / facts["dpi"] * 25.4 == pytest.approx(BORDER, abs=0.1)
    assert np.array_equal(pixels[border:-border, border:-border], square)
    paper = pixels.copy()
    paper[border:-border, border:-border] = 255
    dark = np.argwhere((paper == 0).all(axis=2))
    assert len(dark) == (paper != 255).any(axis=2).sum() > 0
    beside = np.array([border, border + len(square)])
    distance = np.abs(dark[:, :, None] - beside).min(axis=2).min(axis=1)
    assert distance.max() <= 1


def test_less_than_a_pixel_a_cell_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="--dpi: expected 254 or more for a pixel a cell, got 100"):
        printed(tmp_path, theta_of(3, 100), "patch.png", dpi=100.0, size_cm=1.0)
    with pytest.raises(SpecError, match="pixels, got 39,370 a side"):
        printed(tmp_path, theta_of(3, 10), "patch.png", dpi=10_000.0)
