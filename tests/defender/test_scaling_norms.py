"""The attack of fewest, smallest summed and smallest largest changes, against linear programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from scipy.sparse import csr_matrix, hstack, identity, vstack

from defender.scaling import Scaler
from defender.scaling.solvers.norms import solve_l0, solve_l1, solve_linf

EPSILON = 1 / 255
SEPARATE = [
    Scaler("opencv", "nearest", False, (20, 21), (6, 7)),
    Scaler("opencv", "linear", False, (20, 21), (6, 7)),
    Scaler("opencv", "cubic", False, (24, 28), (6, 7)),
    Scaler("opencv", "area", False, (18, 21), (6, 7)),
    Scaler("torch", "linear", False, (19, 23), (6, 7)),
]
SHARED = [
    Scaler("opencv", "area", False, (21, 24), (6, 7)),
    Scaler("opencv", "cubic", False, (21, 24), (6, 7)),
    Scaler("opencv", "linear", False, (10, 11), (6, 7)),
    Scaler("pillow", "linear", False, (21, 24), (6, 7)),
]
ALL = [*SEPARATE, *SHARED]
SOLVERS = [solve_l0, solve_l1, solve_linf]


def smooth(n: int, size: tuple[int, int], seed: int, low: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 1, 4, 4, generator=generator) * 1.4 - 0.2
    field = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")
    return field.clamp(0, 1) * (1 - 2 * low) + low


def problem(scaler: Scaler, n: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return smooth(n, scaler.source, 1), smooth(n, scaler.target, 2, low=0.2)


def optimum(source: torch.Tensor, target: torch.Tensor, scaler: Scaler, norm: str) -> float:
    """Optimal value of the linear program, by HiGHS; for ``l0`` of its convex relaxation."""
    left, right = scaler.matrices(torch.float64)
    resize = csr_matrix(np.kron(left.numpy(), right.T.numpy()))
    before, wanted = source.flatten().double().numpy(), target.flatten().double().numpy()
    missing = wanted - resize @ before
    limits = np.concatenate([missing + EPSILON, EPSILON - missing])
    size = len(before)
    if norm == "linf":
        bound = csr_matrix(np.ones((size, 1)))
        none = csr_matrix((len(wanted), 1))
        rows = vstack(
            [
                hstack([resize, none]),
                hstack([-resize, none]),
                hstack([identity(size), -bound]),
                hstack([-identity(size), -bound]),
            ]
        )
        limits = np.concatenate([limits, np.zeros(2 * size)])
        cost = np.append(np.zeros(size), 1.0)
        bounds = [*zip(-before, 1 - before, strict=True), (0.0, 1.0)]
    else:
        rows = vstack([hstack([resize, -resize]), hstack([-resize, resize])])
        room = np.concatenate([1 - before, before])
        cost = 1 / np.maximum(room, 1e-9) if norm == "l0" else np.ones(2 * size)
        bounds = [(0.0, limit) for limit in room]
    solved = linprog(cost, A_ub=rows, b_ub=limits, bounds=bounds, method="highs")
    assert solved.success
    return float(solved.fun)


def excess(made: torch.Tensor, target: torch.Tensor, scaler: Scaler) -> float:
    """How far the scaled image is outside what epsilon allows, in grey levels."""
    return 255 * float((scaler.linear(made) - target).abs().max() - EPSILON)


@pytest.mark.parametrize("solve", SOLVERS)
@pytest.mark.parametrize("scaler", ALL, ids=str)
def test_the_scaled_image_is_the_target_and_the_image_stays_in_range(
    scaler: Scaler, solve: Any
) -> None:
    source, target = problem(scaler)
    made = solve(source, target, scaler, EPSILON)
    assert made.shape == source.shape
    assert made.dtype == source.dtype
    assert 0 <= made.min() <= made.max() <= 1
    assert excess(made, target, scaler) <= (1e-3 if scaler in SEPARATE else 0.5)
    assert excess(source, target, scaler) > 30


@pytest.mark.parametrize("scaler", ALL, ids=str)
def test_the_sum_of_changes_is_that_of_the_linear_program(scaler: Scaler) -> None:
    source, target = problem(scaler)
    made = solve_l1(source, target, scaler, EPSILON)
    for index in range(len(source)):
        best = optimum(source[index], target[index], scaler, "l1")
        accuracy = 1e-5 if scaler in SEPARATE else 1e-3
        assert float((made - source)[index].abs().sum()) == pytest.approx(best, rel=accuracy)


@pytest.mark.parametrize("scaler", ALL, ids=str)
def test_the_largest_change_is_that_of_the_linear_program(scaler: Scaler) -> None:
    source, target = problem(scaler)
    made = solve_linf(source, target, scaler, EPSILON)
    for index in range(len(source)):
        best = optimum(source[index], target[index], scaler, "linf")
        accuracy = 1e-5 if scaler in SEPARATE else 1e-2
        assert float((made - source)[index].abs().max()) == pytest.approx(best, rel=accuracy)


@pytest.mark.parametrize("scaler", SEPARATE, ids=str)
def test_no_smaller_number_of_pixels_would_do(scaler: Scaler) -> None:
    """The relaxation allows shares of pixels: rounding up its value by block is the least."""
    source, target = problem(scaler)
    made = solve_l0(source, target, scaler, EPSILON)
    changed = (made != source).sum(dim=(1, 2, 3))
    left, right = scaler.matrices(torch.float64)
    for index in range(len(source)):
        plane, least = source[index, 0].double(), 0
        for row in range(scaler.target[0]):
            for column in range(scaler.target[1]):
                weight = torch.outer(left[row], right[:, column])
                gap = float(target[index, 0, row, column] - (weight * plane).sum())
                upwards = (weight * gap) > 0
                reach = weight.abs() * torch.where(upwards, 1 - plane, plane)
                summed = reach.flatten().sort(descending=True).values.cumsum(0)
                if abs(gap) > EPSILON:
                    least += 1 + int((summed < abs(gap) - EPSILON).sum())
        assert int(changed[index]) == least


def test_few_pixels_change_where_blocks_overlap() -> None:
    for scaler in SHARED[:2]:
        source, target = problem(scaler)
        made = solve_l0(source, target, scaler, EPSILON)
        for index in range(len(source)):
            relaxed = optimum(source[index], target[index], scaler, "l0")
            # a vertex of the relaxation has at most one pixel in part for each output pixel
            outputs = scaler.target[0] * scaler.target[1]
            assert relaxed <= int((made != source)[index].sum()) + 1
            assert int((made != source)[index].sum()) <= relaxed + outputs


def test_one_block_by_hand() -> None:
    """Mean of 2 x 2 pixels from 0.25 to 0.5: the three ways to add 1 to their sum."""
    scaler = Scaler("opencv", "area", False, (2, 2), (1, 1))
    source = torch.tensor([[0.0, 0.25], [0.5, 0.25]]).view(1, 1, 2, 2)
    target = torch.tensor([[[[0.5]]]])
    few = solve_l0(source, target, scaler, 0.0)
    assert torch.allclose(few.flatten(), torch.tensor([1.0, 0.25, 0.5, 0.25]))
    level = solve_linf(source, target, scaler, 0.0)
    assert torch.allclose(level.flatten(), torch.tensor([0.25, 0.5, 0.75, 0.5]))
    summed = solve_l1(source, target, scaler, 0.0)
    assert float((summed - source).abs().sum()) == pytest.approx(1.0)
    loose = solve_linf(source, target, scaler, 0.2)
    assert torch.allclose((loose - source).flatten(), torch.full((4,), 0.05))


def test_pixels_at_their_bound_leave_the_rest_to_others() -> None:
    """0.9 can rise by 0.1 only, so that the other three rise by 0.3 each to add 1."""
    scaler = Scaler("opencv", "area", False, (2, 2), (1, 1))
    source = torch.tensor([0.9, 0.2, 0.2, 0.2]).view(1, 1, 2, 2)
    made = solve_linf(source, torch.tensor([[[[0.625]]]]), scaler, 0.0)
    assert torch.allclose(made.flatten(), torch.tensor([1.0, 0.5, 0.5, 0.5]))


def test_pixels_of_negative_weight_move_the_other_way() -> None:
    scaler = Scaler("opencv", "cubic", False, (24, 28), (6, 7))
    source = torch.full((1, 1, 24, 28), 0.5)
    change = solve_linf(source, torch.full((1, 1, 6, 7), 0.7), scaler, 0.0) - source
    left, right = scaler.matrices()
    sign = torch.outer(left.sum(0).sign(), right.sum(1).sign())
    assert torch.equal(change[0, 0].sign(), sign)
    assert change.abs().max() - change.abs().min() < 1e-6


@pytest.mark.parametrize("solve", SOLVERS)
@pytest.mark.parametrize("scaler", [SEPARATE[1], SHARED[0]], ids=str)
def test_an_image_that_scales_to_the_target_stays(scaler: Scaler, solve: Any) -> None:
    source, _ = problem(scaler)
    made = solve(source, scaler.linear(source), scaler, EPSILON)
    assert torch.allclose(made, source, atol=1e-6)


@pytest.mark.parametrize("solve", SOLVERS)
def test_sizes_that_do_not_shrink(solve: Any) -> None:
    source, target = smooth(2, (8, 9), 1), smooth(2, (8, 9), 2)
    same = solve(source, target, Scaler("opencv", "area", False, (8, 9), (8, 9)), 0.0)
    assert torch.allclose(same, target, atol=1e-6)
    scaler = Scaler("opencv", "nearest", False, (8, 9), (16, 18))
    doubled = target.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(solve(source, doubled, scaler, 0.0), target, atol=0.02)


@pytest.mark.parametrize("solve", SOLVERS)
@pytest.mark.parametrize("scaler", [SEPARATE[2], SHARED[1]], ids=str)
def test_images_and_channels_do_not_mix(scaler: Scaler, solve: Any) -> None:
    def run(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = solve(source, target, scaler, EPSILON, iterations=40)
        return made

    source, target = problem(scaler)
    whole = run(source, target)
    alone = [run(source[i : i + 1], target[i : i + 1]) for i in range(len(source))]
    assert torch.allclose(whole, torch.cat(alone), atol=1e-4)
    if solve is not solve_linf or scaler in SEPARATE:
        colour = run(source.transpose(0, 1), target.transpose(0, 1))
        assert torch.allclose(colour.transpose(0, 1), whole, atol=1e-4)
