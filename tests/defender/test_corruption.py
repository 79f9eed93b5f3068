"""Benign changes: each is what it says, and none depends on the objective or the batch."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from defender.attacks.corruption import Corruption
from tests import cases


def nobody(images: Tensor) -> Tensor:
    raise AssertionError("the objective was asked")


def corrupted(images: Tensor, **options: Any) -> Tensor:
    result: Tensor = Corruption(**options)(images, nobody, seeds=cases.seeds(len(images)))
    return result


def test_jpeg_is_that_of_pillow() -> None:
    image = cases.images(1, channels=1)
    levels = (image[0, 0] * 255).byte().numpy()
    encoded = io.BytesIO()
    Image.fromarray(levels).save(encoded, "JPEG", quality=40)
    expected = np.asarray(Image.open(encoded))
    made = corrupted(image, kind="jpeg", quality=40)
    assert np.array_equal((made[0, 0] * 255).round().byte().numpy(), expected)
    assert not np.array_equal(levels, expected)


def test_blur_is_gaussian() -> None:
    image = cases.images(1, channels=1)
    expected = gaussian_filter(image[0, 0].double().numpy(), 1.0, mode="mirror", radius=3)
    made = corrupted(image, kind="blur", sigma=1.0)[0, 0].numpy()
    assert np.abs(made - expected).max() <= 0.5 / 255 + 1e-5


def test_noise_has_the_stated_size_and_a_key_an_image() -> None:
    images = torch.full((4, 3, 64, 64), 127 / 255)
    made = corrupted(images, kind="noise", noise=0.05)
    change = made - images
    assert float(change.std()) == pytest.approx(0.05, rel=0.02)
    assert float(change.mean()) == pytest.approx(0.0, abs=0.002)
    assert not torch.equal(made[0], made[1])
    seeds = cases.seeds(4)
    alone = Corruption(kind="noise", noise=0.05)(images[2:3], nobody, seeds=seeds[2:3])
    assert torch.equal(alone, made[2:3])


def test_brightness_and_contrast_by_hand() -> None:
    image = torch.tensor([0.0, 51.0, 102.0, 204.0, 255.0]).view(1, 1, 1, 5) / 255
    brighter = corrupted(image, kind="brightness", brightness=0.2) * 255
    assert brighter.flatten().round().int().tolist() == [51, 102, 153, 255, 255]
    darker = corrupted(image, kind="brightness", brightness=-0.2) * 255
    assert darker.flatten().round().int().tolist() == [0, 0, 51, 153, 204]
    flatter = corrupted(image, kind="contrast", contrast=0.5) * 255
    assert flatter.flatten().round().int().tolist() == [64, 89, 115, 166, 191]
    steeper = corrupted(image, kind="contrast", contrast=2.0) * 255
    assert steeper.flatten().round().int().tolist() == [0, 0, 76, 255, 255]


@pytest.mark.parametrize("kind", ["jpeg", "blur", "noise", "brightness", "contrast"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_result_is_an_8_bit_image_near_the_given_one(kind: str, channels: int) -> None:
    images = cases.images(channels=channels)
    made = corrupted(images, kind=kind)
    assert made.shape == images.shape
    assert 0 <= made.min() <= made.max() <= 1
    assert torch.equal(made, (made * 255).round() / 255)
    assert 0 < float((made - images).abs().mean()) < 0.12
    assert torch.equal(images, cases.images(channels=channels))


def test_is_no_attack() -> None:
    assert Corruption().threat == "none"
    assert Corruption().budget == "none"


def test_refuses_parameters_out_of_range() -> None:
    for wrong in ({"kind": "snow"}, {"quality": 0}, {"sigma": 0.0}, {"noise": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Corruption(**wrong)
