"""Mask sets of certified defences leave no place of the patch uncovered."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from defender.certification.masks import bands, crosses, rectangles

Axis = tuple[int, int, int]


@st.composite
def axes(draw: st.DrawFn) -> Axis:
    length = draw(st.integers(1, 40))
    return length, draw(st.integers(1, length)), draw(st.integers(1, 12))


@given(axes())
@settings(max_examples=300, deadline=None)
def test_one_band_covers_each_place_of_the_patch(axis: Axis) -> None:
    length, patch, count = axis
    found = bands(length, patch, count)
    assert 1 <= len(found) <= count
    for start in range(length - patch + 1):
        assert found[:, start : start + patch].all(1).any()


def test_bands_of_the_paper() -> None:
    # 224 px, patch 32 px, k = 6: s = ceil(193 / 6) = 33, width 32 + 33 - 1 = 64
    found = bands(224, 32, 6)
    assert found.sum(1).tolist() == [64] * 6
    assert found.to(torch.uint8).argmax(1).tolist() == [0, 33, 66, 99, 132, 160]


@given(axes(), axes())
@settings(max_examples=50, deadline=None)
def test_one_rectangle_covers_each_place_of_the_patch(down: Axis, across: Axis) -> None:
    size, patch, count = (down[0], across[0]), (down[1], across[1]), min(down[2], across[2])
    hidden = rectangles(size, patch, count)
    assert len(hidden) <= count**2
    for top in range(size[0] - patch[0] + 1):
        for left in range(size[1] - patch[1] + 1):
            place = hidden[:, top : top + patch[0], left : left + patch[1]]
            assert place.flatten(1).all(1).any()


@pytest.mark.parametrize(("size", "patch", "count"), [((6, 6), (2, 2), 3), ((5, 9), (2, 3), 2)])
def test_one_cross_covers_any_two_places(
    size: tuple[int, int], patch: tuple[int, int], count: int
) -> None:
    hidden = crosses(size, patch, count).flatten(0, 1)
    covers = torch.stack(
        [
            hidden[:, top : top + patch[0], left : left + patch[1]].flatten(1).all(1)
            for top in range(size[0] - patch[0] + 1)
            for left in range(size[1] - patch[1] + 1)
        ]
    )
    assert (covers.sum(1) >= 2 * count - 1).all()
    assert (covers[:, None] & covers[None]).any(2).all()


def test_refuses_a_patch_that_does_not_fit_and_no_bands() -> None:
    with pytest.raises(ValueError, match=r"patch: expected \[1, 4\] pixels, got 5"):
        bands(4, 5, 2)
    with pytest.raises(ValueError, match="count: expected >= 1, got 0"):
        bands(4, 2, 0)
