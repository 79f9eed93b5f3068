"""Solvers of the smallest change for a wanted resize: optimal, and repaired after rounding."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from defender.metrics.image import l2
from defender.scaling import Scaler
from defender.scaling.solvers import blocks, dual
from defender.scaling.solvers.l2 import clips_between, solve_l2, solve_unclipped, two_stage
from defender.scaling.solvers.operator import operator
from defender.scaling.solvers.rounding import errors, round_to
from tests.defender.scaled_pictures import grid, missed, smooth


def with_scipy(source: Tensor, target: Tensor, scaler: Scaler, epsilon: float) -> Tensor:
    """The same problem by a general solver: sequential quadratic programming."""
    left, right = scaler.matrices(torch.float64)
    matrix = torch.kron(left, right.T.contiguous()).numpy()
    start, goal = source.double().flatten().numpy(), target.double().flatten().numpy()
    bounds = {
        "type": "ineq",
        "fun": lambda a: np.concatenate([epsilon - matrix @ a + goal, epsilon + matrix @ a - goal]),
        "jac": lambda a: np.concatenate([-matrix, matrix]),
    }
    found = minimize(
        lambda a: ((a - start) ** 2).sum() / 2,
        start,
        jac=lambda a: a - start,
        bounds=[(0, 1)] * len(start),
        constraints=[bounds],
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-14},
    )
    assert found.success, found.message
    return torch.from_numpy(found.x).view(source.shape)


def test_a_block_is_filled_like_water() -> None:
    # weights 1/2 and 1/2, S = (0.9, 0.1), wanted 0.9: both rise by 0.4, the first stops at 1
    scaler = Scaler("opencv", "linear", source=(1, 2), target=(1, 1))
    source, target = torch.tensor([[[[0.9, 0.1]]]]), torch.full((1, 1, 1, 1), 0.9)
    made = solve_l2(source, target, scaler, 0.0, method="exact")
    assert torch.allclose(made, torch.tensor([1.0, 0.8]))


def test_nearest_moves_the_one_pixel_that_counts_to_the_edge_of_the_interval() -> None:
    scaler = Scaler("opencv", "nearest", source=(4, 4), target=(2, 2))
    source = torch.full((1, 1, 4, 4), 0.5)
    target = torch.tensor([[[[0.9, 0.45], [0.1, 0.5]]]])
    expected = source.clone()
    expected[0, 0, ::2, ::2] = torch.tensor([[0.8, 0.5], [0.2, 0.5]])
    assert torch.allclose(solve_l2(source, target, scaler, 0.1, method="exact"), expected)


def test_what_is_out_of_reach_is_approached_as_far_as_possible() -> None:
    resize = operator(Scaler("opencv", "cubic", source=(8, 8), target=(2, 2)), torch.zeros(1))
    source = torch.full((1, 1, 8, 8), 0.5)
    made = blocks.solve(source, torch.full((1, 1, 2, 2), 3.0), resize, 0.0)
    weight = resize.adjoint(torch.ones(1, 2, 2)).view(1, 1, 8, 8)
    assert (weight < 0).any()
    assert torch.equal(made, (weight > 0).float())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("scaler", "method"),
    [
        (Scaler("opencv", "linear", source=(6, 5), target=(3, 2)), "exact"),
        (Scaler("opencv", "cubic", source=(8, 4), target=(2, 1)), "exact"),
        (Scaler("opencv", "cubic", source=(7, 6), target=(3, 2)), "dual"),
        (Scaler("opencv", "lanczos", source=(6, 6), target=(2, 2)), "dual"),
        (Scaler("opencv", "area", source=(7, 5), target=(3, 2)), "dual"),
        (Scaler("pillow", "linear", source=(6, 7), target=(2, 3)), "dual"),
        (Scaler("pillow", "cubic", source=(6, 6), target=(2, 2)), "dual"),
    ],
    ids=repr,
)
def test_agrees_with_a_general_solver(scaler: Scaler, method: str, seed: int) -> None:
    source = grid(1, scaler.source, seed).double()
    # what black and white pixels scale to can be reached, but only at the bounds of the box
    target = scaler.linear((grid(1, scaler.source, seed + 100) > 0.5).double())
    expected = with_scipy(source, target, scaler, 0.02)
    made = solve_l2(source, target, scaler, 0.02, method=method, steps=2000)
    if method == "dual":
        resize = operator(scaler, source)
        made = dual.solve(source, target, resize, 0.02, steps=5000, feasible=1e-8, gap=1e-8)
    assert (made - expected).abs().max() < 2e-4
    assert (scaler.linear(made) - target).abs().max() < 0.02 + 1e-6


@pytest.mark.parametrize("method", ["linear", "cubic", "lanczos", "area"])
@pytest.mark.parametrize("library", ["opencv", "pillow"])
def test_the_dual_stops_within_its_accuracy_of_the_optimum(library: str, method: str) -> None:
    scaler = Scaler(library, method, source=(60, 45), target=(25, 20))
    source, target = smooth(2, scaler.source, 1), smooth(2, scaler.target, 2)
    resize = operator(scaler, source.double())
    best = dual.solve(
        source.double(), target.double(), resize, 4 / 255, steps=20_000, feasible=1e-7, gap=1e-9
    )
    assert (scaler.linear(best) - target).abs().max() < 4 / 255 + 2e-7
    made = solve_l2(source, target, scaler, 4 / 255, method="dual")
    assert (scaler.linear(made) - target).abs().max() < 4 / 255 + 1.01 * dual.FEASIBLE
    assert torch.allclose(l2(source, made), l2(source, best), rtol=2e-4)


@pytest.mark.parametrize(
    "scaler",
    [
        Scaler("opencv", "linear", source=(48, 60), target=(16, 20)),
        Scaler("torch", "linear", source=(41, 64), target=(15, 20)),
        Scaler("opencv", "area", source=(48, 60), target=(16, 20)),
        Scaler("opencv", "cubic", source=(48, 64), target=(12, 16)),
    ],
    ids=repr,
)
def test_dual_and_closed_form_agree_where_both_apply(scaler: Scaler) -> None:
    source, target = grid(2, scaler.source, 1), smooth(2, scaler.target, 2)
    exact = solve_l2(source, target, scaler, 2 / 255, method="exact")
    ascended = solve_l2(source, target, scaler, 2 / 255, method="dual", steps=5000)
    assert torch.allclose(l2(source, exact), l2(source, ascended), rtol=1e-4)
    assert (exact - ascended).abs().max() < 0.01


def test_which_output_pixels_share_input_is_read_off_the_coefficients() -> None:
    def disjoint(name: str, source: int, target: int, library: str = "opencv") -> bool:
        scaler = Scaler(library, name, source=(source, source), target=(target, target))
        return operator(scaler, torch.zeros(1)).disjoint

    assert disjoint("nearest", 11, 10)
    assert disjoint("linear", 20, 10)
    assert not disjoint("linear", 19, 10)
    assert disjoint("cubic", 40, 10)
    assert not disjoint("cubic", 39, 10)
    assert disjoint("lanczos", 30, 10)
    assert not disjoint("lanczos", 40, 10)
    assert disjoint("area", 30, 10)
    assert not disjoint("area", 35, 10)
    assert not disjoint("linear", 40, 10, "pillow")


def test_banded_products_are_those_of_the_matrices() -> None:
    scaler = Scaler("pillow", "lanczos", source=(37, 29), target=(11, 8))
    planes = grid(3, scaler.source, 4).double()
    small = grid(3, scaler.target, 5).double()
    resize = operator(scaler, planes)
    assert torch.allclose(resize.forward(planes[:, 0]).transpose(1, 2), scaler.linear(planes)[:, 0])
    spread = resize.adjoint(small[:, 0].transpose(1, 2))
    assert torch.allclose(spread, scaler.adjoint(small)[:, 0])


def test_curvature_bounds_the_gram_matrix() -> None:
    for name, side in itertools.product(("linear", "cubic", "lanczos"), (13, 30)):
        scaler = Scaler("opencv", name, source=(side, 20), target=(9, 7))
        left, right = scaler.matrices(torch.float64)
        resize = operator(scaler, left)
        kron = torch.kron(right.T.contiguous(), left)
        rest = torch.diag(resize.curvature.flatten()) - kron @ kron.T
        assert torch.linalg.eigvalsh(rest)[0] > -1e-9


def test_two_stages_change_more_and_miss_more() -> None:
    scaler = Scaler("opencv", "linear", source=(90, 75), target=(30, 28))
    source, target = grid(3, scaler.source, 1), smooth(3, scaler.target, 2)
    both = solve_l2(source, target, scaler, 1 / 255)
    after = two_stage(source, target, scaler, 1 / 255)
    miss = (scaler.linear(after) - target).abs().amax()
    assert 1.5 / 255 < miss < 3.5 / 255
    same = solve_l2(source, target, scaler, float(miss))
    assert (l2(source, same) <= l2(source, after)).all()
    assert (scaler.linear(both) - target).abs().max() < 1 / 255 + 1e-6


def test_images_that_ascend_together_stop_each_at_its_own_time() -> None:
    scaler = Scaler("opencv", "cubic", source=(40, 33), target=(15, 16))
    source, target = smooth(4, scaler.source, 1, 3), grid(4, scaler.target, 2, 3)
    source[1], target[1] = 0.5, 0.5  # done at once
    resize, accuracy = operator(scaler, source), (dual.FEASIBLE, dual.GAP)
    goal = target.transpose(2, 3)
    together = dual._ascend(source, goal, resize, 1 / 255, 300, accuracy)
    alone = dual.solve(source, target, resize, 1 / 255, steps=300)
    assert torch.equal(together[1], source[1])
    assert torch.allclose(together, alone, atol=1e-6)


def test_rounding_is_repaired_and_never_made_worse() -> None:
    scaler = Scaler("opencv", "linear", source=(64, 64), target=(16, 16))
    source, target = smooth(4, scaler.source, 3), smooth(4, scaler.target, 4)
    raw = solve_l2(source, target, scaler, 1 / 255)
    plain = (raw * 255).round() / 255
    assert all(missed(plain[i : i + 1], target[i : i + 1], scaler) == 2 for i in range(4))
    image, miss = round_to(raw, source, target, scaler, 1.0)
    assert miss.tolist() == pytest.approx([1, 1, 1, 1], abs=1e-3)
    assert errors(image, target, scaler).abs().amax((1, 2, 3)).tolist() == miss.tolist()
    assert (l2(source, image) < 1.005 * l2(source, plain)).all()
    untouched, unmended = round_to(raw, source, target, scaler, 1.0, rounds=0)
    assert torch.equal(untouched, plain)
    assert unmended.tolist() == pytest.approx([2, 2, 2, 2], abs=1e-3)


@pytest.mark.parametrize("width_first", [True, False])
def test_nothing_overshoots_between_the_axes(width_first: bool) -> None:
    scaler = Scaler("torch", "cubic", source=(61, 45), target=(20, 17))
    left, right = scaler.matrices(torch.float64)
    source = (smooth(2, scaler.source, 1) > 0.5).double()
    target = (smooth(2, scaler.target, 2) > 0.5).double()

    def overshoot(image: Tensor) -> float:
        between = image @ right if width_first else left @ image
        return float((between - between.clamp(0, 1)).abs().max())

    plain = solve_l2(source, target, scaler, 1 / 255)
    kept = solve_unclipped(source, target, scaler, 1 / 255, width_first=width_first, steps=5000)
    assert overshoot(plain) > 5 / 255
    assert overshoot(kept) <= 1.01 * dual.FEASIBLE
    assert (scaler.linear(kept) - target).abs().max() <= 1 / 255 + 1.01 * dual.FEASIBLE
    # a constraint more, and yet nearly as small a change
    assert (l2(source, plain) < l2(source, kept)).all()
    assert (l2(source, kept) < 1.05 * l2(source, plain)).all()


def test_which_resizes_clip_between_the_axes() -> None:
    assert clips_between(Scaler("torch", "cubic"))
    assert clips_between(Scaler("pillow", "lanczos"))
    assert not clips_between(Scaler("opencv", "cubic"))
    assert not clips_between(Scaler("pillow", "linear"))
