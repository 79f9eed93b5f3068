"""JPEG in torch against Pillow's encoder, and its gradients against the derivative by hand."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import fft

from defender.norms import from_uint8, to_uint8
from defender.objectives import Defended, Misclassify, value_and_gradient
from defender.purifiers import JPEG, DifferentiableJPEG
from defender.purifiers.differentiable_jpeg import quantisation_table
from tests import cases
from tests.defender.photographs import photographs


def by_pillow(images: torch.Tensor, quality: int, subsampling: str) -> torch.Tensor:
    decoded = []
    for pixels in to_uint8(images).permute(0, 2, 3, 1).numpy():
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, "JPEG", quality=quality, subsampling=subsampling)
        encoded.seek(0)
        decoded.append(np.array(Image.open(encoded)))
    return from_uint8(torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2))


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
@pytest.mark.parametrize("quality", [10, 50, 75, 90])
def test_it_agrees_with_pillow(quality: int, subsampling: str) -> None:
    images = photographs((75, 61))
    expected = by_pillow(images, quality, subsampling)
    made = DifferentiableJPEG(quality, subsampling=subsampling)(images, seeds=cases.seeds(3))
    error = (from_uint8(to_uint8(made)) - expected).abs().mean() * 255
    assert error < 0.5
    assert (images - expected).abs().mean() * 255 > 2 * error


@pytest.mark.parametrize("quality", [50, 70, 90])
def test_cubic_rounding_stays_within_a_level_of_pillow(quality: int) -> None:
    images = photographs((160, 160))
    made = DifferentiableJPEG(quality, "cubic")(images, seeds=cases.seeds(3))
    error = (made - by_pillow(images, quality, "4:2:0")).abs().mean() * 255
    assert 0.2 < error < 1


@pytest.mark.parametrize("quality", [30, 90])
def test_grey_images_agree_with_pillow(quality: int) -> None:
    images = photographs((50, 41), channels=1)
    made = DifferentiableJPEG(quality)(images, seeds=cases.seeds(3))
    expected = JPEG(quality)(images, seeds=cases.seeds(3))
    assert (from_uint8(to_uint8(made)) - expected).abs().mean() * 255 < 0.3


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 75, 95, 100])
def test_tables_are_those_that_pillow_writes(quality: int) -> None:
    encoded = io.BytesIO()
    Image.new("RGB", (8, 8)).save(encoded, "JPEG", quality=quality)
    with Image.open(encoded) as picture:
        written = picture.quantization  # type: ignore[attr-defined]
    for number, chroma in ((0, False), (1, True)):
        table = quantisation_table(quality, chroma).flatten().int().tolist()
        assert table == list(written[number])


def test_straight_through_passes_gradients_of_the_steps_around_the_rounding() -> None:
    """Without subsampling these steps undo each other, so the gradient is what comes in."""
    images = photographs((16, 24)).requires_grad_(True)
    weights = torch.randn(images.shape, generator=torch.Generator().manual_seed(2))
    made = DifferentiableJPEG(50, subsampling="4:4:4")(images, seeds=cases.seeds(3))
    (gradient,) = torch.autograd.grad((made * weights).sum(), images)
    assert torch.allclose(gradient, weights, atol=1e-4)


def test_the_gradient_of_cubic_rounding_is_that_of_the_cube() -> None:
    image = photographs((8, 8), channels=1)[:1]
    table = quantisation_table(50, chroma=False).numpy()
    levels = np.round(image[0, 0].double().numpy() * 255) - 128
    scaled = fft.dctn(levels, norm="ortho") / table
    for place in ((0, 0), (1, 0), (2, 3)):
        one = np.zeros((8, 8))
        one[place] = 1
        basis = torch.from_numpy(fft.idctn(one, norm="ortho")).float()
        leaf = image.clone().requires_grad_(True)
        made = DifferentiableJPEG(50, "cubic")(leaf, seeds=cases.seeds(1))
        (gradient,) = torch.autograd.grad((made[0, 0] * basis).sum(), leaf)
        left = scaled[place] - np.round(scaled[place])
        assert torch.allclose(gradient[0, 0], 3 * left**2 * basis, atol=1e-4)


def test_an_attack_can_differentiate_the_defence_itself() -> None:
    images = cases.images()
    goal = Misclassify(cases.MODEL, cases.labels())
    for purifier, works in ((DifferentiableJPEG(), True), (JPEG(), False)):
        objective = Defended(goal, purifier, cases.seeds(), backward="exact")
        if works:
            assert value_and_gradient(objective, images)[1].abs().amax(dim=(1, 2, 3)).min() > 0
        else:
            with pytest.raises(TypeError, match="purifier with a gradient"):
                value_and_gradient(objective, images)


def test_arguments_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match=r"quality: expected \[1, 100\], got 0"):
        DifferentiableJPEG(0)
    with pytest.raises(ValueError, match=r"rounding: expected straight-through \| cubic"):
        DifferentiableJPEG(rounding="none")
    with pytest.raises(ValueError, match="expected images with 1 or 3 channels, got 2"):
        DifferentiableJPEG()(cases.images()[:, :2], seeds=cases.seeds())
