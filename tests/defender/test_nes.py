"""NES against a slow estimate of its own, its count of queries, and what it climbs."""

from __future__ import annotations

import math

import pytest
import torch

from defender import noise
from defender.attacks.nes import NES
from defender.objectives import RaiseScore
from defender.tiling import tiled
from tests import cases


class Counted:
    """An objective without gradients that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        return cases.QUALITY(images).detach()


@pytest.mark.parametrize("queries", [0, 1, 9, 10, 17, 18, 50])
def test_never_asks_more_than_it_may(queries: int) -> None:
    objective = Counted()
    attack = NES(8 / 255, queries=queries, samples=4)
    attacked = attack(cases.images(), objective, seeds=cases.seeds())
    assert objective.asked == (0 if queries < 10 else 2 + 8 * ((queries - 2) // 8))
    assert objective.asked <= queries
    assert torch.equal(attacked, cases.images()) == (queries < 10)


def by_hand(images: torch.Tensor, attack: NES, seeds: torch.Tensor) -> torch.Tensor:
    """The attack image by image and sample by sample, as the paper's algorithm 1 says."""
    results = []
    for image, seed in zip(images, seeds.view(-1, 1), strict=True):
        now = image.clone()
        for step in range(attack.steps):
            keys = noise.derive_seeds(noise.derive_seeds(seed, "patterns"), step)
            side = min(attack.tile, 12)
            patterns = noise.normal(keys, (attack.samples, 3, side, side))[0]
            estimate = torch.zeros(3, side, side, dtype=torch.float64)
            for pattern in patterns:
                change = torch.empty(3, 12, 12)
                for row in range(12):
                    for column in range(12):
                        change[:, row, column] = pattern[:, row % side, column % side]
                ask = [(now + sign * attack.sigma * change).clamp(0, 1) for sign in (1, -1)]
                up, down = (cases.QUALITY(one[None]).double().item() for one in ask)
                estimate += (up - down) * pattern
            for row in range(12):
                for column in range(12):
                    sign = estimate[:, row % side, column % side].sign().float()
                    now[:, row, column] += attack.step_size * sign
            now = now.clamp(image - attack.epsilon, image + attack.epsilon).clamp(0, 1)
        results.append(now)
    return torch.stack(results)


@pytest.mark.parametrize("tile", [5, 32])
def test_is_the_algorithm_of_the_paper(tile: int) -> None:
    images, seeds = cases.images(3), cases.seeds(3)
    attack = NES(0.02, queries=44, samples=7, sigma=0.05, step_size=0.008, tile=tile)
    assert attack.steps == 3
    attacked = attack(images, RaiseScore(cases.QUALITY), seeds=seeds)
    torch.testing.assert_close(attacked, by_hand(images, attack, seeds), rtol=0, atol=1e-6)


def test_climbs_a_plane_in_the_direction_of_its_slope() -> None:
    slope = torch.randn(3, 12, 12, generator=torch.Generator().manual_seed(2))

    def plane(images: torch.Tensor) -> torch.Tensor:
        return (images * slope).sum(dim=(1, 2, 3)).detach()

    images = torch.full((2, 3, 12, 12), 0.5)
    attack = NES(0.1, queries=8002, samples=4000, step_size=0.1)
    moved = attack(images, plane, seeds=cases.seeds(2)) - images
    agrees = (moved.sign() == slope.sign()).float().mean().item()
    # an estimate from m normal patterns in d dimensions is off by a normal angle of sqrt(d / m)
    assert agrees == pytest.approx(1 - math.atan(math.sqrt(3 * 12 * 12 / 4000)) / math.pi, abs=0.02)
    assert moved.abs().max() <= 0.1 + 1e-6


def test_an_image_that_gains_nothing_stays() -> None:
    clean = cases.images()

    def at_the_top(images: torch.Tensor) -> torch.Tensor:
        return -(images - clean[: len(images)]).square().sum(dim=(1, 2, 3))

    attacked = NES(8 / 255, queries=42)(clean, at_the_top, seeds=cases.seeds())
    assert torch.equal(attacked, clean)


def test_scores_that_are_no_numbers_move_nothing() -> None:
    def broken(images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(1, 2, 3)) * torch.nan

    attacked = NES(8 / 255, queries=82)(cases.images(), broken, seeds=cases.seeds())
    assert torch.equal(attacked, cases.images())


def test_other_seeds_draw_other_patterns() -> None:
    attack, objective = NES(8 / 255, queries=82), RaiseScore(cases.QUALITY)
    first = attack(cases.images(), objective, seeds=cases.seeds())
    other = attack(cases.images(), objective, seeds=cases.seeds() + 1)
    assert not torch.equal(first, other)


def test_names_an_objective_without_one_score_an_image() -> None:
    with pytest.raises(ValueError, match=r"one score an image \(8,\), got \(8, 3, 12, 12\)"):
        NES(8 / 255)(cases.images(), lambda images: images, seeds=cases.seeds())


@pytest.mark.parametrize("size", [(12, 12), (3, 5), (4, 4), (9, 13)], ids=str)
def test_tiles_repeat(size: tuple[int, int]) -> None:
    pattern = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    covered = tiled(pattern, size)
    for row in range(size[0]):
        for column in range(size[1]):
            assert torch.equal(covered[:, :, row, column], pattern[:, :, row % 4, column % 4])
