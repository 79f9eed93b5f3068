"""SSAH against the paper's loss minimised by torch's own Adam."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from defender.attacks.ssah import SSAH, block_means
from defender.objectives import Misclassify, RaiseScore
from defender.types import Objective
from defender.wavelets import dwt, idwt
from tests import cases


def low_part(images: torch.Tensor) -> torch.Tensor:
    low, (details,) = dwt(images)
    return idwt(low, [torch.zeros_like(details)], (images.shape[2], images.shape[3]))


def by_autograd(
    images: torch.Tensor, objective: Objective, span: float, attack: SSAH
) -> torch.Tensor:
    """The attack as the authors write it, one image."""
    attacked = images.clone().requires_grad_()
    optimiser = torch.optim.Adam([attacked], lr=attack.step_size)
    for _ in range(attack.steps):
        kept = functional.smooth_l1_loss(low_part(attacked), low_part(images), reduction="sum")
        loss = 1 - objective(attacked).sum() / span + attack.weight * kept
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        attacked.data.clamp_(0.0, 1.0)
    return attacked.detach()


@pytest.mark.parametrize("size", [(12, 12), (7, 10), (5, 9)], ids=str)
@pytest.mark.parametrize("weight", [0.0, 0.1, 1.0])
def test_is_the_papers_minimisation(size: tuple[int, int], weight: float) -> None:
    images = functional.interpolate(cases.images(3), size=size).double()
    quality = cases.SmoothQuality().double()
    attack = SSAH(step_size=0.004, steps=6, weight=weight)
    attacked = attack(images, RaiseScore(quality), seeds=cases.seeds(3))
    for i in range(3):
        expected = by_autograd(images[i : i + 1], RaiseScore(quality), 100.0, attack)
        torch.testing.assert_close(attacked[i : i + 1], expected, rtol=0, atol=1e-9)


def test_block_means_by_hand() -> None:
    image = torch.tensor([[1.0, 3.0, 5.0], [5.0, 7.0, 9.0], [2.0, 4.0, 8.0]]).view(1, 1, 3, 3)
    expected = [[4.0, 4.0, 7.0], [4.0, 4.0, 7.0], [3.0, 3.0, 8.0]]
    assert block_means(image)[0, 0].tolist() == expected
    torch.testing.assert_close(block_means(image), low_part(image))


def test_the_weight_moves_the_change_to_high_frequencies() -> None:
    block = torch.tensor([[3e-4, 1e-4], [1e-4, 3e-4]]).repeat(6, 6)

    def mostly_low(images: torch.Tensor) -> torch.Tensor:
        return (images * block).sum(dim=(1, 2, 3))

    images, shares = torch.full((1, 3, 12, 12), 0.5), []
    for weight in (0.0, 0.1):
        attacked = SSAH(step_size=0.003, weight=weight)(images, mostly_low, seeds=cases.seeds(1))
        change = attacked - images
        shares.append((block_means(change).square().sum() / change.square().sum()).item())
        assert mostly_low(attacked) > mostly_low(images)
    assert shares[0] == pytest.approx(1.0, abs=1e-6)
    assert shares[1] < 0.1


def test_a_gradient_that_is_not_finite_somewhere_does_not_spread() -> None:
    def broken(images: torch.Tensor) -> torch.Tensor:
        scores = images.square().sum(dim=(1, 2, 3))
        return scores + 0 * (images[:, :, 0, 0] - images[:, :, 0, 0].detach()).sqrt().sum(dim=1)

    images = cases.images(2).clamp(0.2, 0.8)
    attacked = SSAH(weight=0.0)(images, broken, seeds=cases.seeds(2))
    changed = attacked != images
    assert not changed[:, :, 0, 0].any()
    assert changed[:, :, 1:].all()


def test_a_loss_far_from_the_scale_of_a_metric_is_raised_as_well() -> None:
    images = cases.images()
    objective = Misclassify(cases.MODEL, cases.labels())
    attacked = SSAH(step_size=0.003)(images, objective, seeds=cases.seeds())
    assert (objective(attacked) > objective(images)).all()
    assert (attacked - images).abs().max() <= 1.03 * 10 * 0.003
