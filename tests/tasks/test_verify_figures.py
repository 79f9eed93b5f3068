"""Figures of a verification system: by hand, and the curves drawn from them."""

from __future__ import annotations

import numpy as np
import pytest

from defender.metrics.rates import wilson
from defender.metrics.verification import Pairs
from defender.metrics.verification_protocols import folds_in_order
from tasks.verify_figures import figures
from tasks.verify_plot import curves


def made(seed: int = 0, people: int = 12) -> Pairs:
    """Every one of some people twice with themselves and with all others."""
    generator = np.random.default_rng(seed)
    first, second = np.meshgrid(np.arange(people), np.arange(people))
    same = first == second
    similarity = np.clip(generator.normal(np.where(same, 0.8, 0.6), 0.08), 0, 1)
    columns = (similarity, same, first, second)
    return Pairs(*(np.concatenate([column.ravel(), column.ravel()]) for column in columns))


HAND = Pairs(
    np.array([0.9, 0.8, 0.6, 0.4, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05]),
    np.arange(10) < 4,
    np.array([0, 1, 2, 3, 0, 0, 0, 1, 1, 2]),
    np.array([0, 1, 2, 3, 1, 2, 3, 2, 3, 3]),
)


def test_figures_by_hand() -> None:
    found = figures(HAND, far=0.2)
    assert found["threshold"] == np.nextafter(np.float32(0.5), np.float32(1))
    assert (found["far"]["value"], found["far"]["n"]) == (pytest.approx(1 / 6), 6)
    assert (found["frr"]["value"], found["frr"]["n"]) == (pytest.approx(1 / 4), 4)
    assert found["far"]["wilson"] == list(wilson(1, 6))
    assert found["frr"]["wilson"] == list(wilson(1, 4))
    # genuine pairs win 6, 6, 5, 4 of 6
    assert found["auc"]["value"] == pytest.approx(21 / 24)
    assert (found["genuine_pairs"], found["impostor_pairs"], found["people"]) == (4, 6, 4)
    # one impostor pair in ten cannot be told from six
    assert found["tpr_at_far"] == []
    assert "ten_fold" not in found


def test_a_fixed_threshold_is_kept() -> None:
    found = figures(HAND, far=0.2, threshold=0.65)
    assert found["threshold"] == 0.65
    assert found["far"]["value"] == pytest.approx(1 / 6)
    assert found["frr"]["value"] == pytest.approx(2 / 4)


def test_every_value_lies_within_its_interval() -> None:
    pairs = made()
    found = figures(pairs, far=0.05, folds=folds_in_order(len(pairs.same)))
    rows = [found[name] for name in ("far", "frr", "eer", "auc")]
    rows += [{"value": one["tpr"], **one} for one in found["tpr_at_far"]]
    for row in rows:
        low, high = row["by_identity"]
        assert low <= row["value"] <= high
        assert low < high
    assert [one["far"] for one in found["tpr_at_far"]] == [0.1, 0.01]
    assert {one["impostor_pairs"] for one in found["tpr_at_far"]} == {264}
    assert len(found["ten_fold"]["folds"]) == 10
    accuracies = [one["accuracy"] for one in found["ten_fold"]["folds"]]
    assert found["ten_fold"]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert figures(pairs, far=0.05, folds=folds_in_order(len(pairs.same))) == found


@pytest.mark.parametrize("kind", ["roc", "det"])
def test_curves_name_every_system(kind: str) -> None:
    systems = [
        {"purifier": name, **figures(made(seed), far=0.05)}
        for seed, name in enumerate(("none", "median(3) & <more>"))
    ]
    text = curves(systems, kind)
    assert text == curves(systems, kind)
    for one in systems:
        assert f"EER {100 * one['eer']['value']:.2f} %" in text
    assert "median(3) &amp; &lt;more&gt;" in text
    assert "100 %" in text
    assert "mathdefault" not in text
