"""The attack of Carlini and Wagner where the smallest changes are known."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from defender.attacks import FAB, CarliniWagner
from defender.attacks.storing import lasting
from defender.margins import margin
from defender.norms import from_uint8, lengths, quantise_within
from defender.objectives import Classify, Misclassify
from tests import cases

WEIGHTS = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, -3.0]])
IMAGE = torch.tensor([0.7, 0.3, 0.3, 0.9]).view(1, 1, 2, 2)
SEEDS = torch.tensor([5])


def planes(images: Tensor) -> Tensor:
    """A linear classifier of images of 2 x 2 pixels, 3 classes."""
    return images.flatten(1) @ WEIGHTS.T


@pytest.mark.parametrize(
    "goal",
    [Misclassify(planes, torch.tensor([0])), Classify(planes, torch.tensor([1]))],
    ids=["away", "towards"],
)
def test_a_linear_classifier_gives_way_at_the_known_distance(goal: Misclassify | Classify) -> None:
    attack = CarliniWagner(10.0, 200, 9, 0.005, stored=False)
    length = lengths(attack(IMAGE, goal, seeds=SEEDS) - IMAGE).item()
    # 2 a - b - c = 0.8 with slopes 2, -1, -1: 0.8 / sqrt(6)
    assert 0.8 / 6**0.5 < length < 1.03 * 0.8 / 6**0.5
    # a margin of 0.4: 1.2 / sqrt(6)
    sure = dataclasses.replace(attack, confidence=0.4)(IMAGE, goal, seeds=SEEDS)
    assert margin(goal, sure).item() >= 0.4
    assert lengths(sure - IMAGE).item() == pytest.approx(1.2 / 6**0.5, rel=0.03)


def test_the_multiple_is_searched_for_upwards_and_downwards() -> None:
    goal = Misclassify(planes, torch.tensor([0]))
    # too small by far to pay for any change, then ten times as large, and so on
    assert torch.equal(
        CarliniWagner(10.0, 100, 1, 0.01, constant=1e-6, stored=False)(IMAGE, goal, seeds=SEEDS),
        IMAGE,
    )
    up = CarliniWagner(10.0, 100, 8, 0.01, constant=1e-6, stored=False)(IMAGE, goal, seeds=SEEDS)
    assert margin(goal, up) > 0
    one = CarliniWagner(10.0, 20, 1, 0.05, constant=1e3, stored=False)(IMAGE, goal, seeds=SEEDS)
    down = CarliniWagner(10.0, 20, 14, 0.05, constant=1e3, stored=False)(IMAGE, goal, seeds=SEEDS)
    assert lengths(down - IMAGE) < lengths(one - IMAGE)


def test_is_about_as_good_as_fab() -> None:
    images = cases.images()
    goal = Misclassify(cases.MODEL, cases.MODEL(images).argmax(1))
    fab = lengths(FAB(9.0, "l2", 20, stored=False)(images, goal, seeds=cases.seeds()) - images)
    attack = CarliniWagner(9.0, 100, 9, 0.01, stored=False)
    found = lengths(attack(images, goal, seeds=cases.seeds()) - images)
    assert (found < 1.1 * fab).all()
    assert (found > 0.9 * fab).all()


class Alike:
    """Similar brightness to something else, accepted from 0.6 on."""

    def __call__(self, images: Tensor) -> Tensor:
        return 1 - (images.mean(dim=(1, 2, 3)) - 0.9).abs()

    def margin(self, images: Tensor) -> Tensor:
        return self(images) - 0.6


def test_a_similarity_is_reached_with_the_least_change() -> None:
    image = torch.full((1, 1, 4, 4), 0.4)
    attack = CarliniWagner(9.0, 100, 9, 0.01, stored=False)
    result = attack(image, Alike(), seeds=SEEDS)
    assert margin(Alike(), result) > 0
    assert lengths(result - image).item() == pytest.approx(0.1 * 4, rel=0.03)


def test_changes_are_lengthened_until_they_last() -> None:
    def third(images: Tensor) -> Tensor:
        """Above 0 from 0.5 + 1.4 levels on."""
        value = images.amax(dim=(1, 2, 3)) - (128 + 1.4) / 255
        return torch.stack([-value, value], dim=1)

    clean = torch.full((2, 1, 2, 2), 128 / 255)
    goal = Classify(third, torch.tensor([1, 1]))
    attacked = clean.clone()
    attacked[0, 0, 0, 0] += 1.45 / 255  # stored as 1 level; 1.1 times as much is 1.6, stored as 2
    attacked[1, 0, 0, 0] += 0.1 / 255  # 4 times as much is too little still
    result = lasting(attacked, clean, goal, "linf", 0.1)
    assert (result - clean)[0].max().item() * 255 == pytest.approx(1.595, abs=1e-3)
    assert torch.equal(result[1], attacked[1])
    # the ball does not hold the second level
    assert torch.equal(lasting(attacked, clean, goal, "linf", 1.46 / 255), attacked)


@pytest.mark.parametrize("stored", [True, False])
def test_results_may_have_to_last(stored: bool) -> None:
    images = cases.images()
    goal = Misclassify(cases.MODEL, cases.MODEL(images).argmax(1))
    attack = CarliniWagner(2.0, 50, 5, 0.02, stored=stored)
    result = attack(images, goal, seeds=cases.seeds())
    assert (margin(goal, result) > 0).all()
    kept = from_uint8(quantise_within(result, images, norm="l2", epsilon=2.0))
    assert bool((margin(goal, kept) > 0).all()) is stored
