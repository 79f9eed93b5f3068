"""What every attack must fulfil."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from defender.attacks import ATTACKS
from defender.boxes import box_mask
from defender.margins import margin
from defender.norms import from_uint8, quantise_within, to_uint8
from defender.objectives import Misclassify, RaiseScore
from defender.strength import strength_name, with_strength
from defender.types import Attack
from tests import cases

NORMS = ("linf", "l2")
"""Budgets that bound the change itself."""
CALM = ("none", "control")
"""Threats of changes that no attacker makes."""


def that(promises: Callable[[Any], bool]) -> pytest.MarkDecorator:
    """Run a test on the attacks that promise something."""
    chosen = [case for case in cases.ATTACK_CASES if promises(case)]
    return pytest.mark.parametrize("attack", chosen, ids=repr)


attacks = pytest.mark.parametrize("attack", cases.ATTACK_CASES, ids=repr)


def scores_alone(attack: Any) -> bool:
    """Whether any score will do, without a notion of success or logits behind it."""
    return getattr(attack, "needs", "score") == "score"


hostile = that(lambda attack: attack.threat not in CALM)
bounded = that(lambda attack: attack.budget in NORMS)
ascending = that(lambda attack: attack.budget in NORMS and attack.threat not in CALM)
scaling = that(lambda attack: attack.budget == "scaling")
# was made for many images at once, and asks nothing about the one that it changes
fitted = that(lambda attack: attack.threat not in CALM and hasattr(attack, "perturbation"))
asking = that(
    lambda attack: (
        attack.threat not in CALM and not hasattr(attack, "perturbation") and scores_alone(attack)
    )
)
informed = that(lambda attack: not scores_alone(attack))
# climbs any objective by changing values, within a norm or freely
climbing = that(
    lambda attack: (
        attack.threat not in CALM
        and attack.budget in (*NORMS, "none")
        and not hasattr(attack, "perturbation")
        and scores_alone(attack)
    )
)
adjustable = that(lambda attack: attack.threat not in CALM and attack.budget in (*NORMS, "none"))
patches = that(lambda attack: attack.budget == "patch")
# hiding from a defence costs part of the target
exact = that(lambda attack: attack.budget == "scaling" and attack.threat == "oblivious")


def attacked(attack: Any, images: torch.Tensor | None = None) -> torch.Tensor:
    images = cases.images() if images is None else images
    return attack(images, cases.objective(attack), seeds=cases.seeds())


def test_every_registered_attack_has_a_case() -> None:
    assert {type(case) for case in cases.ATTACK_CASES} == set(ATTACKS.values())
    assert all(name == kind.__name__ for name, kind in ATTACKS.items())
    assert len({repr(case) for case in cases.ATTACK_CASES}) == len(cases.ATTACK_CASES)


@attacks
def test_declares_what_it_is(attack: Any) -> None:
    assert isinstance(attack, Attack)
    assert attack.version >= 1
    assert attack.paper
    assert attack.budget in (*NORMS, "patch", "scaling", "none")
    assert attack.threat in ("oblivious", "grey", "query", *CALM)
    fields = dataclasses.fields(attack)
    supplied = ("perturbation", "model")
    assert all(field.metadata["doc"] for field in fields if field.name not in supplied)
    assert all(f"{field.name}=" in repr(attack) for field in fields)
    assert "\n" not in repr(attack)


@adjustable
def test_its_strength_is_a_parameter_that_decides_how_much_it_changes(attack: Any) -> None:
    images, value = cases.images(), getattr(attack, strength_name(attack))
    changes = [
        (attacked(with_strength(attack, share * value)) - images).abs().amax(dim=(1, 2, 3)).mean()
        for share in (0.0, 0.5, 1.0)
    ]
    assert changes[0] == 0
    assert changes[0] < changes[1] < changes[2]


@attacks
def test_keeps_shape_type_and_range(attack: Any) -> None:
    result = attacked(attack)
    assert result.shape == cases.images().shape
    assert result.dtype == torch.float32
    assert not result.requires_grad
    assert 0 <= result.min() <= result.max() <= 1


@attacks
def test_leaves_images_and_model_as_they_were(attack: Any) -> None:
    images = cases.images()
    weights = {name: value.clone() for name, value in cases.MODEL.state_dict().items()}
    attacked(attack, images)
    assert torch.equal(images, cases.images())
    assert all(torch.equal(value, weights[k]) for k, value in cases.MODEL.state_dict().items())
    assert all(parameter.grad is None for parameter in cases.MODEL.parameters())


@bounded
def test_the_stored_image_is_inside_the_budget(attack: Any) -> None:
    images = cases.images()
    stored = quantise_within(attacked(attack), images, norm=attack.budget, epsilon=attack.epsilon)
    change = (from_uint8(stored) - images).double().flatten(1)
    order = 2 if attack.budget == "l2" else torch.inf
    assert torch.linalg.vector_norm(change, order, dim=1).max() <= attack.epsilon + 1e-6


@exact
def test_the_real_resize_makes_the_target_of_the_stored_image(attack: Any) -> None:
    result, scaler = attacked(attack), cases.SCALER
    stored = to_uint8(result)
    assert torch.equal(from_uint8(stored), result)
    missed = (scaler(stored).float() - 255 * cases.targets()).abs().max()
    before = (scaler(to_uint8(cases.images())).float() - 255 * cases.targets()).abs().max()
    largest = max(attack.epsilon, *getattr(attack, "more_epsilons", ()), 0.5 / 255)
    if getattr(attack, "method", None) == "two-stage":
        largest = 2 * largest + 1 / 255  # both stages miss by epsilon, and round
    assert missed <= 255 * largest + 1e-3
    assert before > 50


@asking
def test_raises_the_objective_also_of_the_stored_image(attack: Any) -> None:
    objective = cases.objective(attack)
    images, result = cases.images(), attacked(attack)
    norm = attack.budget if attack.budget in NORMS else None
    epsilon = attack.epsilon if norm else None
    stored = quantise_within(result, images, norm=norm, epsilon=epsilon)
    assert (objective(result) > objective(images)).all()
    assert (objective(from_uint8(stored)) > objective(images)).all()


@informed
def test_comes_nearer_to_its_aim(attack: Any) -> None:
    objective, images, result = cases.objective(attack), cases.images(), attacked(attack)
    before, after = margin(objective, images), margin(objective, result)
    assert (after > before)[before <= 0].all()
    assert (after > 0).sum() > (before > 0).sum() > 0
    if attack.needs == "margin":  # there is nothing left to do where the aim is reached
        assert torch.equal(result[before > 0], images[before > 0])


@informed
def test_names_an_objective_that_is_not_about_a_classifier(attack: Any) -> None:
    with pytest.raises(TypeError, match=r"RaiseScore\(metric=smooth-quality\)"):
        attack(cases.images(), RaiseScore(cases.QUALITY), seeds=cases.seeds())


@fitted
def test_raises_the_objective_on_average(attack: Any) -> None:
    objective, images = cases.objective(attack), cases.images()
    stored = from_uint8(to_uint8(attacked(attack)))
    assert objective(stored).mean() > objective(images).mean()
    quality = RaiseScore(cases.QUALITY)
    assert quality(stored).mean() > quality(images).mean()


@patches
def test_changes_nothing_outside_of_the_boxes(attack: Any) -> None:
    images = cases.images()
    result, boxes = attack.apply(images, seeds=cases.seeds())
    assert torch.equal(result, attacked(attack))
    changed = (result != images).any(dim=1, keepdim=True)
    inside = box_mask(boxes, (cases.SIDE, cases.SIDE))
    # a patch that was moved has an edge that covers less than half of a pixel
    assert not (changed & ~inside).logical_and(~box_mask(wider(boxes), changed.shape[2:])).any()
    if not getattr(attack, "rotation", 0):
        assert not (changed & ~inside).any()
        side = attack.grid * math.floor(attack.size * cases.SIDE / attack.grid)
        assert boxes[:, 2:].tolist() == [[side, side]] * 8


def wider(boxes: torch.Tensor) -> torch.Tensor:
    """Boxes with a margin of 1 pixel."""
    return boxes + torch.tensor([-1, -1, 2, 2])


@climbing
def test_raises_the_score_of_a_quality_metric(attack: Any) -> None:
    images, objective = cases.images(), RaiseScore(cases.QUALITY)
    result = attack(images, objective, seeds=cases.seeds())
    assert (objective(result) > objective(images)).all()


@attacks
def test_same_seeds_same_output(attack: Any) -> None:
    assert torch.equal(attacked(attack), attacked(attack))


@attacks
@pytest.mark.parametrize("sizes", [[3, 3, 2], [1, 4, 2, 1]], ids=str)
def test_any_split_at_the_compute_batch_gives_the_same(attack: Any, sizes: list[int]) -> None:
    images, seeds = cases.images(), cases.seeds()

    def run(index: torch.Tensor) -> torch.Tensor:
        objective = cases.objective(attack, index)
        result: torch.Tensor = attack(images[index], objective, seeds=seeds[index])
        return result

    assert torch.equal(cases.in_splits(run, 8, sizes), cases.in_splits(run, 8, [4, 4]))


@bounded
def test_epsilon_zero_is_the_identity(attack: Any) -> None:
    images = cases.images()
    assert torch.equal(attacked(dataclasses.replace(attack, epsilon=0.0)), images)


@climbing
def test_no_step_returns_the_images(attack: Any) -> None:
    names = {field.name for field in dataclasses.fields(attack)} & {"steps", "queries"}
    for name in names:
        still = dataclasses.replace(attack, **{name: 0})
        assert torch.equal(attacked(still), cases.images())


@attacks
def test_works_in_inference_mode(attack: Any) -> None:
    expected = attacked(attack)
    with torch.inference_mode():
        result = attacked(attack, cases.images())
    assert torch.equal(result, expected)


@attacks
def test_keeps_the_memory_format(attack: Any) -> None:
    images = cases.images().contiguous(memory_format=torch.channels_last)
    result = attacked(attack, images)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(result, attacked(attack), atol=0.02)


@hostile
def test_attacks_grey_images(attack: Any) -> None:
    images, objective = cases.images(channels=1), cases.objective(attack, channels=1)
    result = attack(images, objective, seeds=cases.seeds())
    assert result.shape == images.shape
    assert objective(result).mean() > objective(images).mean()


@climbing
def test_needs_a_gradient_or_says_that_it_does_not(attack: Any) -> None:
    def closed_box(images: torch.Tensor) -> torch.Tensor:
        return images.detach().mean(dim=(1, 2, 3))

    if attack.threat == "query":
        gain = closed_box(attack(cases.images(), closed_box, seeds=cases.seeds()))
        gain -= closed_box(cases.images())
        assert gain.min() >= 0
        assert gain.mean() > 0
    else:
        with pytest.raises(TypeError, match="closed_box"):
            attack(cases.images(), closed_box, seeds=cases.seeds())


@scaling
def test_names_itself_and_an_objective_that_is_not_about_scaling(attack: Any) -> None:
    wrong = Misclassify(cases.MODEL, cases.labels())
    with pytest.raises(TypeError, match=rf"(?s){type(attack).__name__}.*Misclassify"):
        attack(cases.images(), wrong, seeds=cases.seeds())


@ascending
def test_names_an_objective_whose_gradient_is_not_finite(attack: Any) -> None:
    def broken(images: torch.Tensor) -> torch.Tensor:
        return (images - images).sqrt().sum(dim=(1, 2, 3))

    def broken_logits(images: torch.Tensor) -> torch.Tensor:
        return broken(images).unsqueeze(1) + torch.arange(5.0, 0.0, -1.0)

    objective: Any = broken
    if not scores_alone(attack):
        objective = Misclassify(broken_logits, torch.zeros(8, dtype=torch.int64))
    if attack.threat != "query":
        with pytest.raises(FloatingPointError, match="broken"):
            attack(cases.images(), objective, seeds=cases.seeds())


@hostile
def test_refuses_parameters_out_of_range(attack: Any) -> None:
    names = {"scaling": "epsilon", "patch": "size"}
    name = names[attack.budget] if attack.budget in names else strength_name(attack)
    for value in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=name):
            dataclasses.replace(attack, **{name: value})
    with pytest.raises(TypeError, match=name):
        dataclasses.replace(attack, **{name: "8/255"})
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(attack, name, 0.1)
