"""Terms that make a patch printable, and success as it is counted in training."""

from __future__ import annotations

import pytest
import torch

from defender.ensembles import Ensemble
from defender.objectives import Classify, Defended, Misclassify
from defender.patch_penalties import PRINTABLE, non_printability, total_variation
from defender.patch_training import Watch
from defender.purifiers import Median
from tests import cases


def test_total_variation_by_hand() -> None:
    theta = torch.tensor([[[0.0, 1.0], [0.25, 0.75]], [[0.5, 0.5], [0.5, 0.5]]])
    # across 1 + 0.5, down 0.25 + 0.25, in one of two channels with 4 pairs each
    assert total_variation(theta).item() == pytest.approx(2.0 / 8, abs=1e-7)
    board = (torch.arange(16).view(4, 4) + torch.arange(4)[:, None]).remainder(2).float()
    assert total_variation(board.expand(3, 4, 4)).item() == 1.0
    assert total_variation(torch.ones(3, 1, 1)).item() == 0.0
    theta.requires_grad_(True)
    total_variation(theta).backward()
    # the cell of 1 stands above both of its neighbours
    assert theta.grad is not None
    assert theta.grad[0, 0, 1].item() == pytest.approx(2 / 8)
    assert theta.grad[1].abs().max() == 0


def test_printable_colours_are_those_of_three_inks() -> None:
    levels = (PRINTABLE * 255).round().int().tolist()
    assert len({tuple(colour) for colour in levels}) == 27
    for solid in ((255, 255, 255), (0, 158, 227), (230, 0, 126), (255, 237, 0), (29, 29, 27)):
        assert list(solid) in levels
    # half of the paper covered by cyan reflects (1 + 0) / 2 of red light: 0.5 is 188 in sRGB
    assert [188, 214, 242] in levels
    assert PRINTABLE.min() >= 0
    assert PRINTABLE.max() <= 1


def test_non_printability_by_hand() -> None:
    theta = PRINTABLE[[0, 5, 20, 26]].T.reshape(3, 2, 2).clone()
    assert non_printability(theta).item() == 0.0
    blue = torch.tensor([0.0, 0.0, 1.0])  # far from all inks
    theta[:, 1, 1] = blue
    nearest = min((blue - colour).pow(2).sum().sqrt().item() for colour in PRINTABLE)
    assert nearest > 0.3
    theta.requires_grad_(True)
    score = non_printability(theta)
    assert score.item() == pytest.approx(nearest / 4, abs=1e-6)
    score.backward()
    assert theta.grad is not None
    assert theta.grad[:, 0].abs().max() == 0
    assert theta.grad[:, 1, 1].norm().item() == pytest.approx(1 / 4, abs=1e-6)
    assert non_printability(torch.ones(1, 3, 3)).item() == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(ValueError, match="theta: expected 1 or 3 channels, got 2"):
        non_printability(torch.zeros(2, 3, 3))


def test_success_is_that_of_the_predicted_class() -> None:
    images, predicted = cases.images(), cases.MODEL(cases.images()).argmax(1)
    labels = predicted.clone()
    labels[:3] = (labels[:3] + 1) % cases.CLASSES
    for objective, met in (
        (Misclassify(cases.MODEL, labels), 3),
        (Classify(cases.MODEL, labels), 5),
    ):
        watch = Watch(objective)
        scores = watch.objective(images)
        assert torch.equal(scores, objective(images))
        assert watch.successes(scores) == met
        assert repr(watch.objective) == repr(objective)


def test_success_behind_a_defence_and_of_other_objectives() -> None:
    images, defence = cases.images(), Median()
    behind = cases.MODEL(defence(images, seeds=cases.seeds())).argmax(1)
    defended = Defended(Classify(cases.MODEL, behind), defence, cases.seeds())
    watch = Watch(defended)
    assert watch.successes(watch.objective(images)) == 8
    goals = (Classify(cases.MODEL, cases.MODEL(images).argmax(1)), Misclassify(cases.MODEL, behind))
    both = Watch(Ensemble(goals))
    differ = (goals[0].targets != behind).sum().item()
    assert both.successes(both.objective(images)) == (8 + differ) / 2
    other = Watch(lambda images: images.mean(dim=(1, 2, 3)) - 0.5)
    scores = other.objective(images)
    assert 0 < other.successes(scores) == int((scores > 0).sum()) < 8
