from __future__ import annotations

import pytest
import torch
from torch import Tensor

from defender.distortions import DISTORTIONS, LEVELS, TRAINED
from defender.metrics.fidelity import multi_scale_similarity, vif
from defender.norms import from_uint8, to_uint8
from storage.decode import Decoded, decode
from storage.sources import Photos

SEEDS = torch.tensor([3, -5])
every = pytest.mark.parametrize("name", DISTORTIONS)


@pytest.fixture(scope="module")
def photos() -> Tensor:
    """Two photographs, (2, 3, 192, 208)."""
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    source = Photos()
    items = [item for item in source.items() if item.name in ("chelsea.png", "coffee.png")]
    found = [decode(data, colour="rgb", resize=(192, 208)) for data in source.read(items)]
    pixels = [torch.tensor(one.pixels) for one in found if isinstance(one, Decoded)]
    return from_uint8(torch.stack(pixels))


@every
def test_every_level_is_further_from_the_original(name: str, photos: Tensor) -> None:
    similarity = torch.stack(
        [
            multi_scale_similarity(photos, DISTORTIONS[name](photos, level, seeds=SEEDS))
            for level in LEVELS
        ]
    )
    assert bool((similarity[:-1] > similarity[1:] + 0.001).all()), similarity
    assert bool((similarity[0] > 0.9).all())
    assert bool((similarity[0] < 0.9999).all())


@every
def test_colour_and_grey_files_of_the_same_shape(name: str, photos: Tensor) -> None:
    for images in (photos, photos[:, :1]):
        before = images.clone()
        distorted = DISTORTIONS[name](images, 3, seeds=SEEDS)
        assert distorted.shape == images.shape
        assert distorted.dtype == torch.float32
        assert torch.equal(distorted, from_uint8(to_uint8(distorted))), "not what a file holds"
        assert torch.equal(images, before)
        grey_keeps_its_colour = name == "desaturation" and images.shape[1] == 1
        assert torch.equal(distorted, images) == grey_keeps_its_colour


@every
def test_an_image_does_not_depend_on_its_batch(name: str, photos: Tensor) -> None:
    distortion = DISTORTIONS[name]
    together = distortion(photos, 4, seeds=SEEDS)
    assert torch.equal(together, distortion(photos, 4, seeds=SEEDS))
    alone = [distortion(photos[i : i + 1], 4, seeds=SEEDS[i : i + 1]) for i in (0, 1)]
    # kernels of another batch size may round the other way at a half
    assert float((together - torch.cat(alone)).abs().max()) <= 1.01 / 255
    assert float((together != torch.cat(alone)).float().mean()) < 1e-3


@pytest.mark.parametrize("name", ["noise", "motion-blur", "salt-and-pepper"])
def test_random_kinds_draw_anew_for_each_image_and_level(name: str) -> None:
    images = torch.linspace(0, 1, 40).expand(2, 3, 40, 40).clone()
    images[:, :, 20] = 0.5
    first, second = DISTORTIONS[name](images, 3, seeds=SEEDS)
    assert not torch.equal(first, second)
    again = DISTORTIONS[name](images, 3, seeds=SEEDS + 1)
    assert not torch.equal(first, again[0])


def test_what_the_strengths_say() -> None:
    half = torch.full((1, 3, 64, 64), 128 / 255)
    seeds = torch.tensor([0])
    noise = DISTORTIONS["noise"](half, 3, seeds=seeds) - half
    assert float(noise.std()) == pytest.approx(0.07, rel=0.03)
    flecked = DISTORTIONS["salt-and-pepper"](half, 5, seeds=seeds)
    assert float((flecked != half).float().mean()) == pytest.approx(0.15, abs=0.02)
    assert set(flecked.unique().tolist()) == {0.0, half[0, 0, 0, 0].item(), 1.0}
    assert torch.equal(flecked[:, 0], flecked[:, 1]), "a fleck is black or white"
    ramp = (torch.arange(64) / 63).expand(1, 3, 64, 64)
    assert len(DISTORTIONS["banding"](ramp, 4, seeds=seeds).unique()) == 4
    bright = DISTORTIONS["over-exposure"](half, 2, seeds=seeds)
    assert float(bright.mean()) == pytest.approx(128 / 255 + 0.16, abs=1 / 255)
    flat = DISTORTIONS["contrast"](ramp, 5, seeds=seeds)
    assert float(flat.max() - flat.min()) == pytest.approx(0.2, abs=2 / 255)
    blocks = DISTORTIONS["pixelation"](ramp, 2, seeds=seeds)
    assert torch.equal(blocks[..., 0::3][..., :21], blocks[..., 1::3][..., :21])


def test_motion_blur_spreads_a_point_along_a_line() -> None:
    point = torch.zeros(3, 1, 65, 65)
    point[:, :, 32, 32] = 1.0
    for level, length in zip(LEVELS, DISTORTIONS["motion-blur"].strengths, strict=True):
        spread = DISTORTIONS["motion-blur"].change(point, length, torch.tensor([1, 2, 3]))
        for streak in spread[:, 0].double():
            assert float(streak.sum()) == pytest.approx(1, abs=1e-5)
            place = torch.arange(65.0).double() - 32
            rows, columns = streak.sum(1), streak.sum(0)
            assert float((rows * place).sum()) == pytest.approx(0, abs=1e-5)
            across = (rows * place**2).sum() + (columns * place**2).sum()
            # a uniform line of length L has variance L^2 / 12; sharing taps out adds at most 1/2
            assert length**2 / 12 <= float(across) + 0.01 <= length**2 / 12 * 1.2 + 0.6, level


def test_levels_are_one_to_five() -> None:
    image, seeds = torch.zeros(1, 3, 40, 40), torch.tensor([0])
    for level in (0, 6, 2.5):
        with pytest.raises(ValueError, match=r"level: expected a whole number in \[1, 5\], got"):
            DISTORTIONS["noise"](image, level, seeds=seeds)  # type: ignore[arg-type]


def test_names_and_what_is_trained_on() -> None:
    assert all(name == one.name for name, one in DISTORTIONS.items())
    assert set(TRAINED) < set(DISTORTIONS)
    assert repr(DISTORTIONS["jpeg"]) == (
        "Distortion(name='jpeg', quantity='quality factor', strengths=(60, 35, 20, 10, 5))"
    )


def test_information_falls_with_every_trained_level(photos: Tensor) -> None:
    for name in TRAINED:
        kept = torch.stack(
            [vif(photos, DISTORTIONS[name](photos, level, seeds=SEEDS)) for level in LEVELS]
        )
        assert bool((kept[:-1] > kept[1:] + 0.02).all()), name
