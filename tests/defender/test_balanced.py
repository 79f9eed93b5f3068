from __future__ import annotations

import math

import pytest

from defender.metrics.balanced import balanced_accuracy
from defender.metrics.rates import wilson


def test_every_class_counts_the_same() -> None:
    value, low, high = balanced_accuracy([8, 1], [10, 2])
    assert value == pytest.approx(0.65)
    assert 0 < low < value < high < 1


def test_the_interval_of_one_class_is_wilsons_and_empty_classes_are_left_out() -> None:
    assert balanced_accuracy([7], [9])[1:] == pytest.approx(wilson(7, 9))
    assert balanced_accuracy([0, 7], [0, 9]) == balanced_accuracy([7], [9])
    assert all(math.isnan(part) for part in balanced_accuracy([0], [0]))


def test_the_interval_against_a_published_example() -> None:
    """R. Newcombe 1998, table II: 56/70 - 48/80, method 10, is 0.0524 to 0.3339.

    A difference of two rates is the sum of the first and of the complement of the second, less 1.
    """
    _, low, high = balanced_accuracy([56, 80 - 48], [70, 80])
    assert (2 * low - 1, 2 * high - 1) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="correct: expected 2 classes, got 1"):
        balanced_accuracy([1], [1, 2])
    with pytest.raises(ValueError, match="successes"):
        balanced_accuracy([3], [2])
