"""Likeness of heat maps and their mass in rectangles, against scipy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import Tensor

from defender.metrics.maps import (
    centroid_shift,
    energy_in_boxes,
    energy_ratio,
    pearson,
    spearman,
    top_iou,
)

PAIRS = (pearson, spearman, top_iou, centroid_shift)


def heat(n: int = 5, height: int = 9, width: int = 14, seed: int = 0) -> Tensor:
    """Maps with many zeros and many ties, as Grad-CAM's are."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(-6, 8, (n, height, width), generator=generator)
    return levels.clamp_min(0).float() / 7


def block(top: int, left: int, height: int, width: int, size: tuple[int, int]) -> Tensor:
    maps = torch.zeros(1, *size)
    maps[:, top : top + height, left : left + width] = 1
    return maps


def test_correlations_are_those_of_scipy() -> None:
    a, b = heat(seed=1), (heat(seed=1) + heat(seed=2)) / 2
    for found, reference in ((pearson, stats.pearsonr), (spearman, stats.spearmanr)):
        expected = [
            reference(x.flatten().double().numpy(), y.flatten().double().numpy()).statistic
            for x, y in zip(a, b, strict=True)
        ]
        assert found(a, b).numpy() == pytest.approx(np.array(expected), abs=1e-12)


def test_ranks_do_not_mind_a_rising_curve_and_correlations_do() -> None:
    a = heat()
    assert spearman(a, a.exp()).numpy() == pytest.approx(np.ones(5), abs=1e-12)
    assert spearman(a, -a).numpy() == pytest.approx(-np.ones(5), abs=1e-12)
    assert pearson(a, 0.2 * a + 0.1).numpy() == pytest.approx(np.ones(5), abs=1e-6)
    assert (pearson(a, (8 * a).exp()) < 0.9).all()


@pytest.mark.parametrize("value", [0.0, 0.1, 0.7])
def test_a_map_of_one_value_has_no_correlation(value: float) -> None:
    # the mean of 0.1 over 126 pixels is not 0.1 in binary: the variance need not be 0
    flat = torch.full((5, 9, 14), value)
    for found in (pearson, spearman):
        assert found(heat(), flat).isnan().all()
        assert found(flat, heat()).isnan().all()


def test_top_areas_by_hand() -> None:
    size = (10, 20)
    # 15 % of 200 pixels are 30: the 5 x 6 blocks themselves, of which 2 x 6 are shared
    a, b = block(0, 0, 5, 6, size), block(3, 0, 5, 6, size)
    assert top_iou(a, b).tolist() == [12 / 48]
    assert top_iou(a, a).tolist() == [1.0]
    assert top_iou(a, block(5, 10, 5, 6, size)).tolist() == [0.0]


