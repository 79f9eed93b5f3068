"""Margins, losses on logits, and both behind defences, on numbers that can be done by hand."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from defender.gradients import gradient
from defender.margins import Margin, margin
from defender.noise import derive_seeds
from defender.objectives import Classify, Defended, Misclassify, RaiseScore, ScaleTo
from defender.objectives_logits import (
    DLR,
    LogitDifference,
    TargetedDLR,
    goal_of,
    ranked_targets,
    with_dlr,
    with_goal,
)
from tests import cases


def linear(images: Tensor) -> Tensor:
    """The four values of an image of 2 x 2 pixels, as its logits."""
    return images.flatten(1)


def two_classes(images: Tensor) -> Tensor:
    return images.flatten(1)[:, :2]


IMAGES = torch.tensor([[0.9, 0.5, 0.1, 0.3], [0.2, 0.3, 0.6, 0.5]]).view(2, 1, 2, 2)
LABELS = torch.tensor([0, 3])


@dataclass(frozen=True)
class Turned:
    """A purifier that moves every value one place on, and adds a number of its draw."""

    amount: float = 0.0
    version: ClassVar[int] = 1
    paper: ClassVar[str] = "none"
    keeps_size: ClassVar[bool] = True
    knowledge: ClassVar[str] = "blind"

    def __call__(self, images: Tensor, *, seeds: Tensor, reference: Any = None) -> Tensor:
        moved = images.flatten(1).roll(1, dims=1)
        first = moved[:, :1] + (seeds % 7).unsqueeze(1) * self.amount
        return torch.cat([first, moved[:, 1:]], dim=1).view_as(images)


class Brightness:
    """A detector of bright first pixels."""

    def __call__(self, images: Tensor, *, seeds: Tensor, reference: Any = None) -> Tensor:
        return images[:, 0, 0, 0]


def test_margins_of_classifiers() -> None:
    assert margin(Misclassify(linear, LABELS), IMAGES).tolist() == pytest.approx([-0.4, 0.1])
    assert margin(Classify(linear, LABELS), IMAGES).tolist() == pytest.approx([0.4, -0.1])
    assert margin(Classify(linear, torch.tensor([2, 2])), IMAGES).tolist() == pytest.approx(
        [-0.8, 0.1]
    )


def test_the_gradient_of_a_margin_is_that_of_the_two_classes() -> None:
    slopes = gradient(Margin(Misclassify(linear, LABELS)), IMAGES).flatten(1)
    assert slopes.tolist() == [[-1, 1, 0, 0], [0, 0, 1, -1]]


def test_an_objective_may_have_a_margin_of_its_own() -> None:
    class Own:
        def __call__(self, images: Tensor) -> Tensor:
            return images.sum(dim=(1, 2, 3))

        def margin(self, images: Tensor) -> Tensor:
            return self(images) - 1.7

    assert margin(Own(), IMAGES).tolist() == pytest.approx([0.1, -0.1])
    behind = Defended(Own(), Turned(), torch.tensor([7, 14]))
    assert margin(behind, IMAGES).tolist() == pytest.approx([0.1, -0.1])


@pytest.mark.parametrize(
    "objective",
    [RaiseScore(cases.QUALITY), ScaleTo(cases.SCALER, cases.targets(8)), linear],
    ids=["RaiseScore", "ScaleTo", "function"],
)
def test_an_objective_without_an_aim_is_named(objective: Any) -> None:
    name = getattr(objective, "__name__", type(objective).__name__)
    seeds = torch.zeros(8, dtype=torch.int64)
    for asked in (objective, Defended(objective, Turned(), seeds)):
        with pytest.raises(TypeError, match=f"margin: .*notion of success.*{name}"):
            margin(asked, cases.images())


def test_a_margin_sees_through_a_purifier_and_is_the_mean_of_its_draws() -> None:
    goal, seeds = Misclassify(linear, LABELS), torch.tensor([5, 6])
    # behind the turn: [.3, .9, .5, .1] labelled 0 and [.5, .2, .3, .6] labelled 3
    assert margin(Defended(goal, Turned(), seeds), IMAGES).tolist() == pytest.approx([0.6, -0.1])
    random = Defended(goal, Turned(0.01), seeds, draws=3)
    draws = [derive_seeds(seeds, f"draw {k}") % 7 for k in range(3)]
    expected = [
        sum(0.6 - 0.01 * int(draw[0]) for draw in draws) / 3,
        sum(max(0.5 + 0.01 * int(draw[1]), 0.3) - 0.6 for draw in draws) / 3,
    ]
    assert margin(random, IMAGES).tolist() == pytest.approx(expected)
    assert gradient(Margin(random), IMAGES).flatten(1)[0].tolist() == [-1, 1, 0, 0]


def test_a_margin_is_below_zero_where_the_detector_rejects() -> None:
    goal, seeds = Classify(linear, torch.tensor([0, 2])), torch.tensor([5, 6])
    watched = Defended(goal, None, seeds, detector=Brightness(), threshold=0.7, weight=100.0)
    assert margin(watched, IMAGES).tolist() == pytest.approx([-0.2, 0.1])
    both = Defended(goal, Turned(), seeds, detector=Brightness(), threshold=0.7)
    # behind the turn 0.3 - 0.9 is less than what the detector has in excess; 0.3 - 0.6 there
    assert margin(both, IMAGES).tolist() == pytest.approx([-0.6, -0.3])


def test_dlr_by_hand() -> None:
    # sorted .9 .5 .3 .1 and .6 .5 .3 .2
    assert DLR(linear, LABELS)(IMAGES).tolist() == pytest.approx([-0.4 / 0.6, 0.1 / 0.3])
    targets = torch.tensor([1, 0])
    expected = [(0.5 - 0.9) / (0.9 - 0.2), (0.2 - 0.5) / (0.6 - 0.25)]
    assert TargetedDLR(linear, targets, LABELS)(IMAGES).tolist() == pytest.approx(expected)
    alone = TargetedDLR(linear, torch.tensor([1, 2]))(IMAGES)
    assert alone.tolist() == pytest.approx([-0.4 / 0.7, 0.1 / 0.35])
    assert LogitDifference(linear, targets, LABELS)(IMAGES).tolist() == pytest.approx([-0.4, -0.3])


def test_dlr_does_not_depend_on_the_scale_of_the_logits() -> None:
    def scaled(images: Tensor) -> Tensor:
        return 1000 * linear(images) + 3

    labels = torch.tensor([1, 1])
    assert torch.allclose(DLR(scaled, labels)(IMAGES), DLR(linear, labels)(IMAGES), atol=1e-5)
    assert torch.allclose(
        TargetedDLR(scaled, LABELS, labels)(IMAGES), TargetedDLR(linear, LABELS, labels)(IMAGES)
    )


def test_dlr_of_equal_classes_is_zero() -> None:
    flat = torch.full((2, 1, 2, 2), 0.5)
    assert DLR(linear, LABELS)(flat).tolist() == [0, 0]
    assert torch.isfinite(gradient(DLR(linear, LABELS), flat)).all()


def test_dlr_refuses_too_few_classes() -> None:
    def three_classes(images: Tensor) -> Tensor:
        return images.flatten(1)[:, :3]

    with pytest.raises(ValueError, match="DLR: expected a model of >= 3 classes, got 2"):
        DLR(two_classes, torch.tensor([0, 1]))(IMAGES)
    with pytest.raises(ValueError, match="TargetedDLR: expected a model of >= 4 classes, got 3"):
        TargetedDLR(three_classes, torch.tensor([0, 1]))(IMAGES)
    assert DLR(three_classes, torch.tensor([0, 1]))(IMAGES).shape == (2,)


def test_labels_that_the_model_does_not_have_are_named() -> None:
    with pytest.raises(ValueError, match=r"expected classes below 2 .*got 3"):
        margin(Misclassify(two_classes, LABELS), IMAGES)
    with pytest.raises(ValueError, match="expected 2 labels for as many images, got 3"):
        DLR(linear, torch.tensor([0, 1, 2]))(IMAGES)


def test_another_loss_goes_inside_of_the_defences() -> None:
    seeds = torch.tensor([5, 6])
    inner = Defended(Misclassify(linear, LABELS), Turned(), seeds, draws=2)
    outer = Defended(inner, Turned(0.1), seeds)
    swapped = with_dlr(outer)
    assert isinstance(swapped, Defended)
    assert isinstance(swapped.objective, Defended)
    assert swapped.objective.draws == 2
    assert swapped.purifier == Turned(0.1)
    assert isinstance(goal_of(swapped), DLR)
    assert isinstance(goal_of(outer), Misclassify)
    expected = DLR(linear, LABELS)(Turned()(IMAGES, seeds=seeds))
    assert torch.allclose(with_dlr(inner)(IMAGES), expected)
    targeted = goal_of(with_dlr(Classify(linear, LABELS)))
    assert isinstance(targeted, TargetedDLR)
    assert torch.equal(targeted.targets, LABELS)
    assert with_goal(linear, two_classes) is two_classes
    with pytest.raises(TypeError, match=r"DLR: .*classifier.*RaiseScore"):
        with_dlr(Defended(RaiseScore(cases.QUALITY), Turned(), seeds))


def test_targets_are_the_best_other_classes_in_order() -> None:
    goal = Misclassify(linear, LABELS)
    assert ranked_targets(goal, IMAGES, 2).tolist() == [[1, 2], [3, 1]]
    assert ranked_targets(goal, IMAGES, 9).tolist() == [[1, 2], [3, 1], [2, 0]]
    tied = dataclasses.replace(goal, labels=torch.tensor([1, 2]))
    equal = torch.full((2, 1, 2, 2), 0.5)
    assert ranked_targets(tied, equal, 3).T.tolist() == [[0, 2, 3], [0, 1, 3]]
