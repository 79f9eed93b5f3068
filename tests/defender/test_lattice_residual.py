"""The residual on the scaler's lattice: its definition, what cancels, and what does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from defender.attacks import AdaptiveScaling, ImageScaling
from defender.detectors import LatticeResidual
from defender.norms import from_uint8
from defender.objectives import ScaleTo
from defender.purifiers import JPEG
from defender.scaling import Pipeline
from defender.smoothing import gaussian_filter

PIPELINES = [
    Pipeline("opencv", "nearest", target=(28, 28)),
    Pipeline("opencv", "linear", target=(28, 28)),
    Pipeline("opencv", "nearest", target=(32, 30)),
    Pipeline("torch", "linear", target=(32, 30)),
    Pipeline("opencv", "cubic", target=(24, 27)),
    Pipeline("pillow", "nearest", target=(25, 31)),
]
pipelines = pytest.mark.parametrize("pipeline", PIPELINES, ids=repr)
SIDE = 112


def pictures(n: int = 12, size: int = SIDE, seed: int = 0, texture: float = 3.0) -> Tensor:
    """Grey 8-bit pictures: shapes of several sizes and a texture of some grey levels."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 1, size, size, generator=generator) * texture / 255 + 0.5
    for cells, height in ((5, 0.35), (17, 0.1), (40, 0.03)):
        coarse = torch.randn(n, 1, cells, cells, generator=generator) * height
        images += functional.interpolate(coarse, size=(size, size), mode="bicubic")
    return from_uint8((images * 255).round().clamp(0, 255).to(torch.uint8))


def score(pipeline: Pipeline, images: Tensor) -> Tensor:
    return LatticeResidual(pipeline)(images, seeds=torch.arange(len(images)))


def attacked(pipeline: Pipeline, images: Tensor, seed: int = 7) -> Tensor:
    scaler = pipeline.of(images)
    targets = scaler(pictures(len(images), seed=seed).mul(255).round().to(torch.uint8))
    attack = ImageScaling(1 / 255, steps=60)
    return attack(images, ScaleTo(scaler, from_uint8(targets)), seeds=torch.arange(len(images)))


def interaction(levels: dict[tuple[int, int], float]) -> float:
    """Of logarithms by shift down and shift across."""
    down = sorted({a for a, _ in levels} - {0})
    across = sorted({b for _, b in levels} - {0})
    rows = np.mean([levels[a, 0] for a in down])
    columns = np.mean([levels[0, b] for b in across])
    return float(
        levels[0, 0] - rows - columns + np.mean([levels[a, b] for a in down for b in across])
    )


def residuals(images: Tensor) -> np.ndarray:
    return (images - gaussian_filter(images, 1.5))[:, 0].double().numpy()


def test_score_of_nearest_is_that_of_the_definition() -> None:
    # rows 0, 4, 8, ... and columns 0, 5, 10, ... are considered
    images = pictures(2, size=40)
    found = score(Pipeline("opencv", "nearest", target=(10, 8)), images)
    for value, image in zip(found.tolist(), residuals(images), strict=True):
        levels = {
            (a, b): np.log(np.abs(image[a::4, b::5]).mean() + 1e-5)
            for a in range(4)
            for b in range(5)
        }
        assert value == pytest.approx(interaction(levels), abs=1e-4)
        assert abs(value) > 1e-3


def test_score_of_linear_is_that_of_the_definition() -> None:
    # rows 1 and 2 of every 4 at weights of 1/2, which a shift by 2 does not touch; the middle
    # column of every 5; what would leave the image when shifted, the last of each, is left out
    images = pictures(2, size=40)
    found = score(Pipeline("opencv", "linear", target=(10, 8)), images)
    for value, image in zip(found.tolist(), residuals(images), strict=True):
        levels = {}
        for a in (0, 2):
            rows = np.arange(1, 37, 4) + a
            for b in range(5):
                columns = np.arange(2, 37, 5) + b
                seen = (image[rows][:, columns] + image[rows + 1][:, columns]) / 2
                levels[a, b] = np.log(np.abs(seen).mean() + 1e-5)
        assert value == pytest.approx(interaction(levels), abs=1e-4)


@pipelines
def test_attacks_stand_out_of_pictures(pipeline: Pipeline) -> None:
    benign = pictures()
    hidden = attacked(pipeline, benign)
    assert score(pipeline, benign).abs().max() < 0.25
    assert score(pipeline, hidden).min() > 0.4
    for quality in (50, 90):
        compressed = JPEG(quality)(hidden, seeds=torch.arange(len(hidden)))
        assert score(pipeline, compressed).min() > 0.3