def test_top_areas_take_the_share_of_largest_values() -> None:
    rising = torch.arange(1.0, 101.0).view(1, 10, 10)
    # 85..100 of 15: rows of the end, against the columns of the end
    turned = rising.transpose(1, 2)
    first = {(p // 10, p % 10) for p in range(85, 100)}
    second = {(column, row) for row, column in first}
    expected = len(first & second) / len(first | second)
    assert top_iou(rising, turned).tolist() == [expected]
    assert top_iou(rising, turned, share=1.0).tolist() == [1.0]


def test_cold_pixels_are_in_no_top_area() -> None:
    # of 30 hottest pixels these have 4 and 1: zeros that filled them up would be shared
    size = (10, 20)
    assert top_iou(block(0, 0, 2, 2, size), block(8, 8, 1, 1, size)).tolist() == [0.0]
    assert top_iou(block(0, 0, 2, 2, size), block(1, 1, 1, 1, size)).tolist() == [0.25]


def test_top_areas_do_not_depend_on_the_order_of_equal_values() -> None:
    a, b = heat(seed=3), heat(seed=4)
    assert torch.equal(top_iou(a, b), top_iou(a.flip(1, 2), b.flip(1, 2)))


def test_centres_by_hand() -> None:
    # centres (0.5, 0.5) and (3.5, 4.5) of 6 x 8 pixels, diagonal 10: 5 pixels apart
    size = (6, 8)
    found = centroid_shift(block(0, 0, 2, 2, size), block(3, 4, 2, 2, size))
    assert found.item() == pytest.approx(0.5, abs=1e-12)


def test_centres_are_those_of_scipy() -> None:
    a, b = heat(seed=5), heat(seed=6)
    expected = [
        math.dist(ndimage.center_of_mass(x.numpy()), ndimage.center_of_mass(y.numpy()))
        / math.hypot(9, 14)
        for x, y in zip(a.double(), b.double(), strict=True)
    ]
    assert centroid_shift(a, b).numpy() == pytest.approx(np.array(expected), abs=1e-12)


def test_energy_by_hand() -> None:
    maps = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 5.0]]]).expand(3, 2, 3)
    # whole; the right column; a box of which only the lower right pixel is in the image
    boxes = torch.tensor([[0, 0, 2, 3], [0, 2, 2, 1], [1, 2, 4, 4]])
    assert energy_in_boxes(maps, boxes).tolist() == [1.0, 0.4, 0.25]
    assert energy_ratio(maps, boxes).numpy() == pytest.approx(np.array([1.0, 1.2, 1.5]))


def test_a_flat_map_is_nowhere_hotter_than_elsewhere() -> None:
    flat, boxes = torch.full((2, 7, 9), 0.3), torch.tensor([[0, 0, 3, 4], [6, 8, 1, 1]])
    assert energy_ratio(flat, boxes).numpy() == pytest.approx(np.ones(2))


def test_maps_without_mass() -> None:
    some, none = heat(2), torch.zeros(2, 9, 14)
    boxes = torch.tensor([[0, 0, 3, 3], [1, 1, 2, 2]])
    assert energy_in_boxes(none, boxes).isnan().all()
    assert energy_ratio(none, boxes).isnan().all()
    assert centroid_shift(some, none).isnan().all()
    assert centroid_shift(none, some).isnan().all()
    assert top_iou(some, none).tolist() == [0.0, 0.0]
    assert top_iou(none, none).isnan().all()


def test_an_empty_box_has_no_energy_and_no_ratio() -> None:
    boxes = torch.tensor([[2, 2, 0, 3], [20, 20, 3, 3]])
    assert energy_in_boxes(heat(2), boxes).tolist() == [0.0, 0.0]
    assert energy_ratio(heat(2), boxes).isnan().all()


def test_one_map_is_compared_with_all() -> None:
    a, b = heat(seed=7), heat(1, seed=8)
    for found in PAIRS:
        assert torch.equal(found(a, b), found(a, b.expand_as(a)))
        assert found(a, b).dtype == torch.float64
        assert found(a[:0], b).shape == (0,)


def test_images_of_a_batch_do_not_mix() -> None:
    a, b = heat(seed=9), heat(seed=10)
    boxes = torch.tensor([[i, i, 3, 4] for i in range(5)])
    for pair in PAIRS:
        assert torch.equal(
            pair(a, b), torch.cat([pair(a[i : i + 1], b[i : i + 1]) for i in range(5)])
        )
    for inside in (energy_in_boxes, energy_ratio):
        single = [inside(a[i : i + 1], boxes[i : i + 1]) for i in range(5)]
        assert torch.equal(inside(a, boxes), torch.cat(single))


def test_what_does_not_fit_is_refused() -> None:
    for found in PAIRS:
        with pytest.raises(ValueError, match="expected maps"):
            found(heat(5), heat(2))
        with pytest.raises(ValueError, match="expected maps"):
            found(heat(5), heat(5, width=13))
    with pytest.raises(ValueError, match=r"share: expected \(0, 1\], got 0"):
        top_iou(heat(), heat(), share=0)
    with pytest.raises(ValueError, match=r"boxes: expected \(5, 4\)"):
        energy_in_boxes(heat(5), torch.zeros(4, 4, dtype=torch.int64))
