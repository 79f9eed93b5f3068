"""What single attacks promise beyond the contract."""

from __future__ import annotations

import pytest
import torch

from defender.attacks import FGSM, IFGSM, PGD, Square
from defender.objectives import Classify, Misclassify
from tests import cases


def objective() -> Misclassify:
    return Misclassify(cases.MODEL, cases.labels())


def test_fgsm_is_one_step_to_the_border() -> None:
    images, seeds = cases.images(), cases.seeds()
    one = IFGSM(0.03, 0.03, 1)(images, objective(), seeds=seeds)
    assert torch.allclose(FGSM(0.03)(images, objective(), seeds=seeds), one, atol=1e-7)


def test_a_targeted_objective_reaches_its_class() -> None:
    images, targets = cases.images(), (cases.labels() + 2) % cases.CLASSES
    result = PGD(0.3, 0.05, 20)(images, Classify(cases.MODEL, targets), seeds=cases.seeds())
    assert torch.equal(cases.MODEL(result).argmax(1), targets)


def test_ifgsm_reaches_the_ball_after_its_steps_and_not_before() -> None:
    images, seeds = cases.images(), cases.seeds()
    change = (IFGSM(steps=10)(images, objective(), seeds=seeds) - images).abs()
    assert change.max().item() == pytest.approx(0.015, abs=1e-6)


def test_more_restarts_never_lower_the_score() -> None:
    images, seeds = cases.images(), cases.seeds()
    scores = [
        objective()(PGD(0.1, 0.05, 1, restarts=n)(images, objective(), seeds=seeds))
        for n in (1, 2, 5)
    ]
    assert (scores[1] >= scores[0]).all()
    assert (scores[2] >= scores[1]).all()
    assert scores[2].mean() > scores[0].mean()


def test_random_starts_follow_the_seeds() -> None:
    images, attack = cases.images(), PGD(0.1, 0.01, 1)
    first = attack(images, objective(), seeds=cases.seeds())
    other = attack(images, objective(), seeds=cases.seeds() + 1)
    assert not torch.equal(first, other)


def test_pgd_names_settings_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="restarts: expected 1 without a random start"):
        PGD(0.1, 0.01, 5, restarts=2, random_start=False)
    with pytest.raises(ValueError, match=r"epsilon: expected \[0, 1\] for norm 'linf'"):
        PGD(1.5, 0.1, 5)
    with pytest.raises(ValueError, match=r"norm: expected linf \| l2"):
        PGD(0.1, 0.1, 5, norm="l1")
    assert PGD(1.5, 0.1, 5, norm="l2").budget == "l2"


def test_square_sides_follow_the_schedule_of_the_paper() -> None:
    # the clean image and the stripes are queries too, but no proposals
    attack = Square(0.03, 10_002, p_init=0.8)
    halvings = {
        1: 0, 10: 0, 11: 1, 50: 1, 51: 2, 200: 2, 201: 3, 501: 4, 1001: 5, 2001: 6,
        4001: 7, 6001: 8, 8001: 9, 9999: 9,
    }  # fmt: skip
    for number, halved in halvings.items():
        side = round((0.8 / 2**halved * 224 * 224) ** 0.5)
        assert attack.side(number, 224, 224) == side
    assert attack.side(9999, 12, 12) == 1
    assert Square(0.03, 100, p_init=1.0).side(0, 30, 10) == 10


def test_square_asks_for_as_many_scores_as_it_says() -> None:
    asked = 0

    def counted(images: torch.Tensor) -> torch.Tensor:
        nonlocal asked
        asked += 1
        return objective()(images)

    Square(0.03, 25)(cases.images(), counted, seeds=cases.seeds())
    assert asked == 25


def test_square_gets_better_with_queries_and_changes_values_to_the_border() -> None:
    images, seeds = cases.images(), cases.seeds()
    scores = [
        objective()(Square(0.05, queries)(images, objective(), seeds=seeds)).mean()
        for queries in (10, 100, 400)
    ]
    assert scores[0] < scores[1] < scores[2]
    result = Square(0.05, 100)(images, objective(), seeds=seeds)
    border = torch.isclose((result - images).abs(), torch.tensor(0.05), atol=1e-6)
    assert (border | (result == 0) | (result == 1)).all()


def test_square_wants_one_score_an_image() -> None:
    with pytest.raises(ValueError, match="expected one score an image"):
        Square(0.03, 5)(cases.images(), lambda images: images.mean(), seeds=cases.seeds())
