"""Thresholds of several detectors for one false positive rate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from defender.metrics.joint import joint_thresholds
from defender.metrics.rates import conformal_threshold

Scores = NDArray[np.float64]


def correlated(n: int, k: int, share: float, seed: int, levels: int | None = None) -> Scores:
    """Scores of k detectors that have a share of their variance in common, perhaps with ties."""
    rng = np.random.default_rng(seed)
    mixed = math.sqrt(share) * rng.normal(size=(n, 1)) + math.sqrt(1 - share) * rng.normal(
        size=(n, k)
    )
    return mixed if levels is None else np.round(mixed * levels) / levels


def false_alarms(scores: Scores, fpr: float, least: int) -> int:
    """How many of n images would be flagged by thresholds that the n - 1 others set."""
    flagged = 0
    for i, row in enumerate(scores):
        values = joint_thresholds(np.delete(scores, i, axis=0), fpr, least).values
        flagged += int((row > values).sum() >= least)
    return flagged


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 60),
    k=st.integers(1, 5),
    share=st.floats(0, 1),
    fpr=st.floats(0.02, 0.6),
    seed=st.integers(0, 10_000),
    levels=st.sampled_from([None, 1, 3]),
    data=st.data(),
)
def test_of_any_images_no_more_than_the_rate_is_flagged_by_the_thresholds_of_the_others(
    n: int,
    k: int,
    share: float,
    fpr: float,
    seed: int,
    levels: int | None,
    data: st.DataObject,
) -> None:
    least = data.draw(st.integers(1, k))
    scores = correlated(n, k, share, seed, levels)
    assert false_alarms(scores, fpr, least) <= fpr * n + 1e-9


@pytest.mark.parametrize(("n", "fpr"), [(99, 0.01), (150, 0.05), (98, 0.01), (400, 0.0123)])
def test_one_detector_has_the_split_conformal_threshold(n: int, fpr: float) -> None:
    scores = correlated(n, 1, 0.0, seed=n)
    assert joint_thresholds(scores, fpr).values[0] == conformal_threshold(scores[:, 0], fpr)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_never_stricter_than_an_equal_share_for_each(share: float) -> None:
    scores = correlated(500, 6, share, seed=4)
    together = joint_thresholds(scores, 0.05).values
    alone = [conformal_threshold(column, 0.05 / 6) for column in scores.T]
    assert (together <= alone).all()


def test_detectors_that_agree_cost_one_image_and_no_more() -> None:
    column = correlated(199, 1, 0.0, seed=2)
    together = joint_thresholds(np.repeat(column, 8, axis=1), 0.02)
    assert together.values.tolist() == [conformal_threshold(column[:, 0], 3 / 200)] * 8
    assert together.level == pytest.approx(3 / 200)


def test_thresholds_by_hand() -> None:
    first = np.arange(19.0)
    second = first[::-1].copy()
    made = joint_thresholds(np.stack([first, second], axis=1), 0.2)
    assert made.values.tolist() == [17.0, 17.0]
    assert made.level == pytest.approx(2 / 20)


def test_too_few_images_give_no_threshold_and_say_how_many_are_needed() -> None:
    one = joint_thresholds(correlated(98, 1, 0, 1), 0.01)
    assert one.values.tolist() == [math.inf]
    assert one.needed == 99
    apart = np.eye(98)[:, :3]
    several = joint_thresholds(apart, 0.01)
    assert np.isinf(several.values).all()
    assert several.needed == 299
    assert np.isinf(joint_thresholds(np.empty((0, 2)), 0.01).values).all()


def test_an_equal_score_is_not_flagged() -> None:
    counts = np.repeat([[1.0], [2.0], [3.0]], [90, 8, 2], axis=0)
    values = joint_thresholds(counts, 0.05).values
    assert values.tolist() == [2.0]


def test_a_majority_may_be_less_strict_than_any() -> None:
    scores = correlated(400, 5, 0.3, seed=9)
    levels = [joint_thresholds(scores, 0.05, least).level for least in (1, 2, 3)]
    assert levels == sorted(levels)
    assert levels[0] < levels[2]


@pytest.mark.parametrize(
    ("scores", "fpr", "least", "message"),
    [
        (np.zeros(3), 0.1, 1, "benign_scores"),
        (np.zeros((3, 0)), 0.1, 1, "benign_scores"),
        (np.full((3, 1), np.nan), 0.1, 1, "NaN"),
        (np.zeros((3, 2)), 1.0, 1, "fpr"),
        (np.zeros((3, 2)), 0.1, 3, "least"),
    ],
)
def test_what_it_refuses(scores: Scores, fpr: float, least: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        joint_thresholds(scores, fpr, least)


def test_the_rate_is_used_up_by_independent_detectors() -> None:
    """The share that new images exceed: close to what is allowed, so power is not given away."""
    scores = correlated(4000, 6, 0.2, seed=12)
    made = joint_thresholds(scores[:2000], 0.05)
    rate = float((scores[2000:] > made.values).any(axis=1).mean())
    assert 0.035 < rate < 0.065
