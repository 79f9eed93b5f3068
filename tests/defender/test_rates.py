"""Dataset figures from columns, against scipy and against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from defender.metrics import (
    METRICS,
    conformal_threshold,
    mean_interval,
    roc_auc,
    tpr_at_fpr,
    wilson,
)

SCORES = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=15)


def test_every_metric_is_described() -> None:
    assert set(METRICS) == {
        *("accuracy", "balanced_accuracy", "attack_success", "label_recovery"),
        *("psnr", "psnr_legacy", "ssim", "ms_ssim", "l2", "linf"),
        *("mask_precision", "mask_recall", "mask_precision_top"),
        *("scaled_psnr", "target_psnr", "o1", "o2", "scaling_success", "target_agreement"),
        *("gain", "absolute_gain", "defended_gain", "quality", "srcc", "score", "score_shift"),
        *("defended_absolute_gain", "image_similarity"),
        *("far", "frr", "eer", "similarity", "far_mean", "far_worst", "far_majority"),
        *("frr_mean", "frr_worst", "frr_majority", "eer_mean"),
        *("accuracy_mean", "accuracy_worst", "accuracy_majority", "gain_mean", "gain_worst"),
    }
    assert all(metric.name == name and metric.doc for name, metric in METRICS.items())
    lower = {name for name, metric in METRICS.items() if metric.better == "lower"}
    attacker = {"target_psnr", "o1", "o2", "scaling_success", "target_agreement"}
    gains = {"gain", "absolute_gain", "defended_gain", "score_shift", "gain_mean", "gain_worst"}
    gains |= {"defended_absolute_gain"}
    faces = {name for name, metric in METRICS.items() if metric.kind == "verification"}
    assert lower == {"attack_success", "l2", "linf"} | attacker | gains | faces


@given(n=st.integers(1, 500), data=st.data(), confidence=st.sampled_from([0.8, 0.95, 0.99]))
@settings(max_examples=50, deadline=None)
def test_wilson_agrees_with_scipy(n: int, data: st.DataObject, confidence: float) -> None:
    successes = data.draw(st.integers(0, n))
    expected = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson(successes, n, confidence) == pytest.approx(tuple(expected), abs=1e-12)


def test_wilson_without_trials_and_out_of_range() -> None:
    assert all(math.isnan(bound) for bound in wilson(0, 0))
    for successes, n in ((-1, 3), (4, 3)):
        with pytest.raises(ValueError, match="successes"):
            wilson(successes, n)
    with pytest.raises(ValueError, match="confidence"):
        wilson(1, 2, 1.0)


@pytest.mark.parametrize("n", [5, 40, 300])
def test_mean_interval_agrees_with_scipy(n: int) -> None:
    values = np.random.default_rng(n).exponential(size=n)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="BCa", rng=np.random.default_rng(7)
    ).confidence_interval
    width = expected.high - expected.low
    assert mean_interval(values, 7, 4000) == pytest.approx(tuple(expected), abs=0.02 * width)


def test_mean_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        low, high = mean_interval(generator.normal(size=40), seed, 400)
        covered += low <= 0 <= high
    assert 176 <= covered <= 198


def test_mean_interval_is_deterministic_and_does_not_depend_on_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.random.default_rng(1).normal(size=50)
    first = mean_interval(values, 3)
    assert mean_interval(values, 3) == first
    assert mean_interval(values, 4) != first
    monkeypatch.setattr("defender.metrics.rates._DRAWS_AT_ONCE", 170)
    assert mean_interval(values, 3) == pytest.approx(first, abs=1e-12)


def test_mean_interval_of_degenerate_columns() -> None:
    assert mean_interval([2.5] * 10, 0) == (2.5, 2.5)
    assert all(math.isnan(bound) for bound in mean_interval([], 0))
    assert all(math.isnan(bound) for bound in mean_interval([1.0, 2.0], 0))
    values = [1.0, 2.0, 4.0, 8.0]
    with_gaps = [math.inf, *values, math.nan, -math.inf]
    assert mean_interval(with_gaps, 0) == mean_interval(values, 0)
    low, high = mean_interval([0.0] * 99 + [1.0], 0)
    assert 0 <= low <= 0.01 <= high < 0.2
    with pytest.raises(ValueError, match="resamples"):
        mean_interval(values, 0, 0)


@given(n=st.integers(1, 300), percent=st.integers(1, 99))
@settings(max_examples=60, deadline=None)
def test_conformal_threshold_is_the_smallest_that_keeps_the_rate(n: int, percent: int) -> None:
    scores = np.random.default_rng(n).permutation(n).astype(float)
    threshold = conformal_threshold(scores, percent / 100)
    # of n + 1 exchangeable scores, at most the share may lie above the threshold
    rank = -(-(n + 1) * (100 - percent) // 100)
    assert threshold == (rank - 1 if rank <= n else math.inf)


def test_conformal_threshold_needs_enough_scores() -> None:
    assert conformal_threshold(range(98), 0.01) == math.inf
    assert conformal_threshold(range(99), 0.01) == 98
    assert conformal_threshold([], 0.5) == math.inf
    with pytest.raises(ValueError, match="fpr"):
        conformal_threshold([1.0], 0.0)
    with pytest.raises(ValueError, match="NaN"):
        conformal_threshold([math.nan], 0.1)


@given(benign=SCORES, attacked=SCORES)
@settings(deadline=None)
def test_roc_auc_counts_pairs(benign: list[float], attacked: list[float]) -> None:
    wins = sum((a > b) + 0.5 * (a == b) for a in attacked for b in benign)
    expected = wins / (len(benign) * len(attacked))
    assert roc_auc(benign, attacked) == pytest.approx(expected)
    assert roc_auc(attacked, benign) == pytest.approx(1 - expected)


@given(benign=SCORES, attacked=SCORES, percent=st.integers(1, 99))
@settings(deadline=None)
def test_tpr_at_fpr_is_the_best_threshold(
    benign: list[float], attacked: list[float], percent: int
) -> None:
    thresholds = [*benign, *attacked, -math.inf]
    best = max(
        np.mean(np.array(attacked) > threshold)
        for threshold in thresholds
        if np.mean(np.array(benign) > threshold) <= percent / 100
    )
    assert tpr_at_fpr(benign, attacked, percent / 100) == pytest.approx(best)


def test_infinite_scores_have_ranks_and_empty_sides_have_no_rates() -> None:
    assert roc_auc([0.0, 1.0], [math.inf]) == 1
    assert tpr_at_fpr([0.0, 1.0], [math.inf, 0.5], 0.1) == 0.5
    assert math.isnan(roc_auc([], [1.0]))
    assert math.isnan(tpr_at_fpr([1.0], [], 0.1))
    with pytest.raises(ValueError, match="attacked: expected numbers"):
        roc_auc([1.0], [math.nan])
