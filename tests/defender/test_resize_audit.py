"""The certificate of a resize: its gains, the bound, and what is advised."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from defender.metrics.image import psnr
from defender.scaling import Scaler, psnr_bound
from defender.scaling.audit import METHODS, audit, table, verdict
from tests.defender.scalers import any_scaler

SIDES = (448, 500, 672, 896, 1024)
MEASURED: dict[tuple[str, str, bool], tuple[float, ...]] = {
    ("opencv", "nearest", False): (6.0, 7.0, 9.5, 12.0, 13.2),
    ("opencv", "linear", False): (0.0, 6.8, 9.5, 6.0, 12.0),
    ("torch", "linear", False): (0.0, 6.8, 9.5, 6.0, 12.0),
    ("opencv", "cubic", False): (5.5, 7.0, 9.5, 9.2, 13.1),
    ("torch", "cubic", False): (5.5, 7.0, 9.5, 9.2, 13.1),
    ("opencv", "lanczos", False): (6.2, 7.4, 9.5, 11.1, 13.1),
    ("opencv", "area", False): (0.0, 0.0, 0.0, 0.0, 0.0),
    ("pillow", "linear", False): (0.0, 0.0, 0.0, 0.0, 0.0),
    ("torch", "linear", True): (0.0, 0.0, 0.0, 0.0, 0.0),
    ("pillow", "cubic", False): (0.1, 0.1, 0.1, 0.1, 0.1),
    ("torch", "cubic", True): (0.1, 0.1, 0.1, 0.1, 0.1),
    ("pillow", "lanczos", False): (0.3, 0.3, 0.4, 0.4, 0.4),
}
"""Hiding gains in dB to 224 x 224, measured once from recovered matrices and dense norms."""


@pytest.mark.parametrize("method", MEASURED, ids=str)
def test_gains_are_those_measured(method: tuple[str, str, bool]) -> None:
    gains = [Scaler(*method, (side, side), (224, 224)).hiding_gain() for side in SIDES]
    assert gains == pytest.approx(list(MEASURED[method]), abs=0.1)


def test_gains_in_closed_form() -> None:
    # one pixel of weight 1 for every 16; four of weight 1/4
    nearest = Scaler("pillow", "nearest", source=(64, 48), target=(16, 12))
    assert nearest.hiding_gain() == pytest.approx(10 * math.log10(16))
    linear = Scaler("torch", "linear", source=(64, 48), target=(16, 12))
    assert linear.hiding_gain() == pytest.approx(10 * math.log10(4))
    assert Scaler("torch", "area", source=(64, 48), target=(16, 12)).hiding_gain() < 1e-9


@settings(max_examples=150, deadline=None)
@given(scaler=any_scaler)
def test_gain_is_the_product_of_dense_norms(scaler: Scaler) -> None:
    left, right = scaler.matrices(torch.float64)
    norms = torch.linalg.matrix_norm(left, 2) * torch.linalg.matrix_norm(right, 2)
    ratio = math.prod(scaler.source) / math.prod(scaler.target)
    expected = 10 * math.log10(ratio * norms.item() ** 2)
    assert scaler.hiding_gain() == pytest.approx(expected, abs=1e-9)
    assert scaler.hiding_gain() >= 0


@settings(max_examples=60, deadline=None)
@given(
    target=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    more=st.tuples(st.integers(0, 60), st.integers(0, 60)),
)
def test_nothing_hides_from_area(target: tuple[int, int], more: tuple[int, int]) -> None:
    source = (target[0] + more[0], target[1] + more[1])
    scaler = Scaler("opencv", "area", source=source, target=target)
    assert scaler.hiding_gain() == pytest.approx(0, abs=1e-9)
    whole = Scaler("torch", "area", source=(3 * target[0], 2 * target[1]), target=target)
    assert whole.hiding_gain() == pytest.approx(0, abs=1e-9)


@settings(max_examples=150, deadline=None)
@given(scaler=any_scaler, seed=st.integers(0, 1000), spread=st.floats(0, 1))
def test_no_image_is_nearer_than_the_bound(scaler: Scaler, seed: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    source = torch.rand(2, 1, *scaler.source, generator=generator, dtype=torch.float64)
    change = torch.randn(source.shape, generator=generator, dtype=torch.float64)
    attacked = source + spread * change
    reached = scaler.linear(attacked)
    bound = psnr_bound(scaler, source, reached)
    assert (psnr(source, attacked) <= bound + 1e-6).all()
    epsilon = 0.02
    off = epsilon * (2 * torch.rand(reached.shape, generator=generator) - 1)
    assert (
        psnr(source, attacked) <= psnr_bound(scaler, source, reached + off, epsilon) + 1e-6
    ).all()


@settings(max_examples=60, deadline=None)
@given(scaler=any_scaler)
def test_the_bound_is_reached(scaler: Scaler) -> None:
    """By a change along the first singular vectors of L and R."""
    left, right = scaler.matrices(torch.float64)
    down = torch.linalg.svd(left)[2][0]
    across = torch.linalg.svd(right)[0][:, 0]
    source = torch.full((1, 1, *scaler.source), 0.5, dtype=torch.float64)
    attacked = source + 0.1 * torch.outer(down, across)
    bound = psnr_bound(scaler, source, scaler.linear(attacked))
    assert psnr(source, attacked).item() == pytest.approx(bound.item(), abs=1e-6)


def test_bound_of_replaced_pixels() -> None:
    """Nearest at a ratio of 4: 1 pixel of 16 is replaced, and the error is spread over all."""
    scaler = Scaler("torch", "nearest", source=(16, 16), target=(4, 4))
    source, target = torch.full((1, 3, 16, 16), 0.2), torch.full((1, 3, 4, 4), 0.7)
    attacked = source.clone()
    attacked[:, :, ::4, ::4] = 0.7
    expected = 10 * math.log10(16 / 0.25)
    assert psnr(source, attacked).item() == pytest.approx(expected, abs=1e-5)
    assert psnr_bound(scaler, source, target).item() == pytest.approx(expected, abs=1e-5)
    near = psnr_bound(scaler, source, target, epsilon=0.3).item()
    assert near == pytest.approx(10 * math.log10(16 / 0.04), abs=1e-5)
    assert psnr_bound(scaler, source, target, epsilon=0.6).item() == math.inf


def test_bound_checks_what_it_is_given() -> None:
    scaler = Scaler("torch", "nearest", source=(16, 16), target=(4, 4))
    image = torch.zeros(2, 1, 16, 16)
    with pytest.raises(ValueError, match=r"target: expected \(2, 1, 4, 4\), got \(1, 1, 4, 4\)"):
        psnr_bound(scaler, image, torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match=r"epsilon: expected >= 0, got -1"):
        psnr_bound(scaler, image, torch.zeros(2, 1, 4, 4), -1)


def test_verdicts() -> None:
    assert [verdict(gain) for gain in (0, 0.49, 0.5, 4.99, 5, 13)] == [
        *["safe in general"] * 2,
        *["safe for unrelated pairs"] * 2,
        *["open"] * 2,
    ]


@pytest.mark.parametrize(
    ("method", "side", "advised"),
    [
        (("opencv", "linear", False), 1024, ("opencv", "area", False)),
        (("opencv", "lanczos", False), 672, ("opencv", "area", False)),
        (("torch", "cubic", False), 672, ("torch", "cubic", True)),
        (("torch", "nearest", False), 672, ("torch", "area", False)),
        (("torch", "nearest", False), 500, ("torch", "linear", True)),
        (("torch", "area", False), 500, ("torch", "linear", True)),
        (("pillow", "nearest", False), 1024, ("pillow", "linear", False)),
        (("opencv", "linear", False), 448, None),
        (("pillow", "cubic", False), 1024, None),
    ],
)
def test_advice_is_the_nearest_safe_resize(
    method: tuple[str, str, bool], side: int, advised: tuple[str, str, bool] | None
) -> None:
    found = audit(Scaler(*method, (side, side), (224, 224)))
    if advised is None:
        assert found.verdict == "safe in general"
        assert found.change is None
        assert found.advice == "no change is needed"
        return
    assert found.verdict != "safe in general"
    assert found.change == Scaler(*advised, (side, side), (224, 224))
    assert found.change.hiding_gain() < 0.5
    name = " ".join(advised[:2]) + (" antialiased" if advised[2] else "")
    assert found.advice == f"use {name} ({found.change.hiding_gain():.1f} dB)"


def test_advice_where_a_library_has_nothing_safe() -> None:
    """OpenCV's area is none where one axis is enlarged."""
    found = audit(Scaler("opencv", "nearest", source=(100, 100), target=(64, 224)))
    assert found.change == Scaler("pillow", "linear", source=(100, 100), target=(64, 224))


