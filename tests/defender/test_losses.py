from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from defender.losses import norm_in_norm

PREDICTED = torch.tensor([1.0, 2.0, 3.0])
TARGET = torch.tensor([1.0, 3.0, 2.0])


@pytest.mark.parametrize(
    ("p", "q", "expected"),
    [
        # (-1, 0, 1) and (-1, 1, 0), both over sqrt(2): the 1-norm of the difference is sqrt(2)
        (1.0, 2.0, math.sqrt(2) / (2 * math.sqrt(3))),
        # half of 1 minus the correlation, which is 1/2
        (2.0, 2.0, 0.25),
        # both over 2: the 1-norm of (0, -1/2, 1/2) is 1
        (1.0, 1.0, 0.5),
        # q infinite: both over 1, difference (0, -1, 1), scale 2 * 3
        (1.0, math.inf, 2 / 6),
        # p above q: no factor of n; difference (0, -1/2, 1/2), (1/4 + 1/4) / 2^2
        (2.0, 1.0, 0.125),
    ],
)
def test_values_worked_out_by_hand(p: float, q: float, expected: float) -> None:
    assert norm_in_norm(PREDICTED, TARGET, p, q).item() == pytest.approx(expected, rel=1e-5)


def test_the_defaults_are_those_of_the_paper() -> None:
    assert torch.equal(norm_in_norm(PREDICTED, TARGET), norm_in_norm(PREDICTED, TARGET, 1, 2))


def test_two_reversed_scores_are_as_wrong_as_can_be() -> None:
    loss = norm_in_norm(torch.tensor([0.0, 5.0]), torch.tensor([70.0, 20.0]))
    assert loss.item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(("p", "q"), [(1.0, 2.0), (2.0, 2.0), (1.0, 1.0), (1.5, 3.0)])
def test_shift_and_positive_scale_change_nothing(p: float, q: float) -> None:
    generator = torch.Generator().manual_seed(4)
    predicted, target = torch.randn(2, 9, generator=generator, dtype=torch.float64)
    loss = norm_in_norm(predicted, target, p, q)
    for moved in (3 * predicted + 7, 0.01 * predicted - 100):
        assert norm_in_norm(moved, target, p, q).item() == pytest.approx(loss.item(), abs=1e-6)
        assert norm_in_norm(predicted, 50 + moved, p, q).item() >= 0
    assert norm_in_norm(predicted, 20 * target + 50, p, q).item() == pytest.approx(loss.item())
    assert abs(norm_in_norm(-predicted, target, p, q).item() - loss.item()) > 1e-3
    assert 0 < loss.item() < 1
    assert norm_in_norm(5 * target + 2, target, p, q).item() == pytest.approx(0, abs=1e-6)


def _gradient(predicted: Tensor, target: Tensor) -> Tensor:
    predicted = predicted.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(norm_in_norm(predicted, target), predicted)
    return gradient


def test_the_gradient_keeps_mean_and_norm() -> None:
    gradient = _gradient(torch.tensor([1.0, 4.0, 2.0, 3.5]), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert gradient.abs().max() > 1e-3
    # a shift and a scale change nothing, so the gradient is orthogonal to both
    assert gradient.sum().item() == pytest.approx(0, abs=1e-6)
    assert gradient @ torch.tensor([1.0, 4.0, 2.0, 3.5]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 53.7])
def test_equal_predictions_have_a_finite_gradient(value: float) -> None:
    gradient = _gradient(torch.full((4,), value), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert torch.isfinite(gradient).all()


def test_a_single_image_teaches_nothing() -> None:
    predicted = torch.tensor([3.0], requires_grad=True)
    loss = norm_in_norm(predicted, torch.tensor([50.0]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert predicted.grad is not None
    assert predicted.grad.item() == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((PREDICTED, TARGET, 0.5), "p: expected a norm >= 1, got 0.5"),
        ((PREDICTED, TARGET, 1.0, math.nan), "q: expected a norm >= 1, got nan"),
        ((PREDICTED, TARGET[:2]), r"got \(3,\) and \(2,\)"),
        ((PREDICTED[:, None], TARGET[:, None]), r"got \(3, 1\) and \(3, 1\)"),
        ((PREDICTED[:0], TARGET[:0]), r"got \(0,\) and \(0,\)"),
    ],
)
def test_wrong_arguments(arguments: tuple[Tensor, ...], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        norm_in_norm(*arguments)
