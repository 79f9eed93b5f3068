"""DI2FGSM, TIFGSM and SGADV: what they add to gradient sign steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from defender.attacks import DI2FGSM, MIFGSM, SGADV, TIFGSM
from defender.gradients import gradient
from defender.input_diversity import resized_and_padded
from defender.objectives import Defended, Misclassify
from defender.purifiers import GaussianNoise
from defender.smoothing import gaussian_filter
from tests import cases


def objective() -> Misclassify:
    return Misclassify(cases.MODEL, cases.labels())


def test_resized_images_are_those_of_bilinear_interpolation_on_black() -> None:
    images = torch.rand(40, 2, 20, 30, generator=torch.Generator().manual_seed(4))
    result = resized_and_padded(images, torch.arange(40), 1.0, 0.7)
    sizes = set()
    for image, changed in zip(images, result, strict=True):
        rows = changed.sum(dim=(0, 2)).nonzero().flatten()
        columns = changed.sum(dim=(0, 1)).nonzero().flatten()
        top, left = int(rows[0]), int(columns[0])
        height, width = int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left
        sizes.add(height)
        assert abs(height / 20 - width / 30) < 0.05
        inside = functional.interpolate(image[None], (height, width), mode="bilinear")
        expected = functional.pad(inside, [left, 30 - left - width, top, 20 - top - height])
        assert torch.allclose(changed, expected[0], atol=1e-5)
    assert min(sizes) == 14
    assert max(sizes) in (19, 20)
    assert len(sizes) >= 5


def test_images_are_resized_as_often_as_said() -> None:
    images = torch.rand(400, 1, 10, 10, generator=torch.Generator().manual_seed(4))
    same = resized_and_padded(images, torch.arange(400), 0.3, 0.2) == images
    assert 0.6 < same.flatten(1).all(dim=1).float().mean() < 0.8
    assert torch.equal(resized_and_padded(images, torch.arange(400), 0.0, 0.2), images)
    assert torch.equal(resized_and_padded(images, torch.arange(400), 1.0, 1.0), images)
    tiny = resized_and_padded(images[:, :, :1, :1], torch.arange(400), 1.0, 0.01)
    assert torch.equal(tiny, images[:, :, :1, :1])


def test_without_their_additions_both_are_the_momentum_method() -> None:
    images, seeds = cases.images(), cases.seeds()
    expected = MIFGSM(0.03, 7, 0.5)(images, objective(), seeds=seeds)
    assert torch.equal(DI2FGSM(0.03, 7, 0.5, 0.0)(images, objective(), seeds=seeds), expected)
    assert torch.equal(TIFGSM(0.03, 7, 0.5, 1)(images, objective(), seeds=seeds), expected)


def test_each_step_has_sizes_of_its_own_from_the_seeds() -> None:
    images, seen = cases.images(), list[Tensor]()

    def watched(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return x.sum(dim=(1, 2, 3))

    DI2FGSM(0.0, 4, probability=1.0, smallest=0.5)(images, watched, seeds=cases.seeds())
    assert len(seen) == 4
    assert not any(torch.equal(seen[0], other) for other in (*seen[1:], images))


def test_diverse_inputs_keep_the_draws_of_a_defence() -> None:
    images, seeds = cases.images(), cases.seeds()
    defended = Defended(objective(), GaussianNoise(0.02), seeds, draws=3, backward="exact")
    result = DI2FGSM()(images, defended, seeds=seeds)
    assert (defended(result) > defended(images)).all()


def test_the_kernel_of_the_paper() -> None:
    # 15 points of a normal density from -3 to 3 deviations, made to sum to 1
    points = torch.exp(-torch.linspace(-3, 3, 15).square() / 2)
    kernel = torch.outer(points, points) / points.sum() ** 2
    impulse = torch.zeros(1, 1, 21, 21)
    impulse[0, 0, 10, 10] = 1.0
    assert torch.allclose(
        gaussian_filter(impulse, 7 / 3, 7, "zeros")[0, 0, 3:18, 3:18], kernel, atol=1e-6
    )
    flat = gaussian_filter(torch.ones(1, 2, 9, 9), 7 / 3, 7, "zeros")
    assert flat[0, 0, 0, 0].item() == pytest.approx(kernel[7:, 7:].sum().item(), abs=0.01)
    with pytest.raises(ValueError, match=r"padding: expected reflect \| zeros"):
        gaussian_filter(impulse, 1.0, 2, "symmetric")


def test_the_first_step_follows_the_blurred_gradient() -> None:
    images = cases.images()
    slopes = gaussian_filter(gradient(objective(), images), 7 / 3, 7, "zeros")
    expected = (images + 0.01 * slopes.sign()).clamp(0, 1)
    result = TIFGSM(0.01, 1)(images, objective(), seeds=cases.seeds())
    assert torch.allclose(result, expected)
    with pytest.raises(ValueError, match="window: expected an odd number"):
        TIFGSM(window=4)


def total(images: Tensor) -> Tensor:
    """The sum of an image, with slopes of 1."""
    return (images * 1).sum(dim=(1, 2, 3))


def steps_taken(attack: SGADV, scores: list[list[float]]) -> list[int]:
    """Steps that each image of one value takes when its scores come from a list."""
    count = 0

    def score(images: Tensor) -> Tensor:
        nonlocal count
        now = torch.tensor([row[count] for row in scores])
        count += 1
        return total(images) + (now - total(images.detach()))

    images = torch.zeros(len(scores), 1, 1, 1)
    result = attack(images, score, seeds=torch.arange(len(scores)))
    return [round(value) for value in (result.flatten() / attack.step_size).tolist()]


def test_an_image_stops_where_its_score_converges() -> None:
    attack = SGADV(1.0, 0.01, 40, 0.001, random_start=False)
    rising = [0.01 * k for k in range(41)]
    flat = [0.01 * min(k, 5) + 0.0001 * k for k in range(41)]
    shaking = [0.01 * k if k < 8 else 0.08 + 0.02 * (k % 2) for k in range(41)]
    # flat: the 10 changes after step 5 are small at step 15. shaking: falls come at steps 10, 12,
    # 14, 16, 18, so that the 10 changes up to step 18 have 5 of them
    assert steps_taken(attack, [rising, flat, shaking]) == [40, 15, 18]


def test_scores_are_taken_relative_to_their_span() -> None:
    class Wide:
        span = 1000.0

        def __call__(self, images: Tensor) -> Tensor:
            return total(images)

    images = torch.full((1, 1, 2, 2), 0.2)
    attack = SGADV(0.5, 0.001, 30, 0.0001, random_start=False)
    result = attack(images, Wide(), seeds=torch.tensor([1]))
    assert (result - images).max().item() == pytest.approx(0.01, abs=1e-6)
    narrow = attack(images, total, seeds=torch.tensor([1]))
    assert (narrow - images).max().item() == pytest.approx(0.03, abs=1e-6)
