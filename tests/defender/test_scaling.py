"""Scalers: closed forms against the real libraries, the linear map, and the masks."""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional

from defender.scaling import Pipeline, Scaler, considered_mask, recover
from defender.scaling.considered import optimisation_mask
from defender.scaling.libraries import ALGORITHMS
from defender.scaling.scaler import Size
from tests.defender.scalers import ALL, any_scaler

SIZES: list[tuple[Size, Size]] = [
    ((448, 300), (224, 100)),
    ((97, 130), (13, 64)),
    ((500, 442), (224, 302)),
    ((224, 224), (64, 56)),
    ((32, 100), (32, 32)),
    ((442, 302), (112, 112)),
    ((672, 336), (224, 112)),
    ((33, 47), (10, 9)),
    ((10, 9), (33, 47)),
    ((64, 64), (224, 224)),
    ((60, 30), (20, 60)),
    ((30, 60), (60, 20)),
    ((50, 28), (68, 67)),
    ((126, 106), (26, 119)),
    ((64, 64), (32, 32)),
    ((1, 40), (1, 13)),
    ((40, 1), (13, 5)),
    ((7, 5), (1, 1)),
    ((1, 1), (3, 4)),
    ((5, 7), (5, 7)),
]
methods = pytest.mark.parametrize(
    "method", ALL, ids=lambda m: "-".join([*m[:2], *(["antialiased"] if m[2] else [])])
)


def scaler_of(method: tuple[str, str, bool], source: Size, target: Size) -> Scaler:
    if method[0] == "opencv":
        cv2 = pytest.importorskip("cv2")
        if method[1] == "nearest-exact" and int(cv2.__version__.split(".")[0]) < 5:
            pytest.skip("before release 5, positions had 16 bits, which differs when enlarging")
    return Scaler(*method, source, target)


def patterns(shape: Size, seed: int) -> list[Tensor]:
    """8-bit noise of all values, black and white noise, which overshoots most, and faint noise."""
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randint, size=(1, 3, *shape), generator=generator, dtype=torch.uint8)
    return [draw(0, 256), draw(0, 2) * 255, draw(100, 130)]


@methods
def test_closed_form_is_what_the_library_does_to_floats(method: tuple[str, str, bool]) -> None:
    for seed, (source, target) in enumerate(SIZES):
        scaler = scaler_of(method, source, target)
        image = torch.rand(1, 2, *source, generator=torch.Generator().manual_seed(seed))
        expected, made = scaler(image), scaler.linear(image)
        assert expected.shape == made.shape == (1, 2, *target)
        assert (expected - made).abs().max() < 1e-4, (source, target)


@methods
def test_recovered_coefficients_are_the_closed_form(method: tuple[str, str, bool]) -> None:
    for source, target in SIZES:
        scaler = scaler_of(method, source, target)
        if (scaler.library, scaler.algorithm) == ("opencv", "area") and (
            source[0] < target[0] or source[1] < target[1]
        ):
            continue  # what it does along one axis then depends on the other
        for recovered, closed in zip(recover(scaler), scaler.matrices(torch.float64), strict=True):
            assert (recovered - closed).abs().max() < 1e-4, (source, target)


@methods
def test_8_bit_closed_form_is_what_the_library_does(method: tuple[str, str, bool]) -> None:
    differing = total = 0
    for seed, (source, target) in enumerate(SIZES):
        scaler = scaler_of(method, source, target)
        for image in patterns(source, seed):
            expected, made = scaler(image), scaler.quantised(image)
            assert made.dtype == expected.dtype == torch.uint8
            off = (expected.int() - made.int()).abs()
            assert off.max() <= 1, (source, target)
            differing += int((off > 0).sum())
            total += off.numel()
    assert differing <= 1e-3 * total


