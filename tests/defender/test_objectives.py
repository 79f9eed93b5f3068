"""Objectives: values, gradients, defences in the way, and the errors that name them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from defender import noise
from defender.attacks import PGD, Square
from defender.detectors import GradientMask
from defender.objectives import (
    Classify,
    Defended,
    Misclassify,
    RaiseScore,
    gradient,
    value_and_gradient,
)
from defender.purifiers import BitDepth, Gaussian, Median, SeparateCorrectCombine
from defender.types import Objective
from tests import cases

MODEL = cases.classifier(dtype=torch.float64)


def images(n: int = 4) -> Tensor:
    return cases.images(n).double()


def misclassify(n: int = 4) -> Misclassify:
    return Misclassify(MODEL, cases.labels(n))


@dataclass(frozen=True)
class Jitter:
    """Adds normal noise that depends on the seeds."""

    sigma: float = 0.05

    def __call__(self, images: Tensor, *, seeds: Tensor, reference: Tensor | None = None) -> Tensor:
        return images + self.sigma * noise.normal(seeds, tuple(images.shape[1:])).to(images)


@dataclass(frozen=True)
class Brightness:
    """A detector with a gradient: the mean of an image."""

    def __call__(self, images: Tensor, *, seeds: Tensor, reference: Tensor | None = None) -> Tensor:
        return images.mean(dim=(1, 2, 3))


class Distance:
    """A full-reference metric, lower is better: mean squared error."""

    lower_is_better = True
    needs_reference = True
    score_range = (0.0, 0.25)

    def __call__(self, images: Tensor, reference: Tensor | None = None) -> Tensor:
        assert reference is not None
        return (images - reference).square().mean(dim=(1, 2, 3))


def test_raise_score_is_the_score_itself_and_knows_its_span() -> None:
    objective = RaiseScore(cases.QUALITY)
    batch = cases.images(4)
    assert torch.equal(objective(batch), cases.QUALITY(batch))
    assert objective.span == 100.0
    assert RaiseScore(lambda x: x.mean(dim=(1, 2, 3))).span == 1.0


def test_raise_score_turns_a_metric_round_whose_lower_scores_are_better() -> None:
    batch = images(4)
    objective = RaiseScore(Distance(), reference=batch)
    expected = -torch.tensor([0.01] * 4, dtype=torch.float64)
    assert torch.allclose(objective(batch + 0.1), expected)
    assert torch.allclose(gradient(objective, batch + 0.1), torch.full_like(batch, -0.2 / 432))


def test_raise_score_keeps_its_span_behind_a_defence() -> None:
    defended = Defended(RaiseScore(cases.QUALITY), BitDepth(5), cases.seeds(4))
    assert defended.span == 100.0
    assert Defended(misclassify(), BitDepth(5), cases.seeds(4)).span == 1.0


def test_raise_score_refuses_what_is_no_metric() -> None:
    with pytest.raises(TypeError, match=r"image-quality metric with scores \(4,\)"):
        RaiseScore(cases.MODEL)(cases.images(4))
    with pytest.raises(ValueError, match=r"reference: .*expected the original images"):
        RaiseScore(Distance())
    with pytest.raises(ValueError, match=r"expected 4 images for as many originals, got 3"):
        RaiseScore(Distance(), reference=images(4))(images(3))
    with pytest.raises(ValueError, match="evaluation mode"):
        RaiseScore(cases.SmoothQuality().train())


def test_misclassify_is_the_cross_entropy_of_the_label() -> None:
    probabilities = MODEL(images()).softmax(1)
    expected = -probabilities[torch.arange(4), cases.labels(4)].log()
    assert torch.allclose(misclassify()(images()), expected)


def test_classify_is_minus_the_cross_entropy_of_the_target() -> None:
    assert torch.equal(Classify(MODEL, cases.labels(4))(images()), -misclassify()(images()))


@pytest.mark.parametrize("kind", [Misclassify, Classify])
def test_objectives_are_objectives_and_show_no_tensor(kind: Any) -> None:
    objective = kind(cases.MODEL, cases.labels(4))
    assert isinstance(objective, Objective)
    assert repr(objective) == f"{kind.__name__}(model={cases.MODEL!r}, images=4)"
    assert repr(cases.MODEL).startswith("tiny@")


@pytest.mark.parametrize("kind", [Misclassify, Classify])
def test_classes_must_fit_the_images(kind: Any) -> None:
    with pytest.raises(ValueError, match="expected 4 labels for as many images, got 3"):
        kind(MODEL, cases.labels(3))(images())
    with pytest.raises(ValueError, match="expected int64"):
        kind(MODEL, torch.zeros(4))
    with pytest.raises(ValueError, match="expected int64"):
        kind(MODEL, torch.zeros(4, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="class indices >= 0, got -100"):
        kind(MODEL, torch.tensor([0, -100, 1, 2]))


def test_a_model_in_training_mode_is_refused() -> None:
    model = cases.classifier().train()
    with pytest.raises(ValueError, match="evaluation mode"):
        Misclassify(model, cases.labels(4))(cases.images(4))


def test_gradient_agrees_with_finite_differences() -> None:
    scores, slopes = value_and_gradient(misclassify(), images())
    assert torch.equal(scores, misclassify()(images()).detach())
    direction = torch.rand(images().shape, generator=torch.Generator().manual_seed(0)).double()
    step = 1e-6
    up, down = (
        misclassify()(images() + step * direction),
        misclassify()(images() - step * direction),
    )
    expected = (up - down) / (2 * step)
    assert torch.allclose((slopes * direction).sum(dim=(1, 2, 3)), expected, rtol=1e-6)


def test_gradient_of_an_image_ignores_its_batch_mates() -> None:
    together = gradient(misclassify(), images())
    for index in range(4):
        one = Misclassify(MODEL, cases.labels(4)[index : index + 1])
        alone = gradient(one, images()[index : index + 1])
        assert torch.allclose(together[index], alone[0], rtol=1e-12)


def test_gradient_leaves_no_gradients_behind_and_the_images_alone() -> None:
    start = images()
    scores, slopes = value_and_gradient(misclassify(), start)
    assert not start.requires_grad
    assert start.grad is None
    assert not scores.requires_grad
    assert not slopes.requires_grad
    assert all(parameter.grad is None for parameter in MODEL.parameters())


def test_gradient_works_without_grad_and_in_inference_mode() -> None:
    expected = gradient(misclassify(), images())
    with torch.no_grad():
        assert torch.equal(gradient(misclassify(), images()), expected)
    with torch.inference_mode():
        assert torch.equal(gradient(misclassify(), images()), expected)


def test_scores_must_be_one_an_image() -> None:
    with pytest.raises(ValueError, match="expected one score an image"):
        gradient(lambda pictures: pictures.mean(), images())


def test_a_score_that_ignores_the_images_has_no_gradient() -> None:
    weight = torch.ones(4, requires_grad=True)
    with pytest.raises(TypeError, match="use an attack that needs scores only"):
        gradient(lambda pictures: weight * pictures.detach().mean(dim=(1, 2, 3)), images())


def test_defended_scores_what_the_purifier_leaves() -> None:
    defended = Defended(misclassify(), Median(), cases.seeds(4))
    purified = Median()(images(), seeds=cases.seeds(4))
    assert torch.equal(defended(images()), misclassify()(purified))


def test_identity_backward_is_the_gradient_at_the_purified_images() -> None:
    defended = Defended(misclassify(), BitDepth(3), cases.seeds(4))
    purified = BitDepth(3)(images(), seeds=cases.seeds(4))
    assert torch.equal(gradient(defended, images()), gradient(misclassify(), purified))


def test_exact_backward_differentiates_the_purifier() -> None:
    blur = Gaussian(0.8)
    defended = Defended(misclassify(), blur, cases.seeds(4), backward="exact")
    slopes = gradient(defended, images())
    leaf = images().requires_grad_(True)
    misclassify()(blur.filtered(leaf)).sum().backward()
    assert torch.allclose(slopes, leaf.grad)
    assert not torch.allclose(slopes, gradient(misclassify(), images()))


def test_exact_backward_refuses_a_purifier_without_a_gradient() -> None:
    chain = SeparateCorrectCombine(MODEL, steps=1)
    defended = Defended(misclassify(), chain, cases.seeds(4), backward="exact")
    with pytest.raises(TypeError, match="SeparateCorrectCombine"):
        gradient(defended, images())


def test_draws_average_independent_draws() -> None:
    one = Defended(misclassify(), Jitter(), cases.seeds(4))
    three = Defended(misclassify(), Jitter(), cases.seeds(4), draws=3)
    singles = torch.stack([three.score_of_draw(draw, images()) for draw in range(3)])
    assert torch.equal(singles[0], one(images()))
    assert (singles.std(0) > 0).all()
    assert torch.allclose(three(images()), singles.mean(0))
    scores, slopes = value_and_gradient(three, images())
    leaf = images().requires_grad_(True)
    three(leaf).sum().backward()
    assert torch.allclose(scores, three(images()))
    assert torch.allclose(slopes, leaf.grad)


def test_attacking_through_a_defence_beats_attacking_without_it() -> None:
    objective, pictures = Misclassify(cases.MODEL, cases.labels()), cases.images()
    defended = Defended(objective, Median(), cases.seeds(), backward="exact")
    attack = PGD(0.03, 0.01, 8, random_start=False)
    aware = defended(attack(pictures, defended, seeds=cases.seeds()))
    unaware = defended(attack(pictures, objective, seeds=cases.seeds()))
    assert aware.mean() > unaware.mean()


def test_detector_costs_what_is_above_its_threshold() -> None:
    defended = Defended(
        misclassify(), None, cases.seeds(4), detector=Brightness(), threshold=0.45, weight=10.0
    )
    brightness = images().mean(dim=(1, 2, 3))
    assert brightness.min() < 0.45 < brightness.max()
    expected = misclassify()(images()) - 10 * (brightness - 0.45).clamp(min=0)
    assert torch.allclose(defended(images()), expected)
    assert gradient(defended, images()).shape == images().shape


def test_a_detector_without_a_gradient_serves_score_attacks_only() -> None:
    pictures, objective = cases.images(), Misclassify(cases.MODEL, cases.labels())
    defended = Defended(
        objective, Median(), cases.seeds(), detector=GradientMask(cases.MODEL), threshold=0.5
    )
    with pytest.raises(TypeError, match="GradientMask"):
        gradient(defended, pictures)
    result = Square(0.03, 30)(pictures, defended, seeds=cases.seeds())
    assert defended(result).mean() > defended(pictures).mean()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"purifier": None}, "a purifier or a detector"),
        ({"draws": 0}, "draws"),
        ({"draws": 2, "known": True}, "draws: expected 1 where it is known, got 2"),
        ({"backward": "smooth"}, "backward"),
        ({"weight": -1.0}, "weight"),
    ],
    ids=str,
)
def test_defended_refuses_parameters_out_of_range(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"purifier": Median(), "seeds": cases.seeds(4)} | changes
    with pytest.raises(ValueError, match=message):
        Defended(misclassify(), **arguments)


def test_defended_wants_one_seed_an_image_and_names_its_threat() -> None:
    with pytest.raises(ValueError, match="seeds: expected 4"):
        Defended(misclassify(), Median(), cases.seeds(3))(images())
    assert Defended(misclassify(), Median(), cases.seeds(4)).threat == "bpda"
    assert Defended(misclassify(), Median(), cases.seeds(4), draws=2).threat == "eot"
    exact = Defended(misclassify(), Median(), cases.seeds(4), backward="exact")
    assert exact.threat == "full-gradient"
    drawn = Defended(misclassify(), Median(), cases.seeds(4), draws=2, backward="exact")
    assert drawn.threat == "full-gradient"
    assert "Median(window=3, " in repr(exact)
    assert "tensor" not in repr(exact)
