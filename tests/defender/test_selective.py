"""Selective purifiers against their definition, pixel by pixel, and against hidden pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from defender.metrics.image import psnr
from defender.purifiers import (
    AreaScaling,
    SelectiveInterpolation,
    SelectiveMedian,
    SelectiveRandom,
    windows,
)
from defender.purifiers.selective import selective_median, selective_random
from defender.purifiers.windows import plan
from defender.scaling import Pipeline, Scaler, considered_mask
from tests import cases

SCALERS = [
    Scaler("opencv", "nearest", source=(23, 31), target=(6, 7)),
    Scaler("opencv", "linear", source=(30, 27), target=(7, 9)),
    Scaler("opencv", "linear", source=(31, 13), target=(9, 4)),
    Scaler("opencv", "cubic", source=(33, 26), target=(5, 5)),
    Scaler("opencv", "lanczos", source=(41, 33), target=(4, 3)),
    Scaler("opencv", "lanczos", source=(27, 21), target=(9, 7)),
    Scaler("torch", "linear", source=(19, 24), target=(5, 24)),
    Scaler("opencv", "cubic", source=(20, 23), target=(5, 7)),
    Scaler("opencv", "linear", source=(29, 27), target=(13, 12)),
    Scaler("opencv", "area", source=(17, 15), target=(5, 4)),
]
scalers = pytest.mark.parametrize("scaler", SCALERS, ids=repr)


def noise(scaler: Scaler, n: int = 2, channels: int = 1) -> Tensor:
    """Images in which no two values are alike."""
    count = n * channels * scaler.source[0] * scaler.source[1]
    order = torch.randperm(count, generator=torch.Generator().manual_seed(4))
    return (order.float() / count).view(n, channels, *scaler.source)


def smooth(n: int, side: int, seed: int = 0) -> Tensor:
    """Grey images on the 8-bit grid that vary over a seventh of their side."""
    coarse = torch.rand(n, 1, 7, 7, generator=torch.Generator().manual_seed(seed))
    fine = functional.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=True)
    return (fine.clamp(0, 1) * 255).round() / 255


def free_places(scaler: Scaler, bandwidth: int) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """For each replaced pixel the unconsidered ones of its window, as the definition reads."""
    exact, weighted = scaler.considered(), considered_mask(scaler, "weighted")
    height, width = scaler.source
    down = int(np.floor(height / scaler.target[0] / bandwidth))
    across = int(np.floor(width / scaler.target[1] / bandwidth))

    def unconsidered(row: int, column: int, mask: Tensor) -> list[tuple[int, int]]:
        return [
            (r, c)
            for r in range(max(0, row - down), min(height, row + down + 1))
            for c in range(max(0, column - across), min(width, column + across + 1))
            if not mask[r, c]
        ]

    found = {}
    for row, column in exact.nonzero().tolist():
        places = unconsidered(row, column, exact)
        if not places and weighted[row, column]:
            places = unconsidered(row, column, weighted)
        if places:
            found[row, column] = places
    return found


@scalers
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bandwidth", [1, 2])
def test_median_is_that_of_the_unconsidered_pixels(
    scaler: Scaler, channels: int, bandwidth: int
) -> None:
    images = noise(scaler, 2, channels)
    expected = images.numpy().copy()
    for (row, column), places in free_places(scaler, bandwidth).items():
        rows, columns = np.array(places).T
        values = np.sort(images.numpy()[:, :, rows, columns])
        expected[:, :, row, column] = values[:, :, (len(places) - 1) // 2]
    assert np.array_equal(selective_median(images, scaler, bandwidth).numpy(), expected)


@scalers
@pytest.mark.parametrize("bandwidth", [1, 2])
def test_random_draws_from_the_unconsidered_pixels(scaler: Scaler, bandwidth: int) -> None:
    images = noise(scaler, 2, 3).numpy()
    made = selective_random(torch.from_numpy(images), scaler, cases.seeds(2), bandwidth).numpy()
    windows_of = free_places(scaler, bandwidth)
    for row, column in np.ndindex(*scaler.source):
        rows, columns = np.array(windows_of.get((row, column)) or [(row, column)]).T
        allowed = images[:, :, rows, columns]
        assert (allowed == made[:, :, row, column, None]).any(-1).all()


def test_median_by_hand() -> None:
    # nearest at ratio 3 looks at the first pixel; eight others are left, 4 is their lower median
    scaler = Scaler("opencv", "nearest", source=(3, 3), target=(1, 1))
    image = torch.tensor([[99.0, 8, 1], [7, 2, 6], [3, 5, 4]]).view(1, 1, 3, 3) / 100
    expected = image.clone()
    expected[0, 0, 0, 0] = 0.04
    assert torch.equal(selective_median(image, scaler), expected)


def test_each_unconsidered_pixel_is_drawn_as_often() -> None:
    scaler = Scaler("opencv", "linear", source=(9, 8), target=(3, 2))
    count = 6000
    image = torch.arange(72.0).view(1, 1, 9, 8) / 72
    made = selective_random(image.expand(count, 3, 9, 8), scaler, torch.arange(count))
    for (row, column), places in free_places(scaler, 1).items():
        drawn = (made[:, :, row, column] * 72).round().long()
        tally = torch.bincount(drawn.flatten(), minlength=72).double()
        wanted = torch.zeros(72, dtype=torch.float64)
        for r, c in places:
            wanted[r * 8 + c] = 1 / len(places)
        spread = (3 * count * wanted * (1 - wanted)).sqrt()
        assert ((tally - 3 * count * wanted).abs() <= 5 * spread).all()
        agreement = (drawn[:, 0] == drawn[:, 1]).double().mean()
        assert abs(float(agreement) - 1 / len(places)) < 0.05


@pytest.mark.parametrize("scaler", SCALERS[:4], ids=repr)
def test_neither_batch_nor_block_changes_a_result(
    scaler: Scaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, seeds = noise(scaler, 5, 3), cases.seeds(5)
    pipeline = Pipeline(scaler.library, scaler.algorithm, False, scaler.target)
    purifiers = [kind(pipeline) for kind in (SelectiveMedian, SelectiveRandom)]
    for purifier in [*purifiers, SelectiveInterpolation(pipeline)]:
        monkeypatch.setattr(windows, "_BLOCK", 1 << 20)
        expected = purifier(images, seeds=seeds)
        monkeypatch.setattr(windows, "_BLOCK", 500)
        alone = [purifier(images[i : i + 1], seeds=seeds[i : i + 1]) for i in range(5)]
        assert torch.equal(torch.cat(alone), expected)
        assert torch.equal(purifier(images, seeds=seeds), expected)


@pytest.mark.parametrize("target", [(9, 8), (12, 8), (30, 20)])
@pytest.mark.parametrize("algorithm", ["nearest", "linear", "cubic"])
def test_images_no_larger_than_the_target_stay(target: tuple[int, int], algorithm: str) -> None:
    pipeline = Pipeline("opencv", algorithm, False, target)
    images = torch.rand(2, 3, 9, 8, generator=torch.Generator().manual_seed(0))
    for kind in (SelectiveMedian, SelectiveRandom, SelectiveInterpolation):
        assert torch.equal(kind(pipeline)(images, seeds=cases.seeds(2)), images)
        parts = kind(pipeline).parts(images, seeds=cases.seeds(2))
        assert torch.equal(parts["trusted"], images)
        assert not parts["replacement"].any()
    assert plan(pipeline.of(images)).kept == pipeline.of(images).considered().sum()


def test_counts_windows_without_unconsidered_pixels() -> None:
    sparse = plan(Scaler("opencv", "cubic", source=(60, 60), target=(10, 10)))
    assert (sparse.fallback, sparse.kept) == (0, 0)
    # at ratio 4 cubic looks at everything; by weight, at two lines of four on each axis
    dense = plan(Scaler("opencv", "cubic", source=(40, 40), target=(10, 10)))
    assert (dense.fallback, dense.kept, int(dense.replaced().sum())) == (1600, 0, 400)
    area = plan(Scaler("opencv", "area", source=(60, 45), target=(10, 10)))
    assert (area.fallback, area.kept) == (2700, 2700)
    assert not area.replaced().any()
    # reach 0: a window is the considered pixel alone
    narrow = plan(Scaler("opencv", "nearest", source=(15, 15), target=(10, 10)), 2)
    assert (narrow.reach, narrow.fallback, narrow.kept) == ((0, 0), 100, 100)


def test_parts_add_up() -> None:
    pipeline = Pipeline("opencv", "linear", False, (8, 8))
    images = smooth(2, 32)
    parts = SelectiveMedian(pipeline).parts(images, seeds=cases.seeds(2))
    considered = pipeline.of(images).considered().expand(images.shape)
    assert torch.equal(parts["considered"], considered)
    assert torch.equal(parts["trusted"], torch.where(considered, 0, images))
    assert torch.equal(parts["trusted"] + parts["replacement"], parts["purified"])


def test_parts_show_only_what_was_replaced() -> None:
    # the interpolation's shorter reach leaves more windows to the weight-aware mask
    pipeline = Pipeline("opencv", "lanczos", False, (4, 4))
    images = noise(pipeline.scaler((33, 33)), 1).mul(0.6).add(0.2)
    counts = []
    for purifier in (SelectiveMedian(pipeline), SelectiveInterpolation(pipeline)):
        parts = purifier.parts(images, seeds=cases.seeds(1))
        replaced = parts["purified"] != images
        assert torch.equal(parts["replacement"] > 0, replaced)
        assert torch.equal(parts["trusted"] > 0, ~replaced)
        counts.append(int(replaced.sum()))
    assert counts == [804, 576]


def test_gradients_reach_the_unconsidered_pixels_only() -> None:
    pipeline = Pipeline("opencv", "linear", False, (8, 8))
    images = smooth(2, 32).mul(0.8).add(0.1)
    considered = pipeline.of(images).considered()
    for kind in (SelectiveMedian, SelectiveRandom, SelectiveInterpolation):
        leaf = images.clone().requires_grad_()
        made = kind(pipeline)(leaf, seeds=cases.seeds(2))
        assert torch.equal(made.detach(), kind(pipeline)(images, seeds=cases.seeds(2)))
        made.sum().backward()
        assert leaf.grad is not None
        assert leaf.grad.sum().item() == pytest.approx(images.numel(), rel=1e-5)
        assert not leaf.grad[:, :, considered].any()


def test_arguments_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="bandwidth: expected >= 1, got 0"):
        SelectiveMedian(Pipeline(), bandwidth=0)
    with pytest.raises(ValueError, match="bandwidth: expected >= 1, got 0"):
        plan(Scaler(), 0)
    with pytest.raises(ValueError, match="noise: expected >= 0"):
        SelectiveInterpolation(Pipeline(), noise=-1.0)
    with pytest.raises(ValueError, match=r"expected images \(n, c, 224, 224\)"):
        selective_median(torch.rand(1, 1, 224, 223), Scaler())
    with pytest.raises(ValueError, match=r"expected images \(n, c, 224, 224\)"):
        selective_random(torch.rand(1, 1, 223, 224), Scaler(), cases.seeds(1))


@pytest.mark.parametrize("scaler", [SCALERS[0], SCALERS[2], SCALERS[3]], ids=repr)
@pytest.mark.parametrize("variance", [0.0, 3.0])
def test_interpolation_solves_the_kriging_equations(scaler: Scaler, variance: float) -> None:
    pipeline = Pipeline(scaler.library, scaler.algorithm, False, scaler.target)
    images = noise(scaler, 1)
    pixels = images[0, 0].numpy().astype(np.float64)
    expected = pixels.copy()
    limit = [min(5, a // b) for a, b in zip(scaler.source, scaler.target, strict=True)]
    for (row, column), found in free_places(scaler, 1).items():
        places = np.array(
            [p for p in found if abs(p[0] - row) <= limit[0] and abs(p[1] - column) <= limit[1]]
        )
        apart = np.linalg.norm(places[:, None] - places[None], axis=2)
        size = len(places)
        system = np.block(
            [
                [variance * np.eye(size) - apart, np.ones((size, 1))],
                [np.ones((1, size)), np.zeros((1, 1))],
            ]
        )
        right = np.append(-np.linalg.norm(places - (row, column), axis=1), 1)
        weights = np.linalg.solve(system, right)[:size]
        expected[row, column] = weights @ pixels[places[:, 0], places[:, 1]]
    made = SelectiveInterpolation(pipeline, noise=variance).estimated(images, scaler)
    assert np.allclose(made[0, 0].numpy(), expected, atol=1e-5)


def test_interpolation_with_much_noise_is_a_mean() -> None:
    scaler = Scaler("opencv", "nearest", source=(6, 6), target=(2, 2))
    pipeline = Pipeline("opencv", "nearest", False, (2, 2))
    images = noise(scaler, 1)
    made = SelectiveInterpolation(pipeline, noise=1e9)(images, seeds=cases.seeds(1))
    for (row, column), places in free_places(scaler, 1).items():
        mean = torch.stack([images[0, 0, r, c] for r, c in places]).mean()
        assert made[0, 0, row, column].item() == pytest.approx(mean.item(), abs=1e-5)


@pytest.mark.parametrize("algorithm", ["nearest", "linear"])
def test_gain_is_the_norm_of_restoration_and_resize(algorithm: str) -> None:
    pipeline = Pipeline("opencv", algorithm, False, (5, 4))
    purifier = SelectiveInterpolation(pipeline)
    scaler = pipeline.scaler((17, 16))
    basis = torch.eye(17 * 16, dtype=torch.float64).view(-1, 1, 17, 16)
    matrix = scaler.linear(purifier.estimated(basis, scaler)).flatten(1)
    norm = float(torch.linalg.matrix_norm(matrix, 2))
    expected = 10 * np.log10(17 * 16 / 20 * norm**2)
    assert purifier.hiding_gain((17, 16)) == pytest.approx(expected, abs=0.01)
    assert purifier.hiding_gain((17, 16)) < scaler.hiding_gain()


def hide(images: Tensor, target: Tensor, scaler: Scaler) -> Tensor:
    """Attack images that scale to the target: least change, up to clipping and rounding."""
    left, right = scaler.matrices(torch.float64)
    change = target.double() - scaler.linear(images.double())
    attacked = images + torch.linalg.pinv(left) @ change @ torch.linalg.pinv(right)
    return ((attacked * 255).round() / 255).clamp(0, 1).float()


@pytest.mark.parametrize("algorithm", ["nearest", "linear"])
@pytest.mark.parametrize(
    ("kind", "least"), [(SelectiveMedian, 30), (SelectiveRandom, 25), (SelectiveInterpolation, 35)]
)
def test_what_was_hidden_is_gone(kind: Any, least: float, algorithm: str) -> None:
    pipeline = Pipeline("opencv", algorithm, False, (32, 32))
    images = smooth(4, 112).mul(0.6).add(0.2)
    scaler = pipeline.of(images)
    small, target = scaler.linear(images), smooth(4, 32, seed=1).mul(0.6).add(0.2)
    attacked = hide(images, target, scaler)
    assert (psnr(scaler.linear(attacked), target) > 35).all()
    purifier = kind(pipeline)
    restored = scaler.linear(purifier(attacked, seeds=cases.seeds(4)))
    assert (psnr(restored, target) < 20).all()
    assert (psnr(restored, small) > least).all()
    kept = scaler.linear(purifier(images, seeds=cases.seeds(4)))
    assert (psnr(kept, small) > least).all()


def test_scaling_by_area_leaves_the_pipeline_nothing_to_do() -> None:
    cv2 = pytest.importorskip("cv2")
    pipeline = Pipeline("opencv", "nearest", False, (9, 7))
    images = torch.rand(2, 3, 31, 24, generator=torch.Generator().manual_seed(0))
    made = AreaScaling(pipeline)(images, seeds=cases.seeds(2))
    for image, channel in np.ndindex(2, 3):
        plane = images[image, channel].numpy()
        expected = cv2.resize(plane, (7, 9), interpolation=cv2.INTER_AREA)
        assert np.allclose(made[image, channel].numpy(), expected, atol=1e-5)
    assert torch.equal(pipeline.of(made)(made), made)
    small = torch.rand(2, 1, 4, 5, generator=torch.Generator().manual_seed(0))
    assert AreaScaling(pipeline)(small, seeds=cases.seeds(2)).shape == (2, 1, 9, 7)


def test_scaling_by_area_shows_no_hidden_picture() -> None:
    pipeline = Pipeline("opencv", "linear", False, (32, 32))
    images = smooth(4, 112).mul(0.6).add(0.2)
    target = smooth(4, 32, seed=1).mul(0.6).add(0.2)
    attacked = hide(images, target, pipeline.of(images))
    seen = AreaScaling(pipeline)(attacked, seeds=cases.seeds(4))
    clean = AreaScaling(pipeline)(images, seeds=cases.seeds(4))
    assert (psnr(seen, target) < 20).all()
    assert (psnr(seen, clean) > psnr(seen, target)).all()
