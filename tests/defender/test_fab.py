"""The smallest changes onto planes, and FAB where they are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from torch import Tensor

from defender.attacks import FAB, PGD
from defender.hyperplane import step_to_plane
from defender.margins import margin
from defender.norms import from_uint8, quantise_within, random_start
from defender.objectives import Classify, Misclassify
from tests import cases


def row(*values: float) -> Tensor:
    return torch.tensor(values).view(1, 1, 1, -1)


def change(points: Tensor, slopes: Tensor, value: float, norm: str) -> list[float]:
    result: list[float] = step_to_plane(points, slopes, torch.tensor([value]), norm)[
        0, 0, 0
    ].tolist()
    return result


def test_steps_that_no_bound_stops() -> None:
    points, slopes = row(0.5, 0.5, 0.5), row(3.0, -4.0, 0.0)
    # linf: value / sum |w|; l2: value w / |w|^2; against the slope where the value is above 0
    assert change(points, slopes, 0.7, "linf") == pytest.approx([-0.1, 0.1, 0])
    assert change(points, slopes, -0.7, "linf") == pytest.approx([0.1, -0.1, 0])
    assert change(points, slopes, 0.5, "l2") == pytest.approx([-0.06, 0.08, 0])
    assert change(points, slopes, 0.0, "l2") == [0, 0, 0]


def test_steps_that_bounds_stop() -> None:
    # the first value can fall by 0.05 only: the others have 1 - 0.05 to go
    points, slopes = row(0.05, 0.5, 0.5), row(1.0, 1.0, -1.0)
    assert change(points, slopes, 0.45, "linf") == pytest.approx([-0.05, -0.2, 0.2])
    # l2: (.05, .2, .4) in proportion to (1, 1, 2) where it is free: .05 + .2 + .8 = 1.05
    assert change(points, row(1.0, 1.0, -2.0), 1.05, "l2") == pytest.approx([-0.05, -0.2, 0.4])


def test_a_plane_that_is_out_of_reach_is_approached_as_far_as_possible() -> None:
    for norm in ("linf", "l2"):
        points, slopes = row(0.25, 0.5, 0.75), row(1.0, -2.0, 0.0)
        assert change(points, slopes, 5.0, norm) == pytest.approx([-0.25, 0.5, 0])
        assert change(points, row(0.0, 0.0, 0.0), 1.0, norm) == [0, 0, 0]


@pytest.mark.parametrize("seed", range(6))
def test_no_change_onto_the_plane_is_smaller(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(1, 1, 2, 4, generator=generator)
    slopes = torch.randn(1, 1, 2, 4, generator=generator)
    value = 0.9 * float(
        (slopes.clamp_min(0) * points).sum() - (slopes.clamp_max(0) * (1 - points)).sum()
    )
    x, w = points.flatten().numpy(), slopes.flatten().numpy()
    found = step_to_plane(points, slopes, torch.tensor([value]), "linf").flatten()
    assert float(found @ slopes.flatten()) == pytest.approx(-value, abs=1e-5)
    # least t with -t <= d <= t, 0 <= x + d <= 1 and <w, d> = -value
    exact = linprog(
        [0] * 8 + [1],
        A_ub=np.block([[np.eye(8), -np.ones((8, 1))], [-np.eye(8), -np.ones((8, 1))]]),
        b_ub=np.zeros(16),
        A_eq=[[*w, 0.0]],
        b_eq=[-value],
        bounds=[*((-a, 1 - a) for a in x), (0, None)],
    )
    assert float(found.abs().max()) == pytest.approx(exact.fun, abs=1e-5)
    found = step_to_plane(points, slopes, torch.tensor([value]), "l2").flatten()
    assert float(found @ slopes.flatten()) == pytest.approx(-value, abs=1e-5)
    best = minimize(
        lambda d: d @ d,
        found.numpy() * 0.9,
        jac=lambda d: 2 * d,
        bounds=[(-a, 1 - a) for a in x],
        constraints={"type": "eq", "fun": lambda d: d @ w + value, "jac": lambda d: w},
        options={"ftol": 1e-12},
    )
    assert float(found.norm()) == pytest.approx(best.fun**0.5, abs=1e-4)


def test_images_of_a_batch_have_planes_of_their_own() -> None:
    points = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    slopes = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    values = torch.tensor([0.3, -2.0, 0.0, 100.0, -0.01])
    together = step_to_plane(points, slopes, values, "linf")
    for i in range(5):
        alone = step_to_plane(points[i : i + 1], slopes[i : i + 1], values[i : i + 1], "linf")
        assert torch.equal(alone[0], together[i])


WEIGHTS = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, -3.0]])


def planes(images: Tensor) -> Tensor:
    """A linear classifier of images of 2 x 2 pixels, 3 classes."""
    return images.flatten(1) @ WEIGHTS.T


@pytest.mark.parametrize("targets", [9, 0])
@pytest.mark.parametrize(("norm", "expected"), [("linf", 0.2), ("l2", 0.8 / 6**0.5)])
def test_a_linear_classifier_gives_way_at_the_known_distance(
    targets: int, norm: str, expected: float
) -> None:
    image = torch.tensor([0.7, 0.3, 0.3, 0.9]).view(1, 1, 2, 2)
    goal = Misclassify(planes, torch.tensor([0]))
    # 2 a - b - c = 0.8 with slopes 2, -1, -1: 0.8 / 4 in linf, 0.8 / sqrt(6) in l2
    result = FAB(1.0, norm, 30, target_classes=targets, stored=False)(
        image, goal, seeds=torch.tensor([5])
    )
    assert margin(goal, result) > 0
    length = FAB(1.0, norm).length(result - image)
    assert length.item() == pytest.approx(expected, rel=0.02)
    assert length.item() > expected


def test_a_target_is_reached_past_all_other_classes() -> None:
    def shifted(images: Tensor) -> Tensor:
        return planes(images) + torch.tensor([0.0, 0.0, 2.4])

    image = torch.tensor([0.4, 0.3, 0.3, 0.9]).view(1, 1, 2, 2)
    goal = Classify(shifted, torch.tensor([2]))
    result = FAB(1.0, steps=40, stored=False)(image, goal, seeds=torch.tensor([5]))
    assert shifted(result).argmax(1).item() == 2
    # all values down by s: 0.8 - 2 s and 0.6 - 2 s meet -0.3 + 3 s at s = 0.22 and 0.18
    assert 0.22 < (result - image).abs().max().item() < 0.26


def test_changes_are_smaller_than_those_of_pgd_and_no_smaller_change_of_it_succeeds() -> None:
    images = cases.images()
    goal = Misclassify(cases.MODEL, cases.MODEL(images).argmax(1))
    result = FAB(1.0, steps=30, stored=False)(images, goal, seeds=cases.seeds())
    assert (margin(goal, result) > 0).all()
    sizes = (result - images).abs().amax(dim=(1, 2, 3))
    assert sizes.max() < 0.04
    for i, size in enumerate(sizes.tolist()):
        one = Misclassify(cases.MODEL, goal.labels[i : i + 1])
        weaker = PGD(0.95 * size, 0.1 * size, 40)
        found = weaker(images[i : i + 1], one, seeds=cases.seeds()[i : i + 1])
        assert margin(one, found) <= 0


def test_a_change_beyond_the_radius_is_cut_to_it() -> None:
    images = cases.images()
    goal = Misclassify(cases.MODEL, cases.MODEL(images).argmax(1))
    whole = FAB(1.0, steps=20, stored=False)(images, goal, seeds=cases.seeds())
    cut = FAB(0.005, steps=20, stored=False)(images, goal, seeds=cases.seeds())
    assert torch.allclose(cut, torch.clamp(whole, images - 0.005, images + 0.005), atol=1e-6)


def test_further_starts_are_random_within_half_the_radius(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = cases.images()
    goal = Misclassify(cases.MODEL, cases.MODEL(images).argmax(1))
    drawn: list[tuple[float, str, tuple[int, ...]]] = []

    def noted(clean: Tensor, epsilon: float, norm: str, seeds: Tensor) -> Tensor:
        drawn.append((epsilon, norm, tuple(seeds.tolist())))
        return random_start(clean, epsilon, norm, seeds)

    monkeypatch.setattr("defender.attacks.fab.random_start", noted)
    one = FAB(1.0, "l2", 6, target_classes=2, stored=False)(images, goal, seeds=cases.seeds())
    assert drawn == []
    more = FAB(1.0, "l2", 6, restarts=3, target_classes=2, stored=False)(
        images, goal, seeds=cases.seeds()
    )
    assert [(epsilon, norm) for epsilon, norm, _ in drawn] == [(0.5, "l2")] * 4
    assert len({seeds for *_, seeds in drawn}) == 4
    length = FAB(1.0, "l2").length
    assert (length(more - images) <= length(one - images) + 1e-6).all()


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.1), ("l2", 2.0)])
def test_results_last_when_they_are_stored(norm: str, epsilon: float) -> None:
    images = cases.images()
    goal = Misclassify(cases.MODEL, cases.MODEL(images).argmax(1))

    def stored(result: Tensor) -> Tensor:
        return from_uint8(quantise_within(result, images, norm=norm, epsilon=epsilon))

    short = FAB(epsilon, norm, 20, stored=False)(images, goal, seeds=cases.seeds())
    long = FAB(epsilon, norm, 20)(images, goal, seeds=cases.seeds())
    assert (margin(goal, short) > 0).all()
    assert not (margin(goal, stored(short)) > 0).all()
    assert (margin(goal, stored(long)) > 0).all()
    # along the same change, and no longer than needed
    ratio = FAB(1.0, norm).length(long - images) / FAB(1.0, norm).length(short - images)
    assert ((ratio > 0.999) & (ratio < 4.001)).all()
    kept = margin(goal, stored(short)) > 0
    assert torch.equal(long[kept], short[kept])
