"""Purifiers that move, resize, coarsen or add noise, against torchvision, scipy and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from defender.norms import from_uint8
from defender.purifiers import (
    PRESETS,
    PURIFIERS,
    BitDepth,
    ColourQuantisation,
    Flip,
    Gaussian,
    GaussianNoise,
    RandomCrop,
    Resize,
    Rotate,
    Unsharp,
    Upscale,
)
from defender.purifiers.geometric import rotate
from tests import cases
from tests.defender.photographs import photographs


def run(purifier: Any, images: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = purifier(images, seeds=cases.seeds(len(images)))
    return result


@pytest.mark.parametrize("scale", [0.1, 0.25, 0.5, 0.75, 0.9, 1.0])
def test_resize_is_torchvisions(scale: float) -> None:
    images = photographs((49, 56))
    size = [int(scale * 49), int(scale * 56)]
    expected = transforms.resize(images, size, InterpolationMode.BILINEAR, antialias=True)
    made = run(Resize(scale), images)
    assert list(made.shape[2:]) == size
    assert torch.allclose(made, expected, atol=1e-6)


def test_the_baseline_halves_299_to_149() -> None:
    assert run(Resize(), torch.rand(1, 3, 299, 299)).shape == (1, 3, 149, 149)
    assert run(Resize(0.1), torch.rand(1, 1, 4, 30)).shape == (1, 1, 1, 3)


@pytest.mark.parametrize("scale", [0.25, 0.5, 0.9])
def test_upscale_is_resize_and_bilinear_enlargement(scale: float) -> None:
    images = photographs((49, 56))
    small = transforms.resize(images, [int(scale * 49), int(scale * 56)], antialias=True)
    expected = torch.nn.Upsample(size=(49, 56), mode="bilinear")(small)
    assert torch.allclose(run(Upscale(scale), images), expected, atol=1e-6)


@pytest.mark.parametrize("size", [(31, 44), (30, 30)])
def test_rotation_is_torchvisions(size: tuple[int, int]) -> None:
    images = photographs(size)
    angles = torch.tensor([-14.0, 3.5, 90.0])
    made = rotate(images, angles, "black")
    for image, angle, result in zip(images, angles.tolist(), made, strict=True):
        expected = transforms.rotate(image[None], angle, InterpolationMode.BILINEAR)[0]
        assert torch.allclose(result, expected, atol=2e-4)


def test_a_reflected_border_goes_on_beyond_its_outer_edge() -> None:
    images = photographs((31, 44), channels=1)
    made = rotate(images, torch.full((3,), 25.0), "reflected")
    for image, result in zip(images, made, strict=True):
        expected = ndimage.rotate(
            image[0].double().numpy(), 25.0, reshape=False, order=1, mode="reflect"
        )
        assert np.allclose(result[0].numpy(), expected, atol=2e-4)


def test_angles_are_uniform_between_the_limits() -> None:
    """A dot to the right of the centre shows how far its image was turned."""
    images = torch.zeros(300, 1, 41, 41)
    images[..., 20, 36] = 1.0
    made = run(Rotate(20.0), images)
    rows, columns = torch.meshgrid(torch.arange(41.0), torch.arange(41.0), indexing="ij")
    mass = made.sum(dim=(1, 2, 3))
    up = 20 - (made[:, 0] * rows).sum(dim=(1, 2)) / mass
    right = (made[:, 0] * columns).sum(dim=(1, 2)) / mass - 20
    angles = torch.rad2deg(torch.atan2(up, right))
    assert angles.abs().max() < 20.5
    assert angles.min() < -18
    assert angles.max() > 18
    assert angles.abs().mean().item() == pytest.approx(10, abs=1)
    assert angles.mean().item() == pytest.approx(0, abs=2)
    assert torch.allclose(run(Rotate(0.0), images), images, atol=1e-5)


def test_flips_by_hand() -> None:
    image = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]).view(1, 1, 2, 3)
    for axes, expected in {
        "horizontal": [[0.3, 0.2, 0.1], [0.6, 0.5, 0.4]],
        "vertical": [[0.4, 0.5, 0.6], [0.1, 0.2, 0.3]],
        "both": [[0.6, 0.5, 0.4], [0.3, 0.2, 0.1]],
    }.items():
        assert torch.equal(run(Flip(axes), image)[0, 0], torch.tensor(expected))


def test_crops_are_whole_parts_from_everywhere() -> None:
    numbered = torch.arange(7 * 9).view(1, 1, 7, 9).expand(400, 2, -1, -1) / 62
    made = run(RandomCrop(5), numbered)
    assert made.shape == (400, 2, 5, 5)
    corners = (made[:, 0, 0, 0] * 62).round().long()
    for crop, corner in zip(made, corners.tolist(), strict=True):
        top, left = divmod(corner, 9)
        assert torch.equal(crop, numbered[0, :, top : top + 5, left : left + 5])
    assert sorted(set(corners.tolist())) == [9 * y + x for y in range(3) for x in range(5)]


def test_a_crop_larger_than_the_image_keeps_what_there_is() -> None:
    images = photographs((20, 30))
    assert torch.equal(run(RandomCrop(64), images), images)
    made = run(RandomCrop(25), images)
    assert made.shape == (3, 3, 20, 25)


def test_noise_is_normal_clamped_and_independent() -> None:
    noise = run(GaussianNoise(0.05), torch.full((4, 3, 60, 60), 0.5)) - 0.5
    assert noise.std().item() == pytest.approx(0.05, rel=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=0.001)
    assert ((noise.abs() < 0.05).float().mean() - 0.6827).abs() < 0.01
    correlation = torch.corrcoef(noise.flatten(1)).abs() - torch.eye(4)
    assert correlation.max() < 0.05
    white = run(GaussianNoise(0.05), torch.ones(1, 3, 60, 60))
    assert ((white == 1).float().mean() - 0.5).abs() < 0.02
    assert white.max() == 1


def test_levels_by_hand() -> None:
    values = torch.tensor([0.0, 0.2, 0.3, 0.6, 0.8, 1.0]).view(1, 1, 2, 3)
    made = run(ColourQuantisation(3), values)
    assert made.flatten().tolist() == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]
    images = photographs()
    assert torch.equal(run(ColourQuantisation(32), images), run(BitDepth(5), images))
    assert torch.equal(run(ColourQuantisation(256), images), images)
    assert len(run(ColourQuantisation(20), images).unique()) == 20


@pytest.mark.parametrize("window", [1, 3, 5, 11])
def test_a_gaussian_of_a_given_window_is_cut_there(window: int) -> None:
    sigma = 0.3 * ((window - 1) / 2 - 1) + 0.8 if window > 1 else 1.0
    images = torch.rand(2, 3, 14, 13, generator=torch.Generator().manual_seed(0))
    expected = transforms.gaussian_blur(images, [window, window], [sigma, sigma])
    assert torch.allclose(run(Gaussian(sigma, window), images), expected, atol=1e-6)


def test_unsharp_of_any_amount_window_and_sigma_agrees_with_scipy() -> None:
    images = photographs((20, 23))
    for amount, window, sigma in ((0.5, 3, 1.0), (2.0, 7, 1.7), (0.0, 5, 1.0)):
        reach = window // 2
        blurred = ndimage.gaussian_filter(
            images.double().numpy(),
            (0, 0, sigma, sigma),
            mode="reflect",
            radius=(0, 0, reach, reach),
        )
        expected = np.clip((1 + amount) * images.double().numpy() - amount * blurred, 0, 1)
        made = run(Unsharp("corrected", amount, window, sigma), images)
        assert np.allclose(made.numpy(), expected, atol=1e-5)


def test_parameters_added_later_are_not_part_of_older_names() -> None:
    """A name is part of what stored results are found by."""
    assert repr(Unsharp()) == "Unsharp(variant='corrected')"
    assert repr(Unsharp("original")) == "Unsharp(variant='original')"
    assert repr(Gaussian()) == "Gaussian(sigma=1.0)"
    assert repr(Gaussian(0.8, window=3)) == "Gaussian(sigma=0.8, window=3)"
    assert repr(Unsharp(window=3)) == "Unsharp(variant='corrected', window=3)"


def test_presets_are_those_of_the_benchmark() -> None:
    images = from_uint8(torch.randint(0, 256, (2, 3, 16, 17), dtype=torch.uint8))
    learned = {"fcn", "diffpure"}
    assert PRESETS["fcn"]["values"] == ({"network": "fcn-linearity"},)
    assert [values["t"] for values in PRESETS["diffpure"]["values"]] == [
        0.005,
        0.01,
        0.02,
        0.03,
        0.05,
    ]
    assert PRESETS["diffpure"]["default"] == 0
    for name in set(PRESETS) - learned:
        preset = PRESETS[name]
        made = [PURIFIERS[preset["purifier"]](**values) for values in preset["values"]]
        assert len(made) == (1 if name == "flip" else 5)
        assert 0 <= preset["default"] < len(made)
        assert len({repr(purifier) for purifier in made}) == len(made)
        for purifier in made:
            assert run(purifier, images).shape[:2] == (2, 3)
    for values in PRESETS["gaussian"]["values"]:
        assert values["sigma"] == pytest.approx(0.3 * ((values["window"] - 1) / 2 - 1) + 0.8)
    defaults = {name: preset["values"][preset["default"]] for name, preset in PRESETS.items()}
    assert defaults["jpeg"] == {"quality": 50}
    assert defaults["colour-quantisation"] == {"levels": 16}
    assert defaults["resize"] == defaults["upscale"] == {"scale": 0.5}
    assert defaults["rotate"] == {"degrees": 15.0}


def test_arguments_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match=r"levels: expected \[2, 256\], got 1"):
        ColourQuantisation(1)
    with pytest.raises(ValueError, match=r"scale: expected \(0, 1\], got 0"):
        Resize(0.0)
    with pytest.raises(ValueError, match=r"axes: expected both \| horizontal \| vertical"):
        Flip("none")
    with pytest.raises(ValueError, match="size: expected >= 1, got 0"):
        RandomCrop(0)
    with pytest.raises(ValueError, match="window: expected an odd number >= 1, got 4"):
        Gaussian(window=4)
    with pytest.raises(ValueError, match="window: expected an odd number >= 1, got 2"):
        Unsharp(window=2)
