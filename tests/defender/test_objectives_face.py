"""Impersonating and dodging: values by hand, margins, gradients, and the errors that name them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from defender.attacks import PGD
from defender.objectives import Defended, gradient, value_and_gradient
from defender.objectives_face import Dodge, Impersonate
from defender.purifiers import BitDepth
from defender.types import Objective
from tests import cases


class Halves(nn.Module):
    """Embeds an image as the means of its left and right half."""

    def forward(self, images: Tensor) -> Tensor:
        half = images.shape[3] // 2
        sides = [images[..., :half], images[..., half:]]
        return torch.stack([side.mean(dim=(1, 2, 3)) for side in sides], dim=1)


ENCODER = Halves().eval()


def halves(left: list[float], right: list[float]) -> Tensor:
    """Grey images 4 x 4 with two values."""
    values = torch.tensor([left, right], dtype=torch.float64).T
    return values.repeat_interleave(2, dim=1)[:, None, None].expand(-1, 1, 4, -1).contiguous()


IMAGES = halves([1.0, 1.0, 0.0], [0.0, 1.0, 0.5])
ENROLLED = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
# angles of 0, 45 and 90 degrees
SIMILARITY = torch.tensor([1.0, (0.5**0.5 + 1) / 2, 0.5], dtype=torch.float64)


@pytest.mark.parametrize(("kind", "sign"), [(Impersonate, 1.0), (Dodge, -1.0)])
def test_scores_and_margins_by_hand(kind: Any, sign: float) -> None:
    objective = kind(ENCODER, ENROLLED, threshold=0.8)
    torch.testing.assert_close(objective(IMAGES), sign * SIMILARITY)
    torch.testing.assert_close(objective.margin(IMAGES), sign * (SIMILARITY - 0.8))
    assert isinstance(objective, Objective)
    assert objective.span == 1.0
    assert repr(objective) == f"{kind.__name__}(encoder=Halves(), images=3, threshold=0.8)"


@pytest.mark.parametrize(("kind", "sign"), [(Impersonate, 1.0), (Dodge, -1.0)])
def test_gradient_points_where_the_similarity_rises_or_falls(kind: Any, sign: float) -> None:
    slope = gradient(kind(ENCODER, ENROLLED), IMAGES[1:2].repeat(3, 1, 1, 1))
    assert (sign * slope[..., :2] > 0).all()
    assert (sign * slope[..., 2:] < 0).all()


def test_an_attack_passes_as_somebody_else() -> None:
    images = cases.images(3)
    enrolled = ENCODER(images.flip(3))
    objective = Impersonate(ENCODER, enrolled, threshold=0.999)
    attack = PGD(epsilon=0.3, step_size=0.05, steps=20)
    attacked = attack(images, objective, seeds=torch.arange(3))
    assert not (objective.margin(images) > 0).all()
    assert (objective.margin(attacked) > 0).all()


def test_through_a_defence_and_in_inference_mode() -> None:
    with torch.inference_mode():
        enrolled = ENROLLED + 0
    seeds = torch.arange(3)
    objective = Defended(Impersonate(ENCODER, enrolled), BitDepth(), seeds)
    assert objective.span == 1.0
    scores, slope = value_and_gradient(objective, IMAGES)
    torch.testing.assert_close(scores, SIMILARITY, atol=0.02, rtol=0)
    assert bool(slope[1].abs().sum() > 0)


@pytest.mark.parametrize("kind", [Impersonate, Dodge])
def test_a_margin_without_a_threshold_is_a_type_error(kind: Any) -> None:
    with pytest.raises(TypeError, match=rf"{kind.__name__}\(.*expected a threshold"):
        kind(ENCODER, ENROLLED).margin(IMAGES)


@pytest.mark.parametrize("kind", [Impersonate, Dodge])
def test_mistakes_are_named(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"enrolled: expected floating-point .* torch.int64"):
        kind(ENCODER, ENROLLED.long())
    with pytest.raises(ValueError, match=r"enrolled: expected .*\(2,\)"):
        kind(ENCODER, ENROLLED[0])
    with pytest.raises(ValueError, match=r"threshold: expected \[0, 1\], got 1.5"):
        kind(ENCODER, ENROLLED, threshold=1.5)
    with pytest.raises(ValueError, match="evaluation mode"):
        kind(Halves(), ENROLLED)
    with pytest.raises(ValueError, match=r"expected 3 images .* got 2"):
        kind(ENCODER, ENROLLED)(IMAGES[:2])
    with pytest.raises(TypeError, match=rf"{kind.__name__} expected a face encoder .*\(3, 2\)"):
        kind(ENCODER, torch.ones(3, 5))(IMAGES)
