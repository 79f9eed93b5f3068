"""The attacks on image-quality metrics against slow references and values found by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from defender.attacks import AMIFGSM, MADC, MIFGSM, Korhonen, Zhang
from defender.gradients import gradient
from defender.metrics.structural import structural_similarity
from defender.natural_scene_statistics import unnaturalness
from defender.objectives import RaiseScore
from defender.types import Images, Objective
from tests import cases

UNBOUNDED = (Zhang(), Korhonen(), MADC(0.01))


def quality() -> RaiseScore:
    return RaiseScore(cases.QUALITY)


def run(attack: Any, images: Images, objective: Objective) -> Images:
    result: Images = attack(images, objective, seeds=cases.seeds(len(images)))
    return result


@dataclass(frozen=True)
class Scaled:
    """A score and its range, both multiplied."""

    factor: float

    @property
    def span(self) -> float:
        return 100.0 * self.factor

    def __call__(self, images: Images) -> Tensor:
        return quality()(images) * self.factor


def test_momentum_carries_a_value_past_the_top_as_far_as_by_hand() -> None:
    def peak(images: Images) -> Tensor:
        rest = images[:, 0, 0, 0] - 0.525
        return torch.where(rest < 0, rest, -10 * rest)

    # gradients of length 1: up at .50 .51 .52, down from .53 on; m = 1 2 3 2 1 0 -1 -2 -3 -2
    start = torch.full((1, 1, 1, 1), 0.5)
    assert run(MIFGSM(0.1), start, peak).item() == pytest.approx(0.51, abs=1e-6)
    # without momentum it goes to and fro between .52 and .53
    assert run(MIFGSM(0.1, decay=0.0), start, peak).item() == pytest.approx(0.52, abs=1e-6)
    # m = 1, 3/2, 7/4, then 7/8 - 1 < 0: one step down at once, and up again from .52
    assert run(MIFGSM(0.04, 4, 0.5), start, peak).item() == pytest.approx(0.52, abs=1e-6)


def test_mifgsm_just_reaches_the_border() -> None:
    images = torch.full((1, 3, 4, 4), 0.5)
    rising = run(MIFGSM(0.06, 6), images, lambda images: images.sum(dim=(1, 2, 3)))
    torch.testing.assert_close(rising, images + 0.06)


def picture(blur: int) -> Images:
    generator = torch.Generator().manual_seed(8)
    noise = torch.rand(1, 1, 64, 64, generator=generator)
    smooth = functional.avg_pool2d(noise, blur, 1) if blur > 1 else noise
    return smooth[:, :, :48, :48].mul(255).round().div(255).expand(1, 3, 48, 48)


def test_amifgsm_gives_worse_images_more() -> None:
    images = torch.cat([picture(9), picture(1)])  # smooth, and noise
    attack = AMIFGSM(0.04, quality_factor=0.3)
    expected = 0.04 * (0.3 * unnaturalness(images)).clamp(max=1.0)
    radii = attack.radii(images)
    torch.testing.assert_close(radii, expected)
    assert radii[0] < radii[1] <= 0.04
    attacked = run(attack, images * 0.5 + 0.2, lambda images: images.mean(dim=(1, 2, 3)))
    changes = (attacked - (images * 0.5 + 0.2)).amax(dim=(1, 2, 3))
    torch.testing.assert_close(
        changes.double(), attack.radii(images * 0.5 + 0.2), rtol=1e-4, atol=0
    )


def test_amifgsm_with_the_whole_budget_is_mifgsm() -> None:
    images = cases.images()
    assert torch.equal(
        run(AMIFGSM(0.03, quality_factor=1.0), images, quality()),
        run(MIFGSM(0.03), images, quality()),
    )
    assert torch.equal(run(AMIFGSM(0.03, quality_factor=0.0), images, quality()), images)


def adam_of_torch(
    images: Images, loss: Callable[[Tensor], Tensor], weights: Tensor | float, step_size: float
) -> Images:
    """Ten steps of torch's Adam on a sum of losses, the gradient multiplied by weights."""
    attacked = images.clone().requires_grad_(True)
    adam = torch.optim.Adam([attacked], lr=step_size)
    for _ in range(10):
        adam.zero_grad()
        loss(attacked).sum().backward()
        assert attacked.grad is not None
        attacked.grad *= weights
        adam.step()
        with torch.no_grad():
            attacked.clamp_(0, 1)
    return attacked.detach()


def test_zhang_takes_adams_steps_on_dissimilarity_minus_score() -> None:
    images = cases.images()

    def loss(attacked: Tensor) -> Tensor:
        return 1 - structural_similarity(images, attacked) - cases.QUALITY(attacked) / 100

    expected = adam_of_torch(images, loss, 1.0, 0.004)
    result = run(Zhang(0.004), images, quality())
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-3)  # where slopes are nearly 0
    assert (result - expected).abs().mean() < 1e-5
    assert (expected - images).abs().max() > 0.03


def test_zhang_keeps_images_more_similar_than_the_score_alone_does() -> None:
    images = cases.images()
    alone = adam_of_torch(images, lambda attacked: -cases.QUALITY(attacked) / 100, 1.0, 0.005)
    result = run(Zhang(), images, quality())
    similarity = structural_similarity(images, result) - structural_similarity(images, alone)
    assert similarity.mean() > 0.01


def test_zhang_attacks_images_too_small_for_similarity_by_the_score_alone() -> None:
    images = cases.images()[:, :, :10, :]
    expected = adam_of_torch(images, lambda attacked: -cases.QUALITY(attacked) / 100, 1.0, 0.005)
    torch.testing.assert_close(run(Zhang(), images, quality()), expected, rtol=0, atol=1e-5)


