"""The control of attacks in a norm ball."""

from __future__ import annotations

import pytest
import torch

from defender.attacks.random_noise import RandomNoise
from tests import cases

GREY = torch.full((8, 3, 12, 12), 0.5)


def nobody(images: torch.Tensor) -> torch.Tensor:
    raise AssertionError("asked")


def test_every_value_moves_by_the_radius_either_way() -> None:
    change = RandomNoise(0.1)(GREY, nobody, seeds=cases.seeds()) - GREY
    torch.testing.assert_close(change.abs(), torch.full_like(change, 0.1))
    assert 0.4 < (change > 0).float().mean() < 0.6
    assert not torch.equal(change[0], change[1])


def test_the_whole_change_has_the_radius_in_l2() -> None:
    change = RandomNoise(0.7, "l2")(GREY, nobody, seeds=cases.seeds()) - GREY
    torch.testing.assert_close(change.flatten(1).norm(dim=1), torch.full((8,), 0.7))
    assert change[0].unique().numel() > 100


def test_no_radius_no_change_and_no_radius_above_one() -> None:
    images = cases.images()
    assert torch.equal(RandomNoise(0.0)(images, nobody, seeds=cases.seeds()), images)
    with pytest.raises(ValueError, match=r"epsilon: expected \[0, 1\] for norm 'linf'"):
        RandomNoise(1.5)
