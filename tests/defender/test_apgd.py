"""Auto-PGD: its schedule and steps by hand, its losses, and draws of random defences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from defender.attacks import APGD, PGD
from defender.attacks.apgd import checkpoints, climb
from defender.margins import margin
from defender.noise import derive_seeds
from defender.objectives import Classify, Defended, Misclassify, RaiseScore
from tests import cases


def goal() -> Misclassify:
    """Of the classes that the model sees, so that no image is misclassified."""
    return Misclassify(cases.MODEL, cases.MODEL(cases.images()).argmax(1))


def test_the_checkpoints_of_the_paper() -> None:
    assert checkpoints(40) == (8, 15, 21, 26, 30, 33, 35, 37, 39)
    assert checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99)
    assert checkpoints(1) == checkpoints(0) == ()
    assert checkpoints(3) == (1, 2)


def one(value: float) -> Tensor:
    return torch.full((1, 1, 1, 1), value)


def recorded(
    slopes: Callable[[float], float], scores: Callable[[float, int], float]
) -> tuple[Callable[[Tensor, int], tuple[Tensor, Tensor]], list[float]]:
    """What an ascent asks about an image of one value, and where it asked."""
    visited: list[float] = []

    def evaluate(images: Tensor, step: int) -> tuple[Tensor, Tensor]:
        place = images.item()
        visited.append(round(place, 6))
        return torch.tensor([scores(place, step)]), one(slopes(place))

    return evaluate, visited


def test_steps_with_momentum_by_hand() -> None:
    # an even slope: 2 epsilon = 0.04 at first, to the border at once
    evaluate, visited = recorded(lambda x: 1.0, lambda x, k: x)
    climb(one(0.5), one(0.49), evaluate, APGD(0.02, 3))
    assert visited == pytest.approx([0.49, 0.52, 0.52, 0.52])
    # towards 0.5 from both sides in a wide ball; checkpoints after steps 1 and 2 of 3
    evaluate, visited = recorded(lambda x: 0.5 - x, lambda x, k: -((x - 0.5) ** 2))
    climb(one(0.5), one(0.46), evaluate, APGD(0.04, 3))
    # 1: .46 + .08 = .54, no better, so halved and back to .46
    # 2: z = .50; .46 + .75 * .04 + .25 * (.46 - .46) = .49, better
    # 3: z = .53; .49 + .75 * .04 + .25 * (.49 - .46) = .5275
    assert visited == pytest.approx([0.46, 0.54, 0.49, 0.5275])


def test_the_best_point_is_kept_with_its_score() -> None:
    found = {0: 0.0, 1: 3.0, 2: 1.0, 3: 2.0}
    evaluate, visited = recorded(lambda x: 1.0, lambda x, k: found[k])
    best, scores = climb(one(0.5), one(0.4), evaluate, APGD(0.2, 3))
    assert best.item() == pytest.approx(visited[1])
    assert scores.tolist() == [3.0]


def test_a_step_is_halved_at_each_checkpoint_that_saw_nothing_rise() -> None:
    # the score falls for ever, so that each checkpoint goes back to the start
    evaluate, visited = recorded(lambda x: 1.0 if x <= 0.5 else -1.0, lambda x, k: float(-k))
    best, _ = climb(one(0.5), one(0.5), evaluate, APGD(0.2, 40))
    assert best.item() == 0.5
    step = 0.4
    for place in checkpoints(40):
        step /= 2
        expected = 0.5 + 0.75 * step + 0.25 * (0.5 - visited[place - 1])
        assert visited[place + 1] == pytest.approx(expected, abs=1e-5)


def test_a_step_is_halved_after_a_full_one_without_a_better_point() -> None:
    # falls at once, then rises at every step but never to where it was
    evaluate, visited = recorded(
        lambda x: 1.0 if x <= 0.5 else -1.0, lambda x, k: float(k - 100 if k else 0)
    )
    climb(one(0.5), one(0.5), evaluate, APGD(0.2, 40))
    assert visited[9] == pytest.approx(0.5 + 0.75 * 0.2 + 0.25 * (0.5 - visited[7]), abs=1e-5)
    # rises at every step to where it never was: nothing is halved
    evaluate, visited = recorded(lambda x: 1.0 if x <= 0.5 else -1.0, lambda x, k: float(k))
    climb(one(0.5), one(0.5), evaluate, APGD(0.01, 40))
    clipped = [min(max(x + (0.02 if x <= 0.5 else -0.02), 0.49), 0.51) for x in visited]
    for done in range(1, 40):
        x, before = visited[done], visited[done - 1]
        moved = x + 0.75 * (clipped[done] - x) + 0.25 * (x - before)
        assert visited[done + 1] == pytest.approx(min(max(moved, 0.49), 0.51), abs=1e-5)


def test_images_of_a_batch_adapt_on_their_own() -> None:
    images = cases.images()
    together = APGD(0.05, 20)(images, goal(), seeds=cases.seeds())
    for i in range(3):
        alone = APGD(0.05, 20)(
            images[i : i + 1],
            Misclassify(cases.MODEL, goal().labels[i : i + 1]),
            seeds=cases.seeds()[i : i + 1],
        )
        assert torch.allclose(alone[0], together[i], atol=1e-5)


def test_no_point_of_pgd_with_as_many_steps_is_much_better() -> None:
    images, seeds, objective = cases.images(), cases.seeds(), goal()
    for norm, epsilon in (("linf", 0.03), ("l2", 0.5)):
        fixed = objective(PGD(epsilon, epsilon / 4, 40, norm)(images, objective, seeds=seeds))
        auto = objective(APGD(epsilon, 40, norm)(images, objective, seeds=seeds))
        assert (auto >= fixed - 1e-3).all()


def test_more_restarts_never_lower_the_score() -> None:
    images, seeds, objective = cases.images(), cases.seeds(), goal()
    scores = [
        objective(APGD(0.1, 1, restarts=n)(images, objective, seeds=seeds)) for n in (1, 2, 5)
    ]
    assert (scores[1] >= scores[0]).all()
    assert (scores[2] >= scores[1]).all()
    assert scores[2].mean() > scores[0].mean()


@pytest.mark.parametrize("loss", ["ce", "dlr", "dlr-targeted"])
def test_every_loss_reaches_the_aim(loss: str) -> None:
    images, seeds, objective = cases.images(), cases.seeds(), goal()
    assert (margin(objective, images) <= 0).all()
    result = APGD(0.15, 20, loss=loss)(images, objective, seeds=seeds)
    assert (margin(objective, result) > 0).all()
    wanted = Classify(cases.MODEL, (objective.labels + 2) % cases.CLASSES)
    result = APGD(0.3, 20, loss=loss)(images, wanted, seeds=seeds)
    assert torch.equal(cases.MODEL(result).argmax(1), wanted.targets)


def test_several_targets_break_no_fewer_images() -> None:
    images, seeds, objective = cases.images(), cases.seeds(), goal()
    margins = [
        margin(
            objective,
            APGD(0.02, 10, loss="dlr-targeted", target_classes=n)(images, objective, seeds=seeds),
        )
        for n in (1, 4, 9)
    ]
    assert torch.equal(margins[1], margins[2])  # there are 4 other classes
    assert ((margins[1] > 0) >= (margins[0] > 0)).all()
    assert (margins[1] >= margins[0])[margins[0] <= 0].all()


def test_losses_on_logits_name_what_is_not_a_classifier() -> None:
    for loss in ("ce", "dlr", "dlr-targeted"):
        with pytest.raises(TypeError, match=f"APGD with loss '{loss}': .*RaiseScore"):
            APGD(0.03, 2, loss=loss)(cases.images(), RaiseScore(cases.QUALITY), seeds=cases.seeds())


@dataclass(frozen=True)
class Shaken:
    """A random defence that notes what it was asked with."""

    asked: list[Tensor] = field(default_factory=list)
    amount: float = 0.2
    version: ClassVar[int] = 1
    paper: ClassVar[str] = "none"
    keeps_size: ClassVar[bool] = True
    knowledge: ClassVar[str] = "blind"

    def __call__(self, images: Tensor, *, seeds: Tensor, reference: Any = None) -> Tensor:
        self.asked.append(seeds.clone())
        shift = (seeds % 101).view(-1, 1, 1, 1) / 50.0 - 1
        return images + self.amount * shift


@pytest.mark.parametrize(
    ("eot", "draws", "each"), [(0, 2, 0), (1, 1, 1), (1, 2, 2), (3, 1, 3), (2, 2, 4)]
)
def test_every_step_has_draws_of_its_own(eot: int, draws: int, each: int) -> None:
    defence, seeds = Shaken(), cases.seeds()
    defended = Defended(goal(), defence, seeds, draws=draws)
    APGD(0.03, 3, restarts=2, eot=eot)(cases.images(), defended, seeds=seeds)
    numbers = list(range(8 * each)) if eot else list(range(draws)) * 8
    expected = [derive_seeds(seeds, f"draw {k}") for k in numbers]
    assert len(defence.asked) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(defence.asked, expected, strict=True))


def test_the_draws_of_a_defence_that_is_not_random_make_no_difference() -> None:
    images, seeds = cases.images(), cases.seeds()
    still = Defended(goal(), Shaken(amount=0.0), seeds, backward="exact")
    first = APGD(0.03, 5)(images, still, seeds=seeds)
    assert torch.equal(first, APGD(0.03, 5, eot=0)(images, still, seeds=seeds))
    assert torch.allclose(first, APGD(0.03, 5)(images, goal(), seeds=seeds))


def test_names_settings_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match=r"epsilon: expected \[0, 1\] for norm 'linf'"):
        APGD(1.5)
    with pytest.raises(ValueError, match="loss: expected objective"):
        APGD(0.1, loss="margin")
    assert APGD(1.5, norm="l2").budget == "l2"