@pytest.mark.parametrize("method", [m for m in ALL if m[1] in ("cubic", "lanczos")], ids=str)
def test_clipping_between_the_passes_matters(method: tuple[str, str, bool]) -> None:
    """Without it the closed form would be off by many levels, so the test above says something."""
    scaler = scaler_of(method, (64, 64), (224, 224))
    image = patterns((64, 64), 0)[1]
    plain = scaler.linear(image.double()).round().clamp(0, 255)
    off = (scaler(image).double() - plain).abs().max()
    assert off <= 1 if method[0] == "opencv" else off > 10


@pytest.mark.parametrize("method", [m for m in ALL if m[1].startswith("nearest")], ids=str)
def test_nearest_breaks_ties_as_each_library_does(method: tuple[str, str, bool]) -> None:
    for source, target in [(64, 224), (840, 1402), (1335, 300), (948, 815), (3, 1000), (7, 2)]:
        scaler = scaler_of(method, (source, 1), (target, 1))
        image = torch.arange(source, dtype=torch.float32).view(1, 1, -1, 1)
        expected = scaler(image).flatten().long()
        assert torch.equal(scaler.taps()[0].index.flatten(), expected), (source, target)


def test_coefficients_by_hand() -> None:
    linear = Scaler("opencv", "linear", source=(8, 5), target=(2, 5)).matrices(torch.float64)[0]
    assert linear.tolist() == [[0, 0.5, 0.5, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0.5, 0.5, 0]]
    cubic = Scaler("torch", "cubic", source=(4, 1), target=(1, 1)).matrices(torch.float64)[0]
    assert cubic[0].tolist() == pytest.approx([-0.09375, 0.59375, 0.59375, -0.09375])
    area = Scaler("opencv", "area", source=(5, 1), target=(2, 1)).matrices(torch.float64)[0]
    assert area.tolist() == [[0.4, 0.4, 0.2, 0, 0], [0, 0, 0.2, 0.4, 0.4]]
    bins = Scaler("torch", "area", source=(5, 1), target=(2, 1)).matrices(torch.float64)[0]
    assert bins[0].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0, 0])
    tent = Scaler("pillow", "linear", source=(4, 1), target=(2, 1)).matrices(torch.float64)[0]
    assert tent[0].tolist() == pytest.approx([3 / 7, 3 / 7, 1 / 7, 0])