def test_an_audit_as_plain_values() -> None:
    found: dict[str, Any] = audit(
        Scaler("torch", "linear", source=(64, 48), target=(16, 12))
    ).as_dict()
    assert found == {
        "library": "torch",
        "algorithm": "linear",
        "antialias": False,
        "source": [64, 48],
        "target": [16, 12],
        "hiding_gain": pytest.approx(6.0206, abs=1e-4),
        "considered_fraction": 0.25,
        "effective_fraction": 0.25,
        "verdict": "open",
        "advice": "use torch linear antialiased (0.0 dB)",
        "change": {
            "library": "torch",
            "algorithm": "linear",
            "antialias": True,
            "hiding_gain": pytest.approx(0.03, abs=0.1),
        },
    }


def test_table_has_every_method_once_at_every_ratio() -> None:
    rows = table()
    assert len(rows) == len(set(METHODS)) == len(METHODS)
    assert {(row[0].scaler.library, row[0].scaler.algorithm) for row in rows} >= {
        ("opencv", "nearest-exact"),
        ("pillow", "hamming"),
        ("torch", "area"),
    }
    for row in rows:
        assert [one.scaler.source for one in row] == [(side, side) for side in SIDES]
        assert {one.scaler.target for one in row} == {(224, 224)}
    chosen = table([((50, 40), (10, 20))], [("torch", "linear", True)])
    assert [[one.scaler for one in row] for row in chosen] == [
        [Scaler("torch", "linear", True, (50, 40), (10, 20))]
    ]
