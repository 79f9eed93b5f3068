"""Rates of face verification: by hand, against brute force, and what must always hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from defender.metrics import pairs as pairs_module
from defender.metrics.rates import roc_auc
from defender.metrics.verification import (
    Pairs,
    all_by_identity,
    auc,
    by_identity,
    det,
    equal_error_rate,
    far_at,
    frr_at,
    paired_similarities,
    rates,
    roc,
    similarities,
    threshold_at,
    tpr_at_far,
)


def made(genuine: list[float], impostor: list[float]) -> Pairs:
    """Pairs of given similarities; genuine pair i is of person i, impostors of persons 0 and 1."""
    count = len(genuine)
    first = [*range(count), *[0] * len(impostor)]
    second = [*range(count), *[1] * len(impostor)]
    same = [True] * count + [False] * len(impostor)
    return Pairs(np.array(genuine + impostor), np.array(same), np.array(first), np.array(second))


def drawn(seed: int, count: int = 60, digits: int = 2) -> Pairs:
    """Random pairs with ties."""
    generator = np.random.default_rng(seed)
    similarity = np.round(generator.random(count), digits).astype(np.float32)
    first, second = generator.integers(0, 5, (2, count))
    return Pairs(similarity, first == second, first, second)


HAND = made([0.9, 0.8, 0.6, 0.4], [0.7, 0.5, 0.3, 0.2, 0.1])


def test_similarities_by_hand() -> None:
    a = np.array([[2.0, 0.0], [0.0, -3.0], [0.0, 0.0]])
    b = np.array([[1.0, 0.0], [-5.0, 0.0], [1.0, 1.0]])
    half = (1 + math.sqrt(0.5)) / 2
    expected = [[1, 0, half], [0.5, 0.5, 1 - half], [0.5, 0.5, 0.5]]
    found = similarities(a, b)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-7)
    np.testing.assert_allclose(paired_similarities(a, b), np.diag(expected), atol=1e-7)


def test_similarities_stay_within_bounds() -> None:
    found = similarities(*np.random.default_rng(0).normal(size=(1, 300, 3)).repeat(2, axis=0))
    assert found.min() >= 0
    assert found.max() <= 1
    np.testing.assert_allclose(np.diag(found), 1, atol=1e-6)


def test_what_are_no_embeddings_is_refused() -> None:
    with pytest.raises(ValueError, match=r"b: expected \(m, 2\), got \(1, 3\)"):
        similarities(np.ones((1, 2)), np.ones((1, 3)))
    with pytest.raises(ValueError, match=r"a: expected \(n, d\), got \(2,\)"):
        similarities(np.ones(2), np.ones((1, 2)))
    with pytest.raises(ValueError, match=r"b: expected finite numbers"):
        similarities(np.ones((1, 2)), np.array([[1, np.nan]]))
    with pytest.raises(ValueError, match=r"b: expected \(2, 2\), got \(1, 2\)"):
        paired_similarities(np.ones((2, 2)), np.ones((1, 2)))
    with pytest.raises(ValueError, match=r"people: expected \(2,\), got \(3,\)"):
        Pairs.among(np.ones((2, 2)), [0, 1, 2])
    with pytest.raises(ValueError, match=r"enrolled: expected \(2, 2\), got \(3, 2\)"):
        Pairs.across(np.ones((2, 2)), np.ones((3, 2)), [0, 1])
    with pytest.raises(ValueError, match=r"same: expected \(2,\), got \(1,\)"):
        Pairs(np.ones(2), np.ones(1), np.ones(2), np.ones(2))
    with pytest.raises(ValueError, match=r"similarity: expected numbers, got NaN"):
        Pairs(np.array([np.nan]), np.ones(1), np.ones(1), np.ones(1))


def test_pairs_of_probes_and_enrolled_images() -> None:
    probes = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    enrolled = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    people = [7, 7, 3]
    found = Pairs.across(probes, enrolled, people)
    # (0, 1) and (1, 0) are genuine; (0, 2), (1, 2), (2, 0), (2, 1) are not
    assert sorted(found.genuine) == [0.5, 1.0]
    assert sorted(found.impostor) == [0.5, 0.5, 0.5, 1.0]
    assert sorted(zip(found.first.tolist(), found.second.tolist(), strict=True)) == [
        (3, 7),
        (3, 7),
        (7, 3),
        (7, 3),
        (7, 7),
        (7, 7),
    ]
    flattered = Pairs.across(probes, enrolled, people, self_pairs=True)
    assert sorted(flattered.genuine) == [0.5, 0.5, 1.0, 1.0, 1.0]
    assert len(flattered.impostor) == 4
    once = Pairs.among(probes, people)
    assert (once.genuine.tolist(), once.impostor.tolist()) == ([1.0], [0.5, 0.5])


def test_no_images_make_no_pairs() -> None:
    assert len(Pairs.across(np.ones((0, 4)), np.ones((0, 4)), []).similarity) == 0


def test_rates_by_hand() -> None:
    assert far_at(HAND, 0.5) == pytest.approx(2 / 5)
    assert far_at(HAND, 0.51) == pytest.approx(1 / 5)
    assert frr_at(HAND, 0.6) == pytest.approx(1 / 4)
    assert frr_at(HAND, 0.61) == pytest.approx(2 / 4)
    # impostors weigh 1, 3, 0, 0, 0 and genuine pairs 2, 0, 1, 1
    weights = np.array([2.0, 0, 1, 1, 1, 3, 0, 0, 0])
    assert far_at(HAND, 0.6, weights) == pytest.approx(1 / 4)
    assert frr_at(HAND, 0.61, weights) == pytest.approx(2 / 4)


def test_threshold_by_hand() -> None:
    limit = threshold_at(HAND, 0.2)
    assert limit == np.nextafter(np.float32(0.5), np.float32(1))
    assert far_at(HAND, limit) == pytest.approx(0.2)
    assert threshold_at(HAND, 0.19) == np.nextafter(np.float32(0.7), np.float32(1))
    assert threshold_at(HAND, 1.0) == 0.0
    assert threshold_at(made([0.5], [1.0]), 0.0) > 1
    with pytest.raises(ValueError, match=r"pairs: expected impostor pairs, got none"):
        threshold_at(made([0.5], []), 0.1)
    with pytest.raises(ValueError, match=r"far: expected \[0, 1\], got 1.5"):
        threshold_at(HAND, 1.5)


def test_shares_that_are_whole_pairs_are_not_rounded_away() -> None:
    # 0.29 x 100 is less than 29 in floating point
    pairs = made([0.5], [k / 1000 for k in range(100)])
    assert far_at(pairs, threshold_at(pairs, 0.29)) == pytest.approx(0.29)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("far", [0.0, 0.01, 0.1, 0.35, 0.9])
def test_no_smaller_threshold_keeps_the_rate(seed: int, far: float) -> None:
    pairs = drawn(seed)
    limit = threshold_at(pairs, far)
    assert far_at(pairs, limit) <= far
    if limit > 0:
        assert far_at(pairs, float(np.nextafter(np.float32(limit), np.float32(0)))) > far


def test_equal_error_rate_by_hand() -> None:
    # FAR and FRR are 2/5 and 1/4 at 0.5, 1/5 and 1/4 at 0.6: FRR passes FAR three quarters of the
    # way, where FAR has come down from 2/5 to 1/4
    rate, limit = equal_error_rate(HAND)
    assert rate == pytest.approx(1 / 4)
    assert limit == pytest.approx(0.5 + 0.75 * 0.1)
    # people who are told apart
    assert equal_error_rate(made([0.8, 0.9], [0.1, 0.2])) == (0.0, pytest.approx(0.8))
    # no information: everything equally similar
    assert equal_error_rate(made([0.5, 0.5], [0.5, 0.5]))[0] == pytest.approx(0.5)
    assert all(math.isnan(value) for value in equal_error_rate(made([0.5], [])))


def test_the_equal_error_rate_of_two_normals() -> None:
    generator = np.random.default_rng(1)
    genuine, impostor = generator.normal([[0.6], [0.4]], 0.1, (2, 40_000))
    rate, limit = equal_error_rate(made(genuine.tolist(), impostor.tolist()))
    assert rate == pytest.approx(stats.norm.cdf(-1), abs=0.004)
    assert limit == pytest.approx(0.5, abs=0.004)


def test_tpr_at_far_by_hand() -> None:
    # FAR 1/5 from 0.7 down, 2/5 from 0.5 down: 0.3 is half way between, at 0.6, met by 3 of 4
    share, limit = tpr_at_far(HAND, 0.3)
    assert (share, limit) == (pytest.approx(3 / 4), pytest.approx(0.6))
    assert tpr_at_far(HAND, 0.2) == (pytest.approx(2 / 4), pytest.approx(0.7))
    # less than one impostor pair: above all of them
    share, limit = tpr_at_far(HAND, 0.1)
    assert limit == np.nextafter(np.float32(0.7), np.float32(1))
    assert share == pytest.approx(2 / 4)
    assert tpr_at_far(HAND, 1.0)[0] == 1.0
    assert math.isnan(tpr_at_far(made([], [0.4]), 0.1)[0])


@pytest.mark.parametrize("seed", range(20))
def test_interpolation_never_accepts_more(seed: int) -> None:
    pairs = drawn(seed, 80)
    shares = []
    for far in np.linspace(0, 1, 33):
        share, limit = tpr_at_far(pairs, far)
        assert far_at(pairs, limit) <= far + 1e-12
        shares.append(share)
    assert shares == sorted(shares)


@pytest.mark.parametrize("seed", range(10))
def test_areas_are_those_of_ranks(seed: int) -> None:
    pairs = drawn(seed)
    assert auc(pairs) == pytest.approx(roc_auc(pairs.impostor, pairs.genuine))
    assert math.isnan(auc(made([0.3], [])))


@pytest.mark.parametrize("seed", range(5))
def test_weights_count_as_repetitions(seed: int) -> None:
    pairs = drawn(seed)
    weights = np.random.default_rng(seed).integers(0, 4, len(pairs.similarity))
    repeated = Pairs(
        *(
            np.repeat(column, weights)
            for column in (pairs.similarity, pairs.same, pairs.first, pairs.second)
        )
    )
    heavy = weights.astype(np.float64)
    assert far_at(pairs, 0.4, heavy) == pytest.approx(far_at(repeated, 0.4))
    assert frr_at(pairs, 0.4, heavy) == pytest.approx(frr_at(repeated, 0.4))
    assert auc(pairs, heavy) == pytest.approx(auc(repeated))
    assert equal_error_rate(pairs, heavy)[0] == pytest.approx(equal_error_rate(repeated)[0])
    assert tpr_at_far(pairs, 0.2, heavy) == pytest.approx(tpr_at_far(repeated, 0.2))


def test_curves_are_the_rates() -> None:
    pairs = drawn(3, 5000, digits=5)
    far, frr = det(pairs)
    assert len(far) < 700
    assert (far[0], frr[0], far[-1], frr[-1]) == (0.0, 1.0, 1.0, 0.0)
    assert (np.diff(far) >= 0).all()
    assert (np.diff(frr) <= 0).all()
    every = {(far_at(pairs, t), frr_at(pairs, t)) for t in np.unique(pairs.similarity).tolist()}
    assert all(
        any(math.isclose(x, a, abs_tol=1e-9) and math.isclose(y, b, abs_tol=1e-9) for a, b in every)
        for x, y in list(zip(far, frr, strict=True))[1:-1:40]
    )
    # no gap on either scale
    assert np.diff(far).max() < 0.02
    assert np.diff(np.log10(far[far > 0])).max() < 0.35
    same, tpr = roc(pairs)
    np.testing.assert_array_equal(same, far)
    np.testing.assert_allclose(tpr, 1 - frr)
    assert len(det(made([0.5], []))[0]) == 0


def test_of_many_images_a_sample_of_pairs_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    embeddings, people = generator.normal(size=(300, 8)), np.arange(300) // 3
    whole = Pairs.across(embeddings, embeddings, people)
    some = Pairs.across(embeddings, embeddings, people, most=20_000)
    np.testing.assert_array_equal(np.sort(some.genuine), np.sort(whole.genuine))
    assert len(some.impostor) == pytest.approx(20_000, rel=0.03)
    assert far_at(some, 0.6) == pytest.approx(far_at(whole, 0.6), rel=0.05)
    # the same pairs, however many rows are looked at together
    monkeypatch.setattr(pairs_module, "_ROWS", 7)
    again = Pairs.across(embeddings, embeddings, people, most=20_000)
    np.testing.assert_array_equal(again.first, some.first)
    np.testing.assert_allclose(again.similarity, some.similarity, atol=1e-6)
    fewer = Pairs.across(embeddings, embeddings, people, most=300)
    assert 200 < len(fewer.genuine) < 400
    thinned = whole.thinned(500)
    assert (len(thinned.genuine), len(thinned.impostor)) == (500, 500)
    assert whole.thinned(10**9) is whole


def test_intervals_over_people_by_enumeration() -> None:
    # person 0 is never recognised, person 1 always: of 2 drawn people, FRR is 0, 1/2 or 1
    pairs = made([0.1, 0.9], [0.5])
    found = []

    def statistic(given: Pairs, weights: NDArray[np.float64]) -> float:
        found.append((frr_at(given, 0.5, weights), far_at(given, 0.5, weights)))
        return found[-1][0]

    assert by_identity(pairs, statistic, draws=400) == (0.0, 1.0)
    kinds = [rate for rate, _ in found]
    assert set(kinds) == {0.0, 0.5, 1.0}
    assert kinds.count(0.5) / 400 == pytest.approx(0.5, abs=0.08)
    # the impostor pair is there only where both people were drawn
    assert all(math.isnan(far) == (rate != 0.5) for rate, far in found)


def test_intervals_over_people_are_wider_than_over_pairs() -> None:
    generator = np.random.default_rng(2)
    level = generator.normal(0.6, 0.1, 30).repeat(100)
    similarity = np.clip(level + generator.normal(0, 0.01, 3000), 0, 1)
    person = np.arange(30).repeat(100)
    pairs = Pairs(similarity, np.ones(3000, dtype=bool), person, person)

    def statistic(given: Pairs, weights: NDArray[np.float64]) -> float:
        return frr_at(given, 0.6, weights)

    low, high = by_identity(pairs, statistic, draws=300)
    rate = frr_at(pairs, 0.6)
    assert low < rate < high
    # a standard error of 30 people, not of 3000 pairs
    assert 0.2 < high - low < 0.5
    assert by_identity(pairs, statistic, draws=300) == (low, high)
    assert by_identity(pairs, statistic, draws=300, seed=1) != (low, high)


def test_several_figures_share_their_draws() -> None:
    pairs = drawn(4, 200)
    together = all_by_identity(
        pairs, lambda some, w: (auc(some, w), frr_at(some, 0.5, w)), draws=40, seed=3
    )
    alone = [
        by_identity(pairs, auc, draws=40, seed=3),
        by_identity(pairs, lambda some, w: frr_at(some, 0.5, w), draws=40, seed=3),
    ]
    assert together == alone


def test_rates_at_any_threshold() -> None:
    whole = rates(HAND)
    for limit in (0.0, 0.1, 0.55, 0.6, 0.9, 0.95, 1.0):
        assert whole.at(limit) == pytest.approx((far_at(HAND, limit), frr_at(HAND, limit)))


def test_no_interval_without_pairs() -> None:
    assert all(math.isnan(end) for end in by_identity(made([], []), auc))
    assert all(math.isnan(end) for end in by_identity(made([0.4], []), auc, draws=3))
    with pytest.raises(ValueError, match=r"draws: expected >= 1, got 0"):
        by_identity(HAND, auc, draws=0)
