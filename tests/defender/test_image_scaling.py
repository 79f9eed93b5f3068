"""The image-scaling attack: kept by the real libraries, and never better than the bound."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from defender.attacks import IFGSM, ImageScaling
from defender.metrics.image import l2, psnr
from defender.objectives import Defended, Misclassify, ScaleTo
from defender.purifiers import Median
from defender.scaling import Scaler
from defender.scaling.libraries import ALGORITHMS
from defender.scaling.solvers.l2 import solve_l2
from tests import cases
from tests.defender.scaled_pictures import grid, missed, smooth

METHODS = [(library, name) for library, names in ALGORITHMS.items() for name in names]


def attacked(attack: ImageScaling, source: Tensor, target: Tensor, scaler: Scaler) -> Tensor:
    seeds = torch.zeros(len(source), dtype=torch.int64)
    return attack(source, ScaleTo(scaler, target), seeds=seeds)


@pytest.mark.parametrize("name", ["linear", "cubic"])
def test_an_image_does_not_see_its_batch(name: str) -> None:
    scaler = Scaler("opencv", name, source=(40, 33), target=(15, 16))
    source, target = smooth(5, scaler.source, 1, 3), grid(5, scaler.target, 2, 3)
    together = attacked(ImageScaling(), source, target, scaler)
    alone = [
        attacked(ImageScaling(), source[i : i + 1], target[i : i + 1], scaler) for i in range(5)
    ]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("epsilon", [0.0, 1 / 255, 4 / 255])
@pytest.mark.parametrize("method", METHODS, ids="-".join)
def test_the_real_library_makes_the_target_of_the_stored_image(
    method: tuple[str, str], epsilon: float
) -> None:
    for source_size, target_size in [((61, 90), (17, 24)), ((64, 48), (16, 16))]:
        scaler = Scaler(*method, source=source_size, target=target_size)
        source = smooth(2, source_size, 1)
        target = 0.1 + 0.8 * smooth(2, target_size, 2)
        target = (target * 255).round() / 255
        image = attacked(ImageScaling(epsilon), source, target, scaler)
        assert torch.equal(image, (image * 255).round() / 255)
        assert missed(image, target, scaler) <= 255 * epsilon + 1e-3


@pytest.mark.parametrize("library", ["torch", "pillow"])
def test_a_library_that_clips_between_its_passes_is_served_too(library: str) -> None:
    scaler = Scaler(library, "cubic", source=(61, 45), target=(20, 17))
    source = (smooth(2, scaler.source, 1) > 0.5).float()
    target = 0.2 + 0.6 * (smooth(2, scaler.target, 2) > 0.5).float()
    assert missed(attacked(ImageScaling(), source, target, scaler), target, scaler) <= 1.001


def test_epsilon_counts_in_whole_grey_levels() -> None:
    scaler = Scaler("opencv", "nearest", source=(32, 32), target=(8, 8))
    source, target = grid(2, scaler.source, 1), grid(2, scaler.target, 2)
    by_level = [attacked(ImageScaling(n / 255), source, target, scaler) for n in (1, 2)]
    assert torch.equal(attacked(ImageScaling(1.9 / 255), source, target, scaler), by_level[0])
    assert missed(by_level[1], target, scaler) == pytest.approx(2, abs=1e-3)
    assert missed(by_level[0], target, scaler) == pytest.approx(1, abs=1e-3)


def test_more_epsilons_are_tried_by_the_images_that_need_them() -> None:
    # one input row serves both output rows: they cannot differ by more than twice epsilon
    scaler = Scaler("opencv", "nearest", source=(1, 4), target=(2, 2))
    source = torch.full((2, 1, 1, 4), 100.0) / 255
    target = torch.tensor([[[[90.0, 90], [90, 90]]], [[[90, 90], [108, 108]]]]) / 255
    first = attacked(ImageScaling(5 / 255), source, target, scaler)
    assert missed(first[1:], target[1:], scaler) > 5.5
    more = attacked(ImageScaling(5 / 255, more_epsilons=(9 / 255,)), source, target, scaler)
    assert torch.equal(more[:1], first[:1])
    assert missed(more[1:], target[1:], scaler) <= 9.001
    never = attacked(ImageScaling(5 / 255, more_epsilons=(6 / 255,)), source, target, scaler)
    assert missed(never[1:], target[1:], scaler) <= missed(first[1:], target[1:], scaler)


@pytest.mark.parametrize(("source", "target"), [((9, 9), (9, 9)), ((5, 7), (8, 11))], ids=str)
@pytest.mark.parametrize("method", METHODS, ids="-".join)
def test_images_no_larger_than_the_target_come_as_near_as_they_can(
    method: tuple[str, str], source: tuple[int, int], target: tuple[int, int]
) -> None:
    scaler = Scaler(*method, source=source, target=target)
    clean, goal = grid(1, source, 1), grid(1, target, 2)
    image = attacked(ImageScaling(), clean, goal, scaler)
    assert torch.equal(image, (image * 255).round() / 255)
    if source == target:
        assert missed(image, goal, scaler) <= 1.001
    assert ScaleTo(scaler, goal)(image) > ScaleTo(scaler, goal)(clean)


def test_no_images_give_no_images() -> None:
    scaler = Scaler("opencv", "cubic", source=(20, 20), target=(7, 7))
    empty = torch.zeros(0, 1, 20, 20)
    assert attacked(ImageScaling(), empty, torch.zeros(0, 1, 7, 7), scaler).shape == empty.shape


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    method=st.sampled_from(METHODS),
    antialias=st.booleans(),
    source=st.tuples(st.integers(3, 26), st.integers(3, 26)),
    share=st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)),
    levels=st.integers(0, 6),
    seed=st.integers(0, 2**16),
)
def test_no_attack_beats_the_bound(
    method: tuple[str, str],
    antialias: bool,
    source: tuple[int, int],
    share: tuple[float, float],
    levels: int,
    seed: int,
) -> None:
    antialias = antialias and method in (("torch", "linear"), ("torch", "cubic"))
    size = (max(1, int(source[0] * share[0])), max(1, int(source[1] * share[1])))
    scaler = Scaler(*method, antialias, source, size)
    clean, target = grid(1, source, seed), grid(1, size, seed + 1)
    image = attacked(ImageScaling(levels / 255), clean, target, scaler)
    wanted = (target - scaler(clean)).double().square().mean().sqrt()
    missing = (target - scaler(image)).double().square().mean().sqrt()
    reached = float(wanted - missing)
    if reached > 1e-4:
        bound = -20 * math.log10(reached) + scaler.hiding_gain()
        assert float(psnr(image, clean)) <= bound + 0.01


@pytest.mark.parametrize(("name", "ratio"), [("nearest", 4), ("linear", 3), ("linear", 4)])
def test_the_bound_is_reached_where_the_closed_form_applies(name: str, ratio: int) -> None:
    scaler = Scaler("opencv", name, source=(32 * ratio, 32 * ratio), target=(32, 32))
    # far enough from black and white that the box does not bind
    source = 0.4 + 0.2 * grid(1, scaler.source, 1)
    target = (255 * (0.45 + 0.1 * grid(1, scaler.target, 2))).round() / 255
    exact = solve_l2(source, target, scaler, 0.0)
    bound = psnr(scaler.linear(source), target) + scaler.hiding_gain()
    assert float(psnr(exact, source)) == pytest.approx(float(bound), abs=0.01)


def test_refuses_objectives_that_are_not_about_scaling() -> None:
    images, seeds = cases.images(), cases.seeds()
    wrong: Any = Misclassify(cases.MODEL, cases.labels())
    with pytest.raises(TypeError, match=r"(?s)ImageScaling\(.*Misclassify\("):
        ImageScaling()(images, wrong, seeds=seeds)
    scaler = Scaler(source=(cases.SIDE, cases.SIDE), target=(4, 4))
    goal = ScaleTo(scaler, grid(8, (4, 4), 1, 3))
    with pytest.raises(TypeError, match=r"(?s)ImageScaling\(.*Defended\(ScaleTo"):
        ImageScaling()(images, Defended(goal, Median(), seeds), seeds=seeds)


def test_refuses_images_that_do_not_fit_the_objective() -> None:
    scaler = Scaler(source=(12, 10), target=(4, 4))
    goal = ScaleTo(scaler, grid(2, (4, 4), 1))
    seeds = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"images: expected \(n, c, 12, 10\)"):
        ImageScaling()(grid(2, (10, 12), 1), goal, seeds=seeds)
    with pytest.raises(ValueError, match=r"images: expected \(2, 1\)"):
        ImageScaling()(grid(2, (12, 10), 1, 3), goal, seeds=seeds)
    goal = ScaleTo(scaler, grid(2, (4, 4), 1) + 0.5)
    with pytest.raises(ValueError, match="target: expected values in"):
        ImageScaling()(grid(2, (12, 10), 1), goal, seeds=seeds)
    overlapping = Scaler("opencv", "cubic", source=(12, 10), target=(4, 4))
    goal = ScaleTo(overlapping, grid(2, (4, 4), 1))
    with pytest.raises(ValueError, match="method: expected output pixels that share no input"):
        ImageScaling(method="exact")(grid(2, (12, 10), 1), goal, seeds=seeds)


def test_refuses_parameters_that_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="method: expected auto for norm 'linf'"):
        ImageScaling(norm="linf", method="dual")
    for wrong in ((0.001,), (0.02, 0.01), (2.0,), ("a",)):
        with pytest.raises(ValueError, match="more_epsilons: expected"):
            ImageScaling(1 / 255, more_epsilons=wrong)
    assert ImageScaling(0.0, more_epsilons=[0.1, 0.2]).more_epsilons == (0.1, 0.2)


def test_gradient_attacks_can_pursue_the_same_objective() -> None:
    scaler = Scaler(source=(cases.SIDE, cases.SIDE), target=(4, 4))
    goal = ScaleTo(scaler, grid(8, (4, 4), 1, 3))
    image = IFGSM(8 / 255, 1 / 255, 20)(cases.images(), goal, seeds=cases.seeds())
    assert (goal(image) > goal(cases.images())).all()


@pytest.mark.data
def test_feasible_at_one_level_where_two_stages_are_not(data: Path) -> None:
    folder = data / "chest_xray_442x302"
    if not folder.is_dir():
        pytest.skip("no chest_xray_442x302 in the data folder")
    picture = np.array(Image.open(folder / "chest1.jpeg").convert("L"))
    cat = Image.open(folder / "target_cat.jpg").convert("L").resize((112, 112), Image.LANCZOS)
    source = torch.from_numpy(picture).view(1, 1, 302, 442).float() / 255
    target = torch.from_numpy(np.array(cat)).view(1, 1, 112, 112).float() / 255
    scaler = Scaler("opencv", "linear", source=(302, 442), target=(112, 112))
    ours = attacked(ImageScaling(1 / 255), source, target, scaler)
    assert missed(ours, target, scaler) <= 1.001
    theirs = attacked(ImageScaling(1 / 255, method="two-stage"), source, target, scaler)
    miss = missed(theirs, target, scaler)
    assert miss >= 2
    equal = attacked(ImageScaling(miss / 255), source, target, scaler)
    assert missed(equal, target, scaler) <= miss + 1e-3
    assert l2(source, equal) <= 1.001 * l2(source, theirs)
