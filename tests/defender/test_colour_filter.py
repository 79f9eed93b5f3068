"""The colour filter against the authors' curve, written out, and torch's own Adam."""

from __future__ import annotations

import pytest
import torch

from defender.attacks.colour_filter import AdvCF, Pieces
from defender.objectives import RaiseScore
from defender.types import Objective
from tests import cases


def curve(images: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """The sum over pieces of the paper, one term after the other."""
    count = theta.shape[2]
    parts = theta / theta.sum(dim=2, keepdim=True)
    total = torch.zeros_like(images)
    for k in range(count):
        total = total + (count * images - k).clamp(0, 1) * parts[:, :, k, None, None]
    return total


def by_autograd(
    images: torch.Tensor, objective: Objective, span: float, attack: AdvCF
) -> torch.Tensor:
    """The attack as the authors write it, one image."""
    theta = torch.full((1, images.shape[1], attack.pieces), 1 / attack.pieces, dtype=images.dtype)
    theta.requires_grad_()
    optimiser = torch.optim.Adam([theta], lr=attack.step_size)
    best, best_score = images, objective(images)
    for _ in range(attack.steps):
        parts = theta / theta.sum(dim=2, keepdim=True)
        score = objective(curve(images, theta))
        loss = 1 - score.sum() / span + attack.weight * (parts - 1 / attack.pieces).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        theta.data.clamp_(min=1e-6 / attack.pieces)
        filtered = curve(images, theta.detach())
        if objective(filtered) > best_score:
            best, best_score = filtered, objective(filtered)
    return best


@pytest.mark.parametrize(
    "attack",
    [
        AdvCF(step_size=0.01, pieces=5, weight=0.0),
        AdvCF(step_size=0.02, steps=7, pieces=8),
        AdvCF(step_size=0.01, pieces=4, weight=5.0),
        AdvCF(),
    ],
    ids=repr,
)
@pytest.mark.parametrize("channels", [1, 3])
def test_is_the_papers_minimisation(attack: AdvCF, channels: int) -> None:
    images = cases.images(4, channels).double()
    objective = RaiseScore(cases.SmoothQuality(channels).double())
    attacked = attack(images, objective, seeds=cases.seeds(4))
    assert not torch.equal(attacked, images)
    for i in range(4):
        expected = by_autograd(images[i : i + 1], objective, 100.0, attack)
        torch.testing.assert_close(attacked[i : i + 1], expected, rtol=0, atol=1e-7)


def test_a_curve_by_hand() -> None:
    images = torch.tensor([0.0, 0.125, 0.25, 0.5, 0.75, 1.0]).view(1, 1, 1, 6)
    parts = torch.tensor([[[0.1, 0.5, 0.0, 0.4]]])
    expected = torch.tensor([0.0, 0.05, 0.1, 0.6, 0.6, 1.0]).view(1, 1, 1, 6)
    torch.testing.assert_close(Pieces(images, 4).apply(parts), expected)


def test_equal_pieces_are_the_identity() -> None:
    images = cases.images()
    for count in (1, 3, 64):
        parts = torch.full((8, 3, count), 1 / count)
        torch.testing.assert_close(Pieces(images, count).apply(parts), images, rtol=0, atol=3e-7)


def test_the_gradient_is_that_of_the_curve() -> None:
    images = cases.images(2).double()
    parts = torch.rand(2, 3, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(2, 3, 12, 12, dtype=torch.float64)
    count = parts.shape[2]
    terms = [(count * images - k).clamp(0, 1) * parts[:, :, k, None, None] for k in range(count)]
    (expected,) = torch.autograd.grad((torch.stack(terms).sum(0) * weights).sum(), parts)
    torch.testing.assert_close(Pieces(images, count).pull_back(weights), expected)


def test_equal_values_stay_equal_and_keep_their_order() -> None:
    images = cases.images()
    attacked = AdvCF(step_size=0.003)(images, RaiseScore(cases.QUALITY), seeds=cases.seeds())
    for before, after in zip(images.flatten(0, 1), attacked.flatten(0, 1), strict=True):
        values, index = before.flatten().sort()
        ordered = after.flatten()[index]
        assert (ordered.diff() >= -1e-6).all()
        assert ordered.diff()[values.diff() == 0].abs().max() == 0
        assert ordered[values == 0].abs().sum() == 0
        assert (ordered[values == 1] > 1 - 1e-6).all()


def test_an_image_that_gains_nothing_stays() -> None:
    def worse_when_changed(images: torch.Tensor) -> torch.Tensor:
        return -(images - clean[: len(images)]).square().mean(dim=(1, 2, 3))

    clean = cases.images()
    attacked = AdvCF()(clean, worse_when_changed, seeds=cases.seeds())
    assert torch.equal(attacked, clean)


def test_the_change_grows_with_the_step() -> None:
    images, objective = cases.images(), RaiseScore(cases.QUALITY)
    changes = []
    for step_size in (1e-4, 3e-4, 1e-3, 3e-3):
        attacked = AdvCF(step_size=step_size)(images, objective, seeds=cases.seeds())
        changes.append((attacked - images).abs().amax(dim=(1, 2, 3)).mean().item())
    assert changes == sorted(changes)
    assert changes[1] == pytest.approx(3 * changes[0], rel=0.1)


def test_gradients_that_are_not_finite_leave_the_image() -> None:
    def broken(images: torch.Tensor) -> torch.Tensor:
        return (images - images).sqrt().sum(dim=(1, 2, 3))

    images = cases.images()
    assert torch.equal(AdvCF()(images, broken, seeds=cases.seeds()), images)
