"""Differences of two rates over the same images."""

from __future__ import annotations

import math

import numpy as np
import pytest

from defender.metrics.paired_rates import paired_difference
from defender.metrics.rates import wilson


def columns(both: int, only_one: int, only_other: int, neither: int) -> tuple[list[int], list[int]]:
    first = [1] * both + [1] * only_one + [0] * only_other + [0] * neither
    second = [1] * both + [0] * only_one + [1] * only_other + [0] * neither
    return first, second


def test_by_hand() -> None:
    # margins 30, 20, 24, 26 of 50; 20 * 16 - 10 * 4 = 280, less 25 for continuity
    value, low, high = paired_difference(*columns(20, 10, 4, 16))
    phi = 255 / math.sqrt(30 * 20 * 24 * 26)
    assert value == pytest.approx(0.12)
    p, q = wilson(30, 50), wilson(24, 50)
    below, above = (0.6 - p[0], q[1] - 0.48), (p[1] - 0.6, 0.48 - q[0])
    for found, (a, b), sign in ((low, below, -1), (high, above, 1)):
        expected = 0.12 + sign * math.sqrt(a * a - 2 * phi * a * b + b * b)
        assert found == pytest.approx(expected)


def test_images_that_do_not_differ_still_leave_doubt() -> None:
    value, low, high = paired_difference(*columns(2, 0, 0, 22))
    assert value == 0
    assert -0.2 < low < -0.02
    assert 0.02 < high < 0.2
    value, low, high = paired_difference([1] * 24, [1] * 24)
    assert (value, round(low, 3), round(high, 3)) == (0, -0.138, 0.138)


def test_swapped_columns_swap_the_interval() -> None:
    first, second = columns(11, 7, 2, 5)
    value, low, high = paired_difference(first, second)
    assert paired_difference(second, first) == pytest.approx((-value, -high, -low))
    assert paired_difference([1] * 9, [0] * 9)[0] == 1
    assert paired_difference([1] * 9, [0] * 9)[2] == 1


def test_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(3)
    hits, trials = 0, 400
    for _ in range(trials):
        clean = random.random(120) < 0.9
        attacked = np.where(clean, random.random(120) < 0.7, random.random(120) < 0.1)
        _, low, high = paired_difference(clean, attacked)
        hits += low <= 0.9 - (0.9 * 0.7 + 0.1 * 0.1) <= high
    assert 0.92 < hits / trials < 0.98


def test_columns_must_be_of_the_same_images() -> None:
    assert math.isnan(paired_difference([], [])[0])
    with pytest.raises(ValueError, match="second: expected 2, got 1"):
        paired_difference([1, 0], [1])