def noise(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=150, deadline=None)
@given(scaler=any_scaler)
def test_coefficients_sum_to_one_and_the_map_is_the_matrices(scaler: Scaler) -> None:
    left, right = scaler.matrices(torch.float64)
    assert (left.sum(1) - 1).abs().max() < 1e-12
    assert (right.sum(0) - 1).abs().max() < 1e-12
    images, small = noise((2, 2, *scaler.source)), noise((2, 2, *scaler.target), 1)
    assert torch.allclose(scaler.linear(images), left @ images @ right, atol=1e-12)
    assert torch.allclose(scaler.adjoint(small), left.T @ small @ right.T, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(scaler=any_scaler, seed=st.integers(0, 100))
def test_adjoint_is_the_adjoint(scaler: Scaler, seed: int) -> None:
    images, small = noise((1, 1, *scaler.source), seed), noise((1, 1, *scaler.target), seed + 1)
    ahead = (scaler.linear(images) * small).sum()
    assert ahead.item() == pytest.approx((images * scaler.adjoint(small)).sum().item(), abs=1e-10)


def test_gradients_of_any_order() -> None:
    scaler = Scaler("opencv", "cubic", source=(9, 11), target=(4, 13))
    images = noise((2, 1, 9, 11)).requires_grad_()
    small = noise((2, 1, 4, 13), 1).requires_grad_()
    assert torch.autograd.gradcheck(scaler.linear, images)
    assert torch.autograd.gradgradcheck(scaler.linear, images)
    assert torch.autograd.gradcheck(scaler.adjoint, small)


def test_results_do_not_depend_on_the_batch() -> None:
    for method in (("opencv", "linear", False), ("pillow", "lanczos", False)):
        scaler = Scaler(*method, (61, 47), (16, 20))
        images = torch.rand(9, 3, 61, 47, generator=torch.Generator().manual_seed(0))
        small, levels = torch.rand(9, 3, 16, 20), (images * 255).to(torch.uint8)
        for function, batch in (
            (scaler.linear, images),
            (scaler.adjoint, small),
            (scaler.quantised, levels),
        ):
            whole = function(batch)
            parts = torch.cat([function(batch[:1]), function(batch[1:6]), function(batch[6:])])
            assert torch.equal(whole, parts)
            assert function(batch[:0]).shape == whole[:0].shape
        assert scaler(levels[:0]).shape == (0, 3, 16, 20)


def test_blocks_of_large_batches_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    scaler = Scaler("torch", "cubic", source=(30, 30), target=(8, 8))
    images = torch.randint(0, 256, (7, 3, 30, 30), dtype=torch.uint8)
    whole = scaler.quantised(images)
    monkeypatch.setattr("defender.scaling.quantised.BLOCK", 6000)
    assert torch.equal(scaler.quantised(images), whole)


def test_what_is_kept_from_inference_mode_serves_autograd() -> None:
    scaler = Scaler("torch", "linear", source=(13, 17), target=(5, 6))
    with torch.inference_mode():
        scaler.linear(torch.rand(1, 1, 13, 17))
        scaler.matrices()
        considered_mask(scaler, "weighted")
        scaler.quantised(torch.zeros(1, 1, 13, 17, dtype=torch.uint8))
    images = torch.rand(1, 1, 13, 17, requires_grad=True)
    left, right = scaler.matrices()
    masked = images * considered_mask(scaler, "weighted")
    ((left @ masked @ right).sum() + scaler.linear(images).square().sum()).backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()


def test_three_channels_to_one_pixel() -> None:
    """torch refuses these 8-bit images as they are."""
    image = torch.randint(0, 256, (2, 3, 7, 5), dtype=torch.uint8)
    scaler = Scaler("torch", "linear", True, (7, 5), (1, 1))
    single = functional.interpolate(image[:, :1], size=(1, 1), mode="bilinear", antialias=True)
    assert torch.equal(scaler(image)[:, :1], single)


def test_columns_one_pixel_wide() -> None:
    """torch fails at them with antialiasing and floats; the closed form is that of wider images."""
    column = torch.rand(1, 1, 7, 1, generator=torch.Generator().manual_seed(0))
    wide = functional.interpolate(
        column.expand(1, 1, 7, 2), size=(11, 2), mode="bilinear", antialias=True
    )
    made = Scaler("torch", "linear", True, (7, 1), (11, 1)).linear(column)
    assert torch.allclose(made, wide[..., :1], atol=1e-5)


def test_types_and_sizes_are_checked() -> None:
    scaler = Scaler("pillow", "cubic", source=(6, 8), target=(3, 4))
    with pytest.raises(ValueError, match=r"expected images \(n, c, 6, 8\), got \(1, 1, 8, 6\)"):
        scaler(torch.zeros(1, 1, 8, 6))
    with pytest.raises(ValueError, match=r"expected images \(n, c, 3, 4\)"):
        scaler.adjoint(torch.zeros(1, 1, 6, 8))
    with pytest.raises(TypeError, match=r"expected floats, got torch\.uint8"):
        scaler.linear(torch.zeros(1, 1, 6, 8, dtype=torch.uint8))
    with pytest.raises(TypeError, match=r"expected uint8, got torch\.float32"):
        scaler.quantised(torch.zeros(1, 1, 6, 8))
    with pytest.raises(TypeError, match=r"expected uint8 or floats, got torch\.int64"):
        scaler(torch.zeros(1, 1, 6, 8, dtype=torch.int64))
    for wrong, words in (
        ({"library": "skimage"}, r"library: expected opencv \| pillow \| torch, got 'skimage'"),
        ({"algorithm": "hamming"}, "algorithm: expected nearest .* for opencv, got 'hamming'"),
        ({"antialias": True}, "antialias: opencv has no antialiased linear"),
        ({"source": (0, 3)}, r"source: expected height and width >= 1, got \(0, 3\)"),
    ):
        with pytest.raises(ValueError, match=words):
            Scaler(**wrong)
    with pytest.raises(ValueError, match="torch antialiases linear and cubic only"):
        Pipeline("torch", "area", True)


def test_without_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    scaler = Scaler("opencv", "linear", source=(8, 8), target=(2, 2))
    image = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'image-defender\[scaling\]'"):
        scaler(image)
    # means of the 2 x 2 pixels in the middle of blocks of 4, by hand: 13.5 and so on, rounded up
    assert scaler.quantised(image).flatten().tolist() == [14, 18, 46, 50]
    assert scaler.hiding_gain() == pytest.approx(20 * np.log10(2))


@pytest.mark.parametrize(
    ("algorithm", "ratio", "share"),
    [
        ("nearest", 4, 1 / 16),
        ("linear", 4, 1 / 4),
        ("cubic", 4, 1.0),
        ("lanczos", 4, 1.0),
        ("area", 4, 1.0),
        ("linear", 3, 1 / 9),
        ("cubic", 3, 1 / 9),
        ("lanczos", 3, 1 / 9),
        ("lanczos", 5, 1 / 25),
    ],
)
def test_considered_pixels(algorithm: str, ratio: int, share: float) -> None:
    scaler = Scaler("opencv", algorithm, source=(28 * ratio, 20 * ratio), target=(28, 20))
    mask = considered_mask(scaler)
    assert mask.double().mean() == pytest.approx(share)
    assert scaler.considered_fraction() == pytest.approx(share)
    if ratio % 2:
        assert mask.nonzero()[0].tolist() == [ratio // 2, ratio // 2]
    # what is not considered has no influence at all
    image = torch.rand(1, 1, *scaler.source, dtype=torch.float64)
    changed = torch.where(mask, image, 1 - image)
    assert torch.equal(scaler.linear(changed), scaler.linear(image))


def test_effective_fraction_counts_by_weight() -> None:
    even = Scaler("torch", "linear", source=(64, 64), target=(16, 16))
    assert even.effective_fraction() == pytest.approx(1 / 4)
    cubic = Scaler("torch", "cubic", source=(400, 400), target=(100, 100))
    influence = cubic.influence()
    by_hand = influence.sum() ** 2 / (influence.numel() * influence.square().sum())
    assert cubic.effective_fraction() == pytest.approx(by_hand.item())
    # one axis: weights .59375 and -.09375 in turn
    assert by_hand.item() == pytest.approx((0.6875**2 / (2 * (0.59375**2 + 0.09375**2))) ** 2)


@pytest.mark.parametrize("algorithm", ["cubic", "lanczos"])
def test_pixels_of_small_weight_do_not_matter(algorithm: str) -> None:
    scaler = Scaler("opencv", algorithm, source=(128, 128), target=(32, 32))
    rows = torch.arange(128) % 4
    central = (rows == 1) | (rows == 2)
    expected = central.unsqueeze(1) & central
    assert torch.equal(considered_mask(scaler, "weighted"), expected)
    assert torch.equal(considered_mask(scaler, "pseudo-inverse"), expected)
    assert considered_mask(scaler, "weighted", 0.0).all()


@pytest.mark.parametrize(
    "method", [("opencv", "area", False), ("pillow", "lanczos", False), ("torch", "cubic", True)]
)
@pytest.mark.parametrize("kind", ["exact", "weighted", "optimisation", "pseudo-inverse"])
def test_antialiased_scaling_considers_everything(method: tuple[str, str, bool], kind: str) -> None:
    assert considered_mask(Scaler(*method, (125, 97), (56, 24)), kind).all()


@pytest.mark.parametrize("algorithm", ["nearest", "linear", "cubic", "lanczos", "area"])
@pytest.mark.parametrize("sizes", [((35, 41), (11, 9)), ((9, 20), (14, 7))])
def test_pseudo_inverse_mask_is_its_definition(algorithm: str, sizes: tuple[Size, Size]) -> None:
    scaler = Scaler("opencv", algorithm, source=sizes[0], target=sizes[1])
    left, right = scaler.matrices(torch.float64)
    ones = torch.ones(sizes[1], dtype=torch.float64)
    image = torch.linalg.pinv(left) @ ones @ torch.linalg.pinv(right)
    clear = ((image.abs() - 0.5).abs() > 1e-6) | (image.abs() < 0.1)
    mask = considered_mask(scaler, "pseudo-inverse")
    assert torch.equal(mask[clear], (image.round() != 0)[clear])


@pytest.mark.parametrize("method", [("opencv", "cubic", False), ("pillow", "lanczos", False)])
def test_optimisation_mask_is_that_of_the_smallest_attack(method: tuple[str, str, bool]) -> None:
    scaler = Scaler(*method, (19, 1), (6, 1))
    matrix = scaler.matrices(torch.float64)[0].numpy()
    solved = minimize(
        lambda d: d @ d,
        np.full(19, -155 / 255),
        jac=lambda d: 2 * d,
        bounds=[(-1, 0)] * 19,
        constraints={
            "type": "ineq",
            "fun": lambda d: np.concatenate([matrix @ d + 156 / 255, -154 / 255 - matrix @ d]),
            "jac": lambda d: np.concatenate([matrix, -matrix]),
        },
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-10},
    )
    assert solved.success
    moved = torch.from_numpy(-255 * solved.x)
    clear, expected = (moved - 0.5).abs() > 0.1, moved > 0.5
    assert torch.equal(considered_mask(scaler, "optimisation")[:, 0][clear], expected[clear])


def test_optimisation_mask_of_an_attack_that_is_given() -> None:
    scaler = Scaler("opencv", "linear", source=(12, 8), target=(3, 2))

    def attack(source: Tensor, target: Tensor) -> Tensor:
        assert source.unique().tolist() == [1]
        assert (target * 255).unique().tolist() == [100]
        made = source.clone()
        made[0, 0, 1:3, 5] = 100 / 255
        made[0, 0, 7, 0] = 254.9 / 255  # rounds to white
        return made

    mask = optimisation_mask(scaler, attack)
    assert mask.nonzero().tolist() == [[1, 5], [2, 5]]
    assert torch.equal(considered_mask(scaler, "optimisation"), scaler.considered())


def test_masks_that_do_not_exist() -> None:
    scaler = Scaler(source=(8, 8), target=(4, 4))
    with pytest.raises(ValueError, match=r"kind: expected exact \| weighted"):
        considered_mask(scaler, "heavy")
    with pytest.raises(ValueError, match=r"share: expected \[0, 1\], got 2"):
        considered_mask(scaler, "weighted", 2)


def test_any_resize_can_be_recovered() -> None:
    """Of a library that is none of ours: every third row, and means of two columns."""
    scaler = Scaler(source=(9, 8), target=(3, 4))

    def resize(images: Tensor, target: Size) -> Tensor:
        height, width = images.shape[2:]
        images = images[:, :, :: height // target[0]]
        return images.unflatten(3, (target[1], width // target[1])).mean(4)

    left, right = recover(scaler, resize)
    assert left.nonzero().tolist() == [[0, 0], [1, 3], [2, 6]]
    assert right[:, 0].tolist() == [0.5, 0.5, 0, 0, 0, 0, 0, 0]
    with pytest.raises(ValueError, match="got weights that do not sum to 1"):
        recover(scaler, lambda images, target: 2 * resize(images, target))
    with pytest.raises(ValueError, match=r"resize: expected images \(1, 1, 3, 9\), got \(1, 1, 9"):
        recover(scaler, lambda images, target: images)


def test_every_algorithm_of_every_library_is_tested() -> None:
    named = {(library, one) for library, known in ALGORITHMS.items() for one in known}
    assert {method[:2] for method in ALL} == named
