"""Down and up, filtering and spectra: scores of image-scaling attacks against their definitions."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage, spatial
from scipy.stats import percentileofscore
from skimage.metrics import structural_similarity as skimage_ssim
from torch import Tensor

from defender.detectors import (
    ColourScattering,
    DecamouflageFiltering,
    DecamouflageScaling,
    DecamouflageSteganalysis,
    HistogramCosine,
    PeakDistance,
    PeakSpectrum,
)
from defender.detectors.decamouflage import contours
from defender.detectors.scoring import luma
from defender.detectors.spectrum import log_spectrum
from defender.metrics.image import ssim
from defender.metrics.structural import structural_similarity
from defender.norms import from_uint8
from defender.scaling import Pipeline
from tests import cases

PIPELINE = Pipeline("opencv", "linear", target=(9, 8))
SEEDS = torch.arange(3)


def noise(n: int = 3, channels: int = 1, size: tuple[int, int] = (33, 30), seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, *size), generator=generator, dtype=torch.uint8)


def score(detector: Any, pixels: Tensor) -> Tensor:
    scores: Tensor = detector(from_uint8(pixels), seeds=torch.arange(len(pixels)))
    return scores


def down_and_up(image: np.ndarray, pipeline: Pipeline) -> np.ndarray:
    """uint8 (h, w, c), in the two calls that a user of OpenCV would make."""
    small = cv2.resize(image, pipeline.target[::-1], interpolation=cv2.INTER_LINEAR)
    return cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def colour_images() -> tuple[Tensor, list[np.ndarray]]:
    pixels = noise(channels=3) // 40 * 20
    return pixels, [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in pixels]


def test_luma_is_opencvs() -> None:
    pixels = noise(2, 3, (200, 170))
    for image, grey in zip(pixels, luma(pixels), strict=True):
        expected = cv2.cvtColor(
            np.ascontiguousarray(image.permute(1, 2, 0).numpy()), cv2.COLOR_RGB2GRAY
        )
        assert np.array_equal(grey.numpy(), expected)
    with pytest.raises(ValueError, match="expected images with 1 or 3 channels, got 2"):
        luma(pixels[:, :2])


def test_histogram_cosine_is_that_of_the_definition() -> None:
    pixels, images = colour_images()
    expected = []
    for image in images:
        greys = (cv2.cvtColor(i, cv2.COLOR_RGB2GRAY) for i in (image, down_and_up(image, PIPELINE)))
        expected.append(
            spatial.distance.cosine(*(np.bincount(g.ravel(), None, 256) for g in greys))
        )
    assert score(HistogramCosine(PIPELINE), pixels).tolist() == pytest.approx(expected, abs=1e-12)
    assert min(expected) > 0.01


def scattering(grey: np.ndarray) -> list[float]:
    centre = np.array(grey.shape) // 2
    values = []
    for level in range(256):
        places = np.argwhere(grey == level)
        distances = np.linalg.norm(places - centre, axis=1)
        values.append(distances.mean() if len(places) > 1 else 0.0)
    return values


def test_colour_scattering_is_that_of_the_definition() -> None:
    pixels, images = colour_images()
    expected = []
    for image in images:
        greys = (cv2.cvtColor(i, cv2.COLOR_RGB2GRAY) for i in (image, down_and_up(image, PIPELINE)))
        expected.append(spatial.distance.cosine(*map(scattering, greys)))
    assert score(ColourScattering(PIPELINE), pixels).tolist() == pytest.approx(expected, abs=1e-12)
    assert min(expected) > 0.01


@pytest.mark.parametrize("kind", [HistogramCosine, ColourScattering])
def test_a_constant_image_scores_nothing(kind: Any) -> None:
    assert score(kind(PIPELINE), torch.full((2, 1, 33, 30), 77, dtype=torch.uint8)).tolist() == [
        0,
        0,
    ]


def test_scattering_of_levels_that_occur_once() -> None:
    # all levels once: nothing to compare with the smooth image, which has levels twice
    pixels = torch.arange(0, 250, 5, dtype=torch.uint8).view(1, 1, 5, 10)
    pipeline = Pipeline("opencv", "nearest", target=(2, 4))
    assert score(ColourScattering(pipeline), pixels).tolist() == [1.0]
    unchanged = Pipeline("opencv", "nearest", target=(5, 10))
    assert score(ColourScattering(unchanged), pixels).tolist() == [0.0]


def test_scaling_error_sums_over_channels() -> None:
    pixels, images = colour_images()
    restored = [down_and_up(image, PIPELINE) for image in images]
    expected = [
        ((a.astype(float) - b.astype(float)) ** 2).sum() / (33 * 30)
        for a, b in zip(images, restored, strict=True)
    ]
    assert score(DecamouflageScaling(PIPELINE), pixels).tolist() == pytest.approx(expected)
    by_ssim = [
        1
        - skimage_ssim(
            a,
            b,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
        )
        for a, b in zip(images, restored, strict=True)
    ]
    found = score(DecamouflageScaling(PIPELINE, "ssim"), pixels)
    assert found.tolist() == pytest.approx(by_ssim, abs=1e-6)


def test_fast_structural_similarity_is_the_other_one() -> None:
    first, second = from_uint8(noise(3, 2)), from_uint8(noise(3, 2, seed=1)) * 0.3 + 0.4
    assert torch.allclose(structural_similarity(first, second), ssim(first, second), atol=1e-6)
    assert structural_similarity(first, first).tolist() == pytest.approx([1.0] * 3)
    assert structural_similarity(first[..., :10], second[..., :10]).isnan().all()


@pytest.mark.parametrize("window", [3, 5])
def test_filtering_compares_with_the_filter(window: int) -> None:
    pixels = noise(channels=3)
    for name, reference in (
        ("minimum", ndimage.minimum_filter),
        ("maximum", ndimage.maximum_filter),
    ):
        filtered = reference(pixels.numpy(), size=(1, 1, window, window), mode="reflect")
        difference = pixels.numpy().astype(float) - filtered
        expected = (difference**2).sum(axis=(1, 2, 3)) / (33 * 30)
        found = score(DecamouflageFiltering(name, window), pixels)
        assert found.tolist() == pytest.approx(expected.tolist())
        other = ssim(from_uint8(pixels), torch.from_numpy(filtered).float() / 255)
        by_ssim = score(DecamouflageFiltering(name, window, "ssim"), pixels)
        assert by_ssim.tolist() == pytest.approx((1 - other).tolist(), abs=1e-6)


def test_filtering_refuses_an_even_window() -> None:
    with pytest.raises(ValueError, match="window: expected an odd number >= 1, got 4"):
        DecamouflageFiltering(window=4)
    with pytest.raises(ValueError, match="blur: expected an odd number >= 1, got 20"):
        DecamouflageSteganalysis(blur=20)


@pytest.mark.parametrize("size", [(33, 30), (32, 31), (7, 5), (1, 6)])
def test_spectrum_is_numpys(size: tuple[int, int]) -> None:
    planes = noise(2, size=size)[:, 0].double()
    magnitude = np.abs(np.fft.fftshift(np.fft.fft2(planes.numpy()), axes=(1, 2)))
    expected = 20 * np.log(magnitude.clip(1e-8))
    assert np.allclose(log_spectrum(planes).numpy(), expected, atol=1e-6)


def waves(frequencies: list[tuple[int, int, float]], size: int = 96) -> Tensor:
    """An image (1, 1, size, size) made of cosines of given frequency and amplitude around 128."""
    place = torch.arange(size, dtype=torch.float64) * 2 * math.pi / size
    image = torch.full((size, size), 128.0, dtype=torch.float64)
    for down, across, amplitude in frequencies:
        image += amplitude * torch.cos(down * place.unsqueeze(1) + across * place)
    return image.round().clamp(0, 255).to(torch.uint8).view(1, 1, size, size)


def test_steganalysis_counts_bright_points() -> None:
    # a point of the spectrum is removed by the 3 x 3 median, a blob of 3 x 3 is not
    blob = [(30 + i, 20 + j, 9.0) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    centre = [(i, j, 9.0) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    detector = DecamouflageSteganalysis(level=180, blur=5)
    assert score(detector, waves(centre)).tolist() == [1.0]
    assert score(detector, waves(centre + blob)).tolist() == [3.0]
    assert score(detector, waves([*centre, (30, 20, 60.0)])).tolist() == [1.0]


def test_steganalysis_agrees_with_opencv() -> None:
    images, expected = noise(12, size=(64, 60)), []
    images[6:] = (images[6:].float() * torch.linspace(0, 1, 64).view(64, 1)).byte()
    level, blur = 172, 7
    for image in images[:, 0].numpy():
        with np.errstate(divide="ignore"):
            spectrum = 20 * np.log(np.abs(np.fft.fftshift(np.fft.fft2(image))))
        _, bright = cv2.threshold(
            spectrum.round().clip(0, 255).astype(np.uint8), level, 255, cv2.THRESH_BINARY
        )
        blurred = cv2.GaussianBlur(
            cv2.medianBlur(bright, 3).astype(np.float64), (blur, blur), 0
        ).round()
        found, _ = cv2.findContours(
            (blurred > 0).astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE
        )
        expected.append(len(found))
    assert score(DecamouflageSteganalysis(level, blur), images).tolist() == expected
    assert len(set(expected)) > 3


@pytest.mark.parametrize("share", [0.2, 0.5, 0.7])
def test_contours_are_opencvs(share: float) -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        mask = generator.random((17, 23)) < share
        found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        assert contours(mask) == len(found)
    assert contours(np.zeros((4, 5), dtype=bool)) == 0


def peaks_of(size: tuple[int, int], target: tuple[int, int]) -> list[tuple[int, int]]:
    reach = [int(n / (2 * t) - 0.001) for n, t in zip(size, target, strict=True)]
    return [
        (size[0] // 2 + a * target[0], size[1] // 2 + b * target[1])
        for a in range(-reach[0], reach[0] + 1)
        for b in range(-reach[1], reach[1] + 1)
        if (a, b) != (0, 0)
    ]


def spectrum_of(image: Tensor) -> np.ndarray:
    grey = image.double().mean(0).numpy()
    return 20 * np.log(np.abs(np.fft.fftshift(np.fft.fft2(grey))))


@pytest.mark.parametrize("channels", [1, 3])
def test_peak_spectrum_is_the_percentile_of_the_windows(channels: int) -> None:
    pixels, radius = noise(channels=channels), 3
    for image, found in zip(pixels, score(PeakSpectrum(PIPELINE, radius), pixels), strict=True):
        spectrum = spectrum_of(image)
        mask = np.zeros(spectrum.shape, dtype=bool)
        for row, column in peaks_of((33, 30), PIPELINE.target):
            rows = slice(max(row - radius, 0), row + radius)
            mask[rows, max(column - radius, 0) : column + radius] = True
        mask[16 - 4 : 16 + 4, 15 - 4 : 15 + 4] = False
        expected = percentileofscore(spectrum.ravel(), spectrum[mask].mean())
        assert float(found) == pytest.approx(expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_peak_distance_is_that_of_the_tiles(channels: int) -> None:
    pixels = noise(channels=channels)
    for image, found in zip(pixels, score(PeakDistance(PIPELINE), pixels), strict=True):
        spectrum = spectrum_of(image)
        distances = []
        for row, column in peaks_of((33, 30), PIPELINE.target):
            tile = np.full(spectrum.shape, -np.inf)
            part = np.s_[max(row - 4, 0) : row + 4, max(column - 4, 0) : column + 4]
            tile[part] = spectrum[part]
            place = np.unravel_index(tile.argmax(), tile.shape)
            distances.append(np.hypot(place[0] - row, place[1] - column))
        assert float(found) == pytest.approx(-np.mean(distances))


def test_waves_at_the_expected_peaks_are_found() -> None:
    pipeline = Pipeline("opencv", "nearest", target=(24, 24))
    attacked = waves([(24, 0, 20.0), (0, 24, 20.0), (24, 24, 20.0), (24, -24, 20.0)])
    elsewhere = waves([(17, 0, 20.0), (0, 17, 20.0), (17, 17, 20.0), (17, -17, 20.0)])
    assert score(PeakDistance(pipeline), attacked).tolist() == [0.0]
    assert score(PeakDistance(pipeline), elsewhere).item() < -5
    narrow = PeakSpectrum(pipeline, radius=1)
    assert score(narrow, attacked).item() > score(narrow, elsewhere).item()


def test_without_expected_peaks_spectra_say_benign() -> None:
    pipeline = Pipeline("opencv", "nearest", target=(30, 40))
    assert score(PeakSpectrum(pipeline), noise()).tolist() == [0.0] * 3
    assert score(PeakDistance(pipeline), noise()).tolist() == [-25.0] * 3


def test_small_images_have_a_score_without_structural_similarity() -> None:
    pixels = noise(size=(9, 9))
    for detector in (DecamouflageScaling(PIPELINE, "ssim"), DecamouflageFiltering(metric="ssim")):
        assert score(detector, pixels).tolist() == [0.0] * 3


def test_what_they_are_told() -> None:
    assert HistogramCosine(PIPELINE).knowledge == "pipeline"
    assert DecamouflageFiltering().knowledge == "blind"
    assert HistogramCosine(PIPELINE).map(cases.images(), seeds=cases.seeds()) is None
