"""The ten-fold and the template protocol: by hand, and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from defender.metrics.verification_protocols import Templates, folds_in_order, ten_fold


def by_loop(
    similarity: NDArray[np.float64], same: NDArray[np.bool_], folds: NDArray[np.int64]
) -> list[float]:
    """The ten-fold protocol as facenet's evaluation spells it out."""
    distances = 4 * (1 - similarity)
    found = []
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        best, threshold = -1.0, 0.0
        for candidate in [k / 100 for k in range(400)]:
            accuracy = float(np.mean((distances[train] < candidate) == same[train]))
            if accuracy > best:
                best, threshold = accuracy, candidate
        found.append(float(np.mean((distances[test] < threshold) == same[test])))
    return found


def test_folds_in_order() -> None:
    assert folds_in_order(7, 3).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert np.bincount(folds_in_order(6000)).tolist() == [600] * 10
    with pytest.raises(ValueError, match=r"folds: expected 2 to 5 for 5 pairs, got 10"):
        folds_in_order(5)


def test_two_folds_by_hand() -> None:
    # squared distances: fold 0 0.404, 1.6; fold 1 0.804 (one person), 1.2 (two people)
    similarity = np.array([0.899, 0.6, 0.799, 0.7])
    same = np.array([True, False, True, False])
    found = ten_fold(similarity, same, [0, 0, 1, 1])
    # what fold 1 teaches, 0.81, tells the pairs of fold 0 apart; what fold 0 teaches, 0.41, refuses
    # both pairs of fold 1
    assert found.accuracies == (1.0, 0.5)
    assert found.mean == pytest.approx(0.75)
    assert found.std == pytest.approx(0.25)
    assert found.thresholds == pytest.approx((1 - 0.81 / 4, 1 - 0.41 / 4))
    assert found.pairs == (2, 2)


@pytest.mark.parametrize("seed", range(4))
def test_ten_folds_are_those_of_the_loop(seed: int) -> None:
    generator = np.random.default_rng(seed)
    same = generator.random(200) < 0.5
    similarity = np.clip(generator.normal(np.where(same, 0.75, 0.6), 0.1), 0, 1)
    folds = generator.permutation(folds_in_order(200))
    assert ten_fold(similarity, same, folds).accuracies == pytest.approx(
        by_loop(similarity, same, folds)
    )


def test_folds_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"folds: expected two different ones or more, got 1"):
        ten_fold([0.5, 0.5], [True, False], [3, 3])
    with pytest.raises(ValueError, match=r"same: expected \(2,\), got \(1,\)"):
        ten_fold([0.5, 0.5], [True], [0, 1])
    with pytest.raises(ValueError, match=r"similarity: expected numbers, got NaN"):
        ten_fold([0.5, np.nan], [True, False], [0, 1])


def test_a_video_counts_as_much_as_a_picture() -> None:
    # three frames to the right and one picture upwards, of any length: 45 degrees
    embeddings = np.array([[1.0, 0], [2, 0], [5, 0], [0, 3], [0, 1]])
    made = Templates.of(embeddings, [8, 8, 8, 8, 4], [1, 1, 1, 2, 1], [6, 6, 6, 6, 9])
    assert made.names.tolist() == [4, 8]
    assert made.people.tolist() == [9, 6]
    np.testing.assert_allclose(made.embeddings, [[0, 1], [0.5**0.5, 0.5**0.5]], atol=1e-7)
    pairs = made.pairs([4, 8, 8], [8, 8, 4])
    half = (1 + 0.5**0.5) / 2
    np.testing.assert_allclose(pairs.similarity, [half, 1, half], atol=1e-7)
    assert pairs.same.tolist() == [False, True, False]
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([9, 6, 6], [6, 6, 9])


def test_templates_are_those_of_plain_loops() -> None:
    generator = np.random.default_rng(5)
    embeddings = generator.normal(size=(300, 16))
    template, media = generator.integers(0, 40, 300), generator.integers(0, 3, 300)
    made = Templates.of(embeddings, template, media, template // 2)
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    for name, embedding in zip(made.names, made.embeddings, strict=True):
        of_media = [
            units[(template == name) & (media == medium)].mean(axis=0)
            for medium in np.unique(media[template == name])
        ]
        whole = np.mean(of_media, axis=0)
        np.testing.assert_allclose(embedding, whole / np.linalg.norm(whole), atol=1e-6)
    first, second = generator.choice(made.names, (2, 1000))
    pairs = made.pairs(first, second)
    cosines = [
        made.embeddings[made.names == i][0] @ made.embeddings[made.names == j][0]
        for i, j in zip(first, second, strict=True)
    ]
    np.testing.assert_allclose(pairs.similarity, (np.array(cosines) + 1) / 2, atol=1e-6)
    np.testing.assert_array_equal(pairs.same, first // 2 == second // 2)


def test_probes_may_be_other_templates_than_enrolled_ones() -> None:
    clean = Templates.of(np.eye(2), [0, 1], [0, 0], [0, 1])
    purified = Templates.of(np.eye(2)[::-1], [0, 1], [0, 0], [0, 1])
    assert purified.pairs([0, 0], [0, 1], clean).similarity.tolist() == [0.5, 1.0]


def test_templates_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"template: expected one person each, 3 shows several"):
        Templates.of(np.eye(2), [3, 3], [0, 1], [0, 1])
    with pytest.raises(ValueError, match=r"media: expected \(2,\), got \(1,\)"):
        Templates.of(np.eye(2), [0, 1], [0], [0, 1])
    with pytest.raises(ValueError, match=r"embeddings: expected embeddings of some length"):
        Templates.of(np.zeros((1, 2)), [0], [0], [0])
    with pytest.raises(ValueError, match=r"template: expected embeddings of some length"):
        Templates.of(np.array([[1.0, 0], [-1, 0]]), [0, 0], [0, 1], [0, 0])
    made = Templates.of(np.eye(2), [0, 1], [0, 0], [0, 1])
    with pytest.raises(ValueError, match=r"second: expected templates that are there, got 7"):
        made.pairs([0], [7])
