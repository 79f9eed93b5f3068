"""What AutoAttack runs, on whom, and in what order."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from defender.attacks import APGD, FAB, AutoAttack, Square
from defender.margins import Margin, margin
from defender.noise import derive_seeds
from defender.norms import from_uint8, quantise_within
from defender.objectives import Classify, Defended, Misclassify
from defender.purifiers import GaussianNoise
from tests import cases


def goal() -> Misclassify:
    return Misclassify(cases.MODEL, cases.MODEL(cases.images()).argmax(1))


def described(attack: AutoAttack, objective: Any) -> list[str]:
    """The members in a short form."""
    lines = []
    member: Any
    for name, member, target in attack.members(cases.images(), objective):
        words = [name, type(member).__name__]
        if isinstance(member, APGD):
            words += [member.loss, str(member.steps), str(member.eot)]
        if isinstance(member, FAB) or "dlr-targeted" in words:
            words.append(str(member.target_classes))
        words.append("margin" if isinstance(target, Margin) else "own")
        lines.append(" ".join(words))
    return lines


def test_the_members_of_the_paper() -> None:
    assert described(AutoAttack(0.03), goal()) == [
        "apgd APGD objective 100 1 own",
        "apgd-dlr-targeted APGD dlr-targeted 100 1 9 own",
        "fab FAB 9 own",
        "square Square margin",
    ]
    assert described(AutoAttack(0.03, variant="rand"), goal()) == [
        "apgd APGD objective 100 20 own",
        "apgd-dlr APGD dlr 100 20 own",
    ]
    assert described(AutoAttack(0.5, "l2"), goal())[-1] == "fab FAB 9 own"


def first_classes(count: int) -> Any:
    def model(images: Tensor) -> Tensor:
        return cases.MODEL(images)[:, :count]

    return model


@pytest.mark.parametrize(
    ("classes", "untargeted", "targeted"),
    [
        (2, "apgd-margin APGD objective 100 1 margin", "apgd-margin APGD objective 100 1 margin"),
        (3, "apgd-dlr APGD dlr 100 1 own", "apgd-margin APGD objective 100 1 margin"),
        (4, "apgd-dlr-targeted APGD dlr-targeted 100 1 9 own", "apgd-dlr APGD dlr 100 1 own"),
    ],
)
def test_what_takes_the_place_of_losses_that_are_not_defined(
    classes: int, untargeted: str, targeted: str
) -> None:
    ones = torch.ones(8, dtype=torch.int64)
    model = first_classes(classes)
    assert described(AutoAttack(0.03), Misclassify(model, ones))[1] == untargeted
    assert described(AutoAttack(0.03), Classify(model, ones))[1] == targeted
    for objective in (Misclassify(model, ones), Classify(model, ones)):
        attack = AutoAttack(0.5, steps=5, queries=10)
        result = attack(cases.images(), objective, seeds=cases.seeds())
        assert (margin(objective, result) > 0).all()


class Alike:
    """Similar brightness to something else, accepted from 0.6 on."""

    def __call__(self, images: Tensor) -> Tensor:
        return 1 - (images.mean(dim=(1, 2, 3)) - 0.9).abs()

    def margin(self, images: Tensor) -> Tensor:
        return self(images) - 0.6


def test_an_objective_with_a_margin_of_its_own_has_the_attacks_that_need_no_classes() -> None:
    names = [name for name, *_ in AutoAttack(0.03).members(cases.images(), Alike())]
    assert names == ["apgd", "fab", "square"]
    result = AutoAttack(0.3, steps=10, queries=20)(cases.images(), Alike(), seeds=cases.seeds())
    assert (margin(Alike(), result) > 0).all()
    assert (margin(Alike(), cases.images()) <= 0).any()


def test_an_image_has_the_result_of_the_first_member_that_breaks_it() -> None:
    images, seeds, objective = cases.images(), cases.seeds(), goal()
    attack = AutoAttack(0.012, steps=4, target_classes=2, queries=30, stored=False)
    result = attack(images, objective, seeds=seeds)
    results = [
        member(images, target, seeds=derive_seeds(seeds, name))
        for name, member, target in attack.members(images, objective)
    ]
    margins = torch.stack([margin(objective, images), *(margin(objective, r) for r in results)])
    found = margin(objective, result)
    broken = margins > 0
    assert 0 < int(broken.any(dim=0).sum()) < 8
    assert torch.equal(found > 0, broken.any(dim=0))
    for i in range(8):
        row = (
            int(broken[:, i].int().argmax()) if broken[:, i].any() else int(margins[:, i].argmax())
        )
        expected = images if row == 0 else results[row - 1]
        assert torch.equal(result[i], expected[i])


def test_members_are_left_out_where_no_image_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    images, seeds, objective = cases.images(), cases.seeds(), goal()
    wrong = Misclassify(cases.MODEL, (objective.labels + 1) % cases.CLASSES)
    assert torch.equal(AutoAttack(0.03, queries=5)(images, wrong, seeds=seeds), images)

    def refuse(*args: Any, **kwargs: Any) -> Tensor:
        raise RuntimeError("no image was left")

    for kind in (FAB, Square):
        monkeypatch.setattr(kind, "__call__", refuse)
    result = AutoAttack(0.2, steps=10)(images, objective, seeds=seeds)
    assert (margin(objective, result) > 0).all()


def test_random_defences_are_judged_by_the_mean_of_their_draws() -> None:
    images, seeds = cases.images(), cases.seeds()
    defended = Defended(goal(), GaussianNoise(0.02), seeds, draws=3, backward="exact")
    attack = AutoAttack(0.05, variant="rand", steps=6, eot=2)
    result = attack(images, defended, seeds=seeds)
    assert (margin(defended, result) > margin(defended, images)).all()
    assert torch.equal(result, attack(images, defended, seeds=seeds))


def test_results_are_judged_as_they_are_stored() -> None:
    images, seeds, objective = cases.images(), cases.seeds(), goal()
    attack = AutoAttack(0.02, steps=10, target_classes=2, queries=30)
    result = attack(images, objective, seeds=seeds)
    stored = from_uint8(quantise_within(result, images, norm="linf", epsilon=0.02))
    loose = dataclasses.replace(attack, stored=False)(images, objective, seeds=seeds)
    rounded = from_uint8(quantise_within(loose, images, norm="linf", epsilon=0.02))
    kept, lost = margin(objective, stored) > 0, margin(objective, rounded) > 0
    assert (kept >= lost).all()
    with pytest.raises(ValueError, match="clean: expected multiples of 1/255"):
        attack(images * 0.999, objective, seeds=seeds)
