"""Scaling attacks that hide from a defence: the defence sees less of them, at a price."""

from __future__ import annotations

import io
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from defender.attacks.adaptive_scaling import (
    AdaptiveScaling,
    add_peaks,
    mislead_median,
    mislead_random,
    suppress_peaks,
)
from defender.attacks.image_scaling import ImageScaling
from defender.metrics.image import psnr
from defender.objectives import Misclassify, ScaleTo
from defender.scaling import Scaler
from defender.scaling.peaks import expected_peaks, peak_windows

SCALERS = [
    Scaler("opencv", "nearest", False, (96, 112), (28, 32)),
    Scaler("opencv", "linear", False, (96, 112), (28, 32)),
]
SHARES = {"median": 0.5, "random": 0.75}


def smooth(n: int, size: tuple[int, int], seed: int, channels: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, channels, 7, 7, generator=generator) * 1.2 - 0.1
    fine = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic")
    return (fine * 255).round().clamp(0, 255) / 255


def attacked(scaler: Scaler, n: int = 3, **options: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Source, target, attack image without and with hiding."""
    source, target = smooth(n, scaler.source, 1), smooth(n, scaler.target, 2)
    objective, seeds = ScaleTo(scaler, target), torch.arange(n)
    plain = ImageScaling()(source, objective, seeds=seeds)
    return source, target, plain, AdaptiveScaling(**options)(source, objective, seeds=seeds)


def considered_windows(images: Tensor, scaler: Scaler) -> Any:
    """Considered pixels of one-channel images, and what their windows hold besides them."""
    mask = scaler.considered().numpy()
    down, across = (a // b for a, b in zip(scaler.source, scaler.target, strict=True))
    for plane in images[:, 0].numpy():
        for row, column in np.argwhere(mask):
            rows = slice(max(0, row - down), row + down + 1)
            columns = slice(max(0, column - across), column + across + 1)
            yield plane, row, column, plane[rows, columns][~mask[rows, columns]]


def restored(images: Tensor, scaler: Scaler, draw: bool = False) -> Tensor:
    """Reference of the selective median and random filters."""
    made, random = images.clone(), np.random.default_rng(5)
    mask = scaler.considered().nonzero()
    found = iter(considered_windows(images, scaler))
    for index in range(len(images)):
        for row, column in mask.tolist():
            others = np.sort(next(found)[3])
            place = random.integers(len(others)) if draw else (len(others) - 1) // 2
            made[index, 0, row, column] = float(others[place])
    return made


def hits(images: Tensor, target: Tensor, scaler: Scaler) -> Tensor:
    """PSNR (n,) of what the scaler makes of images against the target."""
    return psnr(scaler.linear(images).clamp(0, 1), target)


def decibels(images: Tensor) -> Tensor:
    """Centred log spectrum (n, h, w) of the channel mean, as the detectors take it."""
    spectrum = torch.fft.fftshift(torch.fft.fft2(255 * images.mean(1)), dim=(1, 2))
    return 20 * spectrum.abs().clamp_min(1e-8).log()


def around_peaks(images: Tensor, scaler: Scaler, radius: int = 5) -> Tensor:
    """Mean log spectrum (n,) in the windows around the expected peaks."""
    peaks = expected_peaks(scaler.source, scaler.target)
    return decibels(images)[:, peak_windows(scaler.source, peaks, radius)].mean(1)


def peak_distance(images: Tensor, scaler: Scaler) -> float:
    """Mean distance of the largest coefficient of a tile from the expected peak in its middle."""
    height, width = scaler.target
    spectra, distances = decibels(images).numpy(), []
    for spectrum in spectra:
        for row, column in expected_peaks(scaler.source, scaler.target).tolist():
            top, left = max(0, row - height // 2), max(0, column - width // 2)
            tile = spectrum[top : row + height // 2, left : column + width // 2]
            place = np.unravel_index(tile.argmax(), tile.shape)
            distances.append(math.hypot(top + place[0] - row, left + place[1] - column))
    return float(np.mean(distances))


@pytest.mark.parametrize("scaler", SCALERS, ids=str)
@pytest.mark.parametrize("against", ["median", "random"])
def test_the_filter_no_longer_finds_the_source(scaler: Scaler, against: str) -> None:
    source, target, plain, hidden = attacked(scaler, against=against)
    draw = against == "random"
    without = hits(restored(plain, scaler, draw), target, scaler)
    found = hits(restored(hidden, scaler, draw), target, scaler)
    assert (found > without + 4).all()
    # what the scaler sees without the filter is the attack image's own
    seen = scaler.considered()
    assert torch.equal(hidden[..., seen], plain[..., seen])
    assert (psnr(hidden, source) < psnr(plain, source)).all()


def test_medians_reach_the_pixels_that_they_replace() -> None:
    """Nearest leaves few considered pixels a window, so that one wave seldom disturbs another."""
    scaler = SCALERS[0]
    _, _, plain, hidden = attacked(scaler, n=1, against="median", share=1.0)

    def misses(images: Tensor) -> list[float]:
        return [
            255 * abs(float(plane[row, column]) - float(np.sort(others)[(len(others) - 1) // 2]))
            for plane, row, column, others in considered_windows(images, scaler)
        ]

    assert np.mean(np.array(misses(plain)) < 3) < 0.2
    assert np.mean(np.array(misses(hidden)) < 3) > 0.6


def one_window() -> tuple[Tensor, Scaler]:
    """An image of which nearest considers the first pixel, 8 others being in its window."""
    scaler = Scaler("opencv", "nearest", False, (3, 3), (1, 1))
    levels = torch.tensor([[100.0, 10.0, 20.0], [30.0, 40.0, 120.0], [50.0, 60.0, 70.0]])
    return (levels / 255).view(1, 1, 3, 3), scaler


def levels_of(images: Tensor) -> list[list[int]]:
    rows: list[list[int]] = (images[0, 0] * 255).round().int().tolist()
    return rows


def test_one_median_by_hand() -> None:
    """Of 10 20 30 40 50 60 70 120 the lower median is 40; 4 must become 100 for it to be 100."""
    image, scaler = one_window()
    made = levels_of(mislead_median(image, scaler, 1.0))
    assert made == [[100, 10, 20], [30, 100, 120], [100, 100, 100]]
    # a share of 3 in 8 is used up before
    assert levels_of(mislead_median(image, scaler, 0.3)) == [
        [100, 10, 20],
        [30, 40, 120],
        [100, 100, 100],
    ]
    # seen from above the lower median is 50, so that one change less will do
    assert levels_of(1 - mislead_median(1 - image, scaler, 1.0)) == [
        [100, 10, 20],
        [30, 40, 120],
        [100, 100, 100],
    ]


def test_one_random_window_by_hand() -> None:
    image, scaler = one_window()
    made = levels_of(mislead_random(image, scaler, 0.5))
    assert made == [[100, 10, 20], [30, 40, 100], [100, 100, 100]]


def test_medians_that_are_near_stay() -> None:
    image, scaler = one_window()
    for level, changed in ((42, False), (38, False), (43, True), (37, True)):
        near = image.clone()
        near[0, 0, 0, 0] = level / 255
        assert bool((mislead_median(near, scaler, 1.0) != near).any()) == changed


@pytest.mark.parametrize("scaler", SCALERS, ids=str)
def test_less_is_left_at_the_expected_peaks(scaler: Scaler) -> None:
    source, target, plain, _ = attacked(scaler, against="spectrum")
    strengths = [around_peaks(plain, scaler).mean()]
    reached = [hits(plain, target, scaler).mean()]
    for factor in (0.6, 0.2, 0.0):
        hidden = attacked(scaler, against="spectrum", suppression=factor)[3]
        strengths.append(around_peaks(hidden, scaler).mean())
        reached.append(hits(hidden, target, scaler).mean())
    assert all(later < earlier - 3 for earlier, later in itertools.pairwise(strengths))
    assert all(later < earlier for earlier, later in itertools.pairwise(reached))
    assert around_peaks(plain, scaler).mean() > around_peaks(source, scaler).mean() + 20
    assert reached[2] > hits(source, target, scaler).mean() + 3


def test_suppression_is_the_stated_factor_and_nothing_else_changes() -> None:
    """Around middle grey nothing is clipped, so that the spectrum is what was asked for."""
    for size in ((64, 72), (65, 73)):
        image = 0.45 + 0.1 * smooth(1, size, 4)
        made = suppress_peaks(image, (20, 24), 0.25, 3)
        change = torch.fft.fftshift(torch.fft.fft2(made.double()) / torch.fft.fft2(image.double()))
        meant = peak_windows(size, expected_peaks(size, (20, 24)), 3)
        assert torch.allclose(change[0, 0][meant].abs(), torch.tensor(0.25).double(), atol=0.01)
        other = (change[0, 0].abs() - 1).abs() < 0.01
        # the windows are one longer to one side, so their mirror images add an edge
        assert int((~other).sum()) <= int(meant.sum() * (7 / 6) ** 2)
        assert bool(other[size[0] // 2, size[1] // 2])


@pytest.mark.parametrize("scaler", SCALERS, ids=str)
def test_the_largest_of_a_tile_is_far_from_the_expected_peak(scaler: Scaler) -> None:
    _, target, plain, hidden = attacked(scaler, against="peaks", divisor=25.0)
    assert peak_distance(hidden, scaler) > 2 * peak_distance(plain, scaler)
    assert (hits(hidden, target, scaler) > 20).all()


def test_added_peaks_have_the_stated_height_and_place() -> None:
    image = 0.4 + 0.2 * smooth(2, (96, 112), 6)
    made = add_peaks(image, (28, 32), 50.0)
    spectrum = torch.fft.fftshift(torch.fft.fft2(made.double()), dim=(2, 3)).abs()
    height = torch.fft.fft2(image.double()).abs().amax(dim=(2, 3)) / 50
    # the peak at (48 + 28, 56 + 32): 14 - 5 rows and 16 - 5 columns from there to the centre
    assert torch.allclose(spectrum[:, :, 76 - 9, 88 - 11], height, rtol=1e-3)
    assert torch.allclose(spectrum[:, :, 20 + 9, 24 + 11], height, rtol=1e-3)
    assert torch.allclose(spectrum[:, :, 76 - 9, 24 + 11], height, rtol=1e-3)
    # and on an axis, (48, 56 + 32) and (48, 56 - 32)
    assert torch.allclose(spectrum[:, :, 48 - 9, 88 - 11], height, rtol=1e-3)
    assert torch.allclose(spectrum[:, :, 48 + 9, 24 + 11], height, rtol=1e-3)


def test_jpeg_is_that_of_pillow_and_the_target_survives() -> None:
    scaler = SCALERS[1]
    source, target, plain, hidden = attacked(scaler, against="jpeg", quality=75)
    encoded = io.BytesIO()
    Image.fromarray((plain[0, 0] * 255).round().byte().numpy()).save(encoded, "JPEG", quality=75)
    assert np.array_equal((hidden[0, 0] * 255).round().byte(), np.asarray(Image.open(encoded)))
    assert (hits(hidden, target, scaler) < hits(plain, target, scaler) - 3).all()
    assert (hits(hidden, target, scaler) > hits(source, target, scaler) + 8).all()


def test_expected_peaks_by_hand() -> None:
    assert expected_peaks((224, 224), (64, 64)).tolist() == [
        [row, column]
        for row in (48, 112, 176)
        for column in (48, 112, 176)
        if (row, column) != (112, 112)
    ]
    # exactly twice the size puts a peak on the border, which does not count
    assert expected_peaks((128, 128), (64, 64)).shape == (0, 2)
    assert expected_peaks((65, 31), (15, 31)).tolist() == [[2, 15], [17, 15], [47, 15], [62, 15]]


def test_the_copies_of_a_spectrum_are_where_they_are_expected() -> None:
    """An image that is nothing but considered pixels on black: the peaks are its largest."""
    scaler = Scaler("opencv", "nearest", False, (84, 120), (28, 40))
    image = torch.zeros(1, 1, 84, 120)
    image[..., scaler.considered()] = 1.0
    spectrum = decibels(image)[0]
    spectrum[42, 60] = 0
    peaks = expected_peaks(scaler.source, scaler.target)
    largest = spectrum.flatten().topk(len(peaks)).indices
    assert sorted(largest.tolist()) == sorted((peaks[:, 0] * 120 + peaks[:, 1]).tolist())


def test_windows_around_peaks_are_cut_at_the_border() -> None:
    meant = peak_windows((8, 9), torch.tensor([[0, 8], [4, 4]]), 2)
    rows, columns = meant.nonzero(as_tuple=True)
    places = set(zip(rows.tolist(), columns.tolist(), strict=True))
    assert places == {(r, c) for r in (0, 1) for c in (6, 7, 8)} | {
        (r, c) for r in range(2, 6) for c in range(2, 6)
    }


@pytest.mark.parametrize("against", ["median", "random", "jpeg", "spectrum", "peaks"])
def test_every_size_gives_an_image_on_the_grid(against: str) -> None:
    for source, target in (((12, 12), (12, 12)), ((9, 10), (12, 14)), ((30, 12), (9, 14))):
        scaler = Scaler("opencv", "area", False, source, target)
        images = smooth(2, source, 3, channels=3)
        goal = ScaleTo(scaler, smooth(2, target, 4, channels=3))
        made = AdaptiveScaling(against=against)(images, goal, seeds=torch.arange(2))
        assert made.shape == images.shape
        assert torch.equal(made, (made * 255).round() / 255)


def test_refuses_what_it_cannot_do() -> None:
    images = smooth(1, (12, 12), 3)
    with pytest.raises(TypeError, match="ScaleTo"):
        AdaptiveScaling()(
            images, Misclassify(torch.nn.Flatten(), torch.zeros(1).long()), seeds=torch.arange(1)
        )
    with pytest.raises(ValueError, match="against"):
        AdaptiveScaling(against="hope")
    with pytest.raises(ValueError, match="suppression"):
        AdaptiveScaling(suppression=1.5)
    with pytest.raises(ValueError, match="share"):
        AdaptiveScaling(share=-0.1)


def test_on_real_radiographs(data: Path) -> None:
    """15 X-rays of 442 x 302 with each other as targets of 112 x 112, nearest."""
    files = sorted(
        file for file in (data / "chest_xray_442x302").iterdir() if "target" not in file.name
    )
    pictures = [
        Image.open(file).convert("L") for file in files if file.suffix in (".jpg", ".jpeg", ".png")
    ]
    planes = [np.asarray(picture) for picture in pictures if picture.size == (442, 302)][:6]
    source = torch.from_numpy(np.stack(planes)).float().unsqueeze(1) / 255
    scaler = Scaler("opencv", "nearest", False, (302, 442), (112, 112))
    target = scaler(source).roll(1, 0)
    objective, seeds = ScaleTo(scaler, target), torch.arange(len(source))
    plain = ImageScaling()(source, objective, seeds=seeds)
    median = AdaptiveScaling(against="median")(source, objective, seeds=seeds)
    spectrum = AdaptiveScaling(against="spectrum", suppression=0.0)(source, objective, seeds=seeds)
    assert len(source) >= 4
    found = hits(restored(median[:2], scaler), target[:2], scaler)
    assert (found > hits(restored(plain[:2], scaler), target[:2], scaler) + 6).all()
    assert (around_peaks(spectrum, scaler) < around_peaks(plain, scaler) - 20).all()