DISC = np.array([[0, 1, 1, 1, 0], *[[1] * 5] * 3, [0, 1, 1, 1, 0]], dtype=bool)


def activity_of_scipy(images: Images) -> Tensor:
    maps = []
    for image in images.double().numpy():
        grey = np.tensordot([0.299, 0.587, 0.114], image, 1)
        edges = np.hypot(ndimage.sobel(grey, 0), ndimage.sobel(grey, 1))
        edges[[0, -1]] = edges[:, [0, -1]] = 0
        maps.append(ndimage.grey_dilation(edges / edges.max(), footprint=DISC, mode="nearest"))
    return torch.tensor(np.stack(maps))[:, None].float()


@pytest.mark.parametrize("slope", [1.0, 1e-6])
def test_korhonen_takes_adams_steps_weighted_by_activity(slope: float) -> None:
    images = cases.images()

    def weak(images: Images) -> Tensor:
        scores: Tensor = cases.QUALITY(images) * slope
        return scores

    weights = activity_of_scipy(images) / 255
    expected = adam_of_torch(images, lambda attacked: -weak(attacked), weights, 0.005)
    result = run(Korhonen(), images, weak)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)


def test_korhonen_changes_busy_places_more_where_gradients_are_small() -> None:
    images = torch.full((1, 3, 24, 24), 0.5)
    images[..., :6] = 0.2
    images[..., 17:] = 0.6  # an edge a third as high as the other one

    def faint(images: Images) -> Tensor:
        return 1e-7 * images.sum(dim=(1, 2, 3))

    change = (run(Korhonen(), images, faint) - images)[0, 0, 10]
    assert (change[3:9] > 0).all()  # Sobel answers in 5 and 6, dilated by 2
    assert (change[9:14] == 0).all()
    ratio = (change[5] / change[16]).item()
    # per step |g| / (|g| + 1e-8), with |g| = 1e-7 * map / 255: 3.9e-10 and 1.3e-10
    assert ratio == pytest.approx(3 * (1e-8 + 1.3e-10) / (1e-8 + 3.9e-10), rel=0.01)


def madc_of_one(image: Images, objective: Objective, attack: MADC) -> Images:
    attacked = image.clone()
    for step in range(attack.steps):
        ascent = gradient(objective, attacked).flatten()
        if step > 0:
            change = (attacked - image).flatten()
            ascent = ascent - torch.dot(ascent, change) / torch.dot(change, change) * change
        attacked = (attacked + attack.step_size * ascent.sign().view_as(image)).clamp(0, 1)
        while (attacked - image).square().mean().sqrt() > attack.rmse:
            change = attacked - image
            attacked = attacked - change.sign() * change.abs().clamp(max=0.0005)
    return attacked


@pytest.mark.parametrize("attack", [MADC(0.004), MADC(0.03, 5, 0.02)], ids=repr)
def test_madc_does_what_a_loop_over_images_does(attack: MADC) -> None:
    images = cases.images()
    expected = torch.cat([madc_of_one(image[None], quality(), attack) for image in images])
    result = run(attack, images, quality())
    torch.testing.assert_close(result, expected, rtol=0, atol=2e-6)


def test_madc_stays_within_the_error_and_comes_close_to_it() -> None:
    images = cases.images()
    errors = (run(MADC(0.03, rmse=0.02), images, quality()) - images).square()
    rmse = errors.mean(dim=(1, 2, 3)).sqrt()
    assert rmse.max() <= 0.02 + 1e-6
    assert rmse.min() > 0.0195  # one step of return is at most 0.0005
    assert torch.allclose(run(MADC(0.03, rmse=0.0), images, quality()), images, atol=1e-7)


@pytest.mark.parametrize("attack", [MIFGSM(), AMIFGSM(), *UNBOUNDED], ids=repr)
def test_raises_the_score_of_every_image_and_not_of_a_worse_one_for_the_negative(
    attack: Any,
) -> None:
    images = cases.images()
    raised = cases.QUALITY(run(attack, images, quality())) - cases.QUALITY(images)
    lowered = run(attack, images, lambda images: -cases.QUALITY(images) / 100)
    assert (raised > 0.15).all()
    assert (cases.QUALITY(lowered) < cases.QUALITY(images)).all()


@pytest.mark.parametrize("attack", UNBOUNDED, ids=repr)
def test_the_unit_of_the_score_does_not_matter(attack: Any) -> None:
    images = cases.images()
    expected = run(attack, images, quality())
    torch.testing.assert_close(run(attack, images, Scaled(64.0)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("attack", UNBOUNDED, ids=repr)
def test_gradients_that_are_not_finite_count_as_zero(attack: Any) -> None:
    images = torch.full((2, 3, 12, 12), 0.5)
    weights = torch.linspace(1.0, 2.0, 3 * 144).view(3, 12, 12)

    def spoiled(images: Images) -> Tensor:
        corner = images[:, 0, 0, 0]
        undefined = (corner - corner.detach()).sqrt()  # value 0, slope infinite
        other = images[:, 1, 0, 0] - images[:, 1, 0, 0]
        return (weights * images).sum(dim=(1, 2, 3)) + undefined + other.sqrt()

    result = run(attack, images, spoiled)
    moved = result > images
    assert result.isfinite().all()
    assert moved[:, 2].any()
    if not isinstance(attack, Zhang):  # similarity may move them
        assert not moved[:, 0, 0, 0].any()
        assert not moved[:, 1, 0, 0].any()


def test_no_slope_at_all_leaves_the_images() -> None:
    images = cases.images()
    for attack in (MADC(), Korhonen(), MIFGSM(), AMIFGSM()):
        still = run(attack, images, lambda images: 0 * images.sum(dim=(1, 2, 3)))
        assert torch.equal(still, images), attack