@pipelines
def test_what_repeats_with_rows_and_columns_cancels(pipeline: Pipeline) -> None:
    size = (SIDE, SIDE)
    benign = pictures()
    small = functional.interpolate(benign, size=pipeline.target, mode="area")
    grain = torch.randn(12, 1, *size, generator=torch.Generator().manual_seed(5)) / 32
    down, across = (
        (torch.arange(SIDE) * target % SIDE < target).float() + 1 for target in pipeline.target
    )
    altered = {
        "JPEG 50": JPEG(50)(benign, seeds=torch.arange(12)),
        "JPEG 90": JPEG(90)(benign, seeds=torch.arange(12)),
        "blurred": gaussian_filter(benign, 1.0),
        "noisy": (benign + grain).clamp(0, 1),
        "enlarged": functional.interpolate(small, size=size, mode="bilinear"),
        "enlarged by nearest": functional.interpolate(small, size=size, mode="nearest"),
        "rougher rows and columns": 0.5 + grain / 4 * down.unsqueeze(1) * across,
    }
    for name, images in altered.items():
        stored = (images * 255).round() / 255
        assert score(pipeline, stored).max() < 0.25, name


def test_one_changed_considered_pixel_in_a_block_raises_the_score() -> None:
    pipeline = Pipeline("opencv", "nearest", target=(28, 28))
    images = pictures(4)
    considered, beside = images.clone(), images.clone()
    considered[:, :, ::4, ::4] = images[:, :, ::4, ::4] * 0.9
    beside[:, :, 1::4, 2::4] = images[:, :, 1::4, 2::4] * 0.9
    benign = score(pipeline, images)
    assert (score(pipeline, considered) > benign + 0.3).all()
    # the same change on one of the shifted lattices is spread over 9 of them and is no sign
    assert (score(pipeline, beside) < benign + 0.3).all()


def test_hiding_from_a_median_makes_the_considered_pixels_smoother() -> None:
    pipeline = Pipeline("opencv", "nearest", target=(28, 28))
    images = pictures(6)
    seeds = torch.arange(6)
    targets = from_uint8(pipeline.of(images)((pictures(6, seed=7) * 255).round().byte()))
    hidden = AdaptiveScaling(against="median")(
        images, ScaleTo(pipeline.of(images), targets), seeds=seeds
    )
    both = LatticeResidual(pipeline, sides="both")
    assert score(pipeline, hidden).max() < score(pipeline, images).min()
    assert both(hidden, seeds=seeds).min() > both(images, seeds=seeds).max()
    assert torch.equal(both(images, seeds=seeds), score(pipeline, images).abs())


def test_an_image_that_is_larger_along_one_axis_has_a_score() -> None:
    pipeline = Pipeline("opencv", "nearest", target=(SIDE, 28))
    images = pictures(4)
    changed = images.clone()
    changed[:, :, :, ::4] = images.roll(9, 2)[:, :, :, ::4]
    assert score(pipeline, images).abs().max() < 0.2
    assert (score(pipeline, changed) > 0.4).all()


def test_where_nothing_can_be_said_the_score_is_zero() -> None:
    pipeline = Pipeline("opencv", "nearest", target=(28, 28))
    for images in (pictures(2, size=28), pictures(2, size=20), torch.rand(2, 3, 5, 90)):
        assert score(pipeline, images).tolist() == [0.0, 0.0]
    flat = torch.full((1, 3, 90, 90), 0.3)
    assert score(pipeline, flat).item() == pytest.approx(0, abs=0.02)
    tiny = Pipeline("opencv", "lanczos", target=(1, 1))
    assert score(tiny, pictures(2, size=9)).isfinite().all()


def test_grey_and_three_equal_channels_score_alike() -> None:
    pipeline = Pipeline("opencv", "linear", target=(28, 28))
    images = pictures(3)
    colour = images.expand(3, 3, -1, -1)
    assert torch.allclose(score(pipeline, images), score(pipeline, colour), atol=1e-5)


def test_map_marks_changed_pixels() -> None:
    pipeline = Pipeline("opencv", "nearest", target=(28, 28))
    images = pictures(4)
    hidden = attacked(pipeline, images)
    where = LatticeResidual(pipeline).map(hidden, seeds=torch.arange(4))
    assert where is not None
    changed = hidden != images
    assert not where[:, :, ~pipeline.of(images).considered()].any()
    assert (where & changed).sum() > 0.98 * where.sum()
    assert (where & changed).sum() > 0.6 * changed.sum()
    area = LatticeResidual(Pipeline("opencv", "area", target=(28, 28)))
    nowhere = area.map(hidden, seeds=torch.arange(4))
    assert nowhere is not None
    assert not nowhere.any()
