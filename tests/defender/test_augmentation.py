from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from defender.augmentation import augment, retone, warp

OFF = {"padding": 0, "flip": False, "cutout": 0}


def ramp(height: int, width: int, across: float, down: float) -> Tensor:
    """An image that rises by ``across`` a column and ``down`` a row, 0 in its centre."""
    rows = torch.arange(height).view(-1, 1) - (height - 1) / 2
    columns = torch.arange(width) - (width - 1) / 2
    return (down * rows + across * columns).view(1, 1, height, width)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_quarter_turn_is_counter_clockwise() -> None:
    images = torch.rand(2, 1, 9, 9, generator=seeded())
    turned = warp(images, torch.full((2,), math.pi / 2), torch.ones(2))
    torch.testing.assert_close(turned, images.rot90(1, (2, 3)), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(31, 31), (25, 41), (40, 24)])
def test_turning_and_scaling_a_ramp_turns_and_scales_its_gradient(height: int, width: int) -> None:
    angle, factor = math.radians(25), 1.25
    turned = warp(ramp(height, width, 1.0, 0.5), torch.tensor([angle]), torch.tensor([factor]))
    cosine, sine = math.cos(angle) / factor, math.sin(angle) / factor
    expected = ramp(height, width, cosine + 0.5 * sine, 0.5 * cosine - sine)
    middle = (..., slice(height // 2 - 6, height // 2 + 6), slice(width // 2 - 6, width // 2 + 6))
    torch.testing.assert_close(turned[middle], expected[middle], rtol=0, atol=1e-4)


def test_each_image_has_its_own_change() -> None:
    images = ramp(21, 21, 1.0, 0.0).expand(2, 1, 21, 21)
    turned = warp(images, torch.zeros(2), torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(turned[0], images[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(turned[1], images[0] / 2, rtol=0, atol=1e-4)


def test_tones_by_hand() -> None:
    images = torch.tensor([[0.25, 0.75], [0.5, 0.5], [0.2, 0.4]]).view(3, 1, 1, 2)
    toned = retone(
        images,
        powers=torch.tensor([1.0, 2.0, 1.0]),
        factors=torch.tensor([2.0, 5.0, 1.0]),
        shifts=torch.tensor([0.0, 0.125, 0.7]),
    )
    expected = torch.tensor([[0.0, 1.0], [0.375, 0.375], [0.9, 1.0]])
    torch.testing.assert_close(toned.view(3, 2), expected)


def test_what_is_switched_off_changes_nothing_and_draws_nothing() -> None:
    images = torch.rand(3, 1, 8, 8, generator=seeded())
    generator = seeded(1)
    before = generator.get_state()
    assert torch.equal(augment(images, **OFF, generator=generator), images)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("name", ["rotation", "zoom", "gamma", "contrast", "brightness"])
def test_every_change_is_drawn_for_each_image_within_its_range(name: str) -> None:
    # one image many times: whatever differs between the results was drawn
    images = (0.5 + ramp(32, 32, 0.008, 0.004)).expand(40, 1, 32, 32)
    strength = {"rotation": 20.0}.get(name, 0.2)
    changed = augment(images, **OFF, generator=seeded(), **{name: strength})
    assert torch.equal(changed, augment(images, **OFF, generator=seeded(), **{name: strength}))
    weak = augment(images, **OFF, generator=seeded(), **{name: strength / 10})
    strong_change, weak_change = ((c - images).abs().amax(dim=(1, 2, 3)) for c in (changed, weak))
    assert len(set(strong_change.tolist())) > 30
    assert strong_change.mean() > 4 * weak_change.mean()
    assert changed.min() >= 0
    assert changed.max() <= 1


def test_brightness_goes_either_way_and_no_further() -> None:
    images = torch.full((200, 1, 2, 2), 0.5)
    means = augment(images, **OFF, generator=seeded(), brightness=0.2).mean(dim=(1, 2, 3)) - 0.5
    assert means.abs().max() <= 0.2
    assert means.min() < -0.18
    assert means.max() > 0.18


def test_stretching_widens_and_lowers_by_as_much() -> None:
    images = torch.zeros(1, 1, 40, 40)
    images[:, :, 15:25, 15:25] = 1
    wide = warp(images, torch.zeros(1), torch.ones(1), torch.tensor([1.5]))[0, 0] > 0.5
    assert int(wide.any(0).sum()) == pytest.approx(15, abs=1)
    assert int(wide.any(1).sum()) == pytest.approx(7, abs=1)
    same = warp(images, torch.zeros(1), torch.ones(1), torch.ones(1))
    torch.testing.assert_close(same, images, rtol=0, atol=1e-5)
