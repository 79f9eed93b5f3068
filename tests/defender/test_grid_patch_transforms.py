"""What printing and photographing does to a patch: ranges, geometry and gradients."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from defender.attacks.grid_patch import GridPatch
from defender.patch_placing import enlarged, paste, square_boxes
from defender.patch_transforms import Transforms, blurred, homographies, laid
from tests import cases

SQUARE = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]).double()
ALL = {
    **{"brightness": 0.2, "contrast": 0.3, "rotation": 15.0, "scale": 0.2},
    **{"perspective": 0.15, "blur": 0.7, "noise": 0.05},
}


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def placed(n: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images of 20 x 24, patches of 8 x 8, tops and lefts."""
    return (
        some(n, 3, 20, 24),
        some(n, 3, 8, 8, seed=1),
        torch.tensor([4, 7, 6])[:n],
        torch.tensor([3, 9, 12])[:n],
    )


def test_without_ranges_nothing_changes() -> None:
    patches = some(4, 3, 6, 6)
    assert torch.equal(Transforms().toned(patches, cases.seeds(4)), patches)
    assert not Transforms(brightness=0.1, blur=1.0).moves
    assert torch.equal(Transforms().outlines(cases.seeds(4)), SQUARE.expand(4, 4, 2))


def test_an_unmoved_outline_is_the_paste() -> None:
    images, patches, top, left = placed()
    lain, boxes = laid(images, patches, top, left, SQUARE.expand(3, 4, 2))
    torch.testing.assert_close(lain, paste(images, patches, top, left), rtol=0, atol=1e-5)
    assert torch.equal(boxes, square_boxes(top, left, 8))


def test_a_quarter_turn_is_a_rotation_of_the_pixels() -> None:
    images, patches, top, left = placed()
    turn = torch.tensor([[math.cos(math.pi / 2), 1.0], [-1.0, math.cos(math.pi / 2)]]).double()
    # counter-clockwise as one looks at it: what was right of the centre is above it
    assert torch.allclose(
        turn @ torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, -1.0]).double()
    )
    lain, boxes = laid(images, patches, top, left, (SQUARE @ turn.T).expand(3, 4, 2))
    expected = paste(images, patches.rot90(1, dims=(2, 3)), top, left)
    torch.testing.assert_close(lain, expected, rtol=0, atol=1e-5)
    assert torch.equal(boxes, square_boxes(top, left, 8))


def test_twice_the_side_about_the_same_centre() -> None:
    images, patches = torch.zeros(1, 3, 20, 24), some(1, 3, 1, 1).expand(1, 3, 8, 8)
    lain, boxes = laid(images, patches, torch.tensor([6]), torch.tensor([8]), 2 * SQUARE[None])
    assert boxes.tolist() == [[2, 4, 16, 16]]
    torch.testing.assert_close(lain[0, :, 3:17, 5:19], patches[0, :, :1, :1].expand(3, 14, 14))
    half = laid(images, patches, torch.tensor([6]), torch.tensor([8]), 0.5 * SQUARE[None])[1]
    assert half.tolist() == [[8, 10, 4, 4]]


def test_what_lies_outside_is_cut() -> None:
    images, patches, *_ = placed(1)
    lain, boxes = laid(images, patches, torch.tensor([0]), torch.tensor([16]), 1.5 * SQUARE[None])
    assert boxes.tolist() == [[0, 14, 10, 10]]
    assert lain.shape == images.shape
    gone = laid(images, patches, torch.tensor([0]), torch.tensor([0]), SQUARE[None] + 20.0)
    assert gone[1].tolist() == [[0, 0, 0, 0]]
    assert torch.equal(gone[0], images)


def test_projective_maps_take_the_corners_to_the_square() -> None:
    outlines = Transforms(rotation=40.0, scale=0.3, perspective=0.4).outlines(cases.seeds(50))
    maps = homographies(outlines)
    points = torch.cat([outlines, torch.ones(50, 4, 1, dtype=torch.float64)], dim=2)
    mapped = points @ maps.transpose(1, 2)
    assert mapped[:, :, 2].min() > 0
    torch.testing.assert_close(mapped[:, :, :2] / mapped[:, :, 2:], SQUARE.expand(50, 4, 2))


def test_outlines_stay_in_their_ranges_and_fill_them() -> None:
    seeds = torch.arange(2000)
    turned = Transforms(rotation=30.0).outlines(seeds)
    to_right = (turned[:, 1] - turned[:, 0]) / 2
    angles = torch.rad2deg(torch.atan2(-to_right[:, 1], to_right[:, 0]))
    assert -30 <= angles.min() < -29.5
    assert 29.5 < angles.max() <= 30
    torch.testing.assert_close(turned.norm(dim=2), SQUARE.norm(dim=1).expand(2000, 4))
    factors = Transforms(scale=0.25).outlines(seeds) / SQUARE
    torch.testing.assert_close(factors.amin(dim=(1, 2)), factors.amax(dim=(1, 2)))
    assert 0.75 <= factors.min() < 0.755
    assert 1.245 < factors.max() <= 1.25
    moved = (Transforms(perspective=0.2).outlines(seeds) - SQUARE).flatten(1)
    assert moved.abs().max() <= 0.2
    assert (moved.amax(dim=0) > 0.195).all()
    assert torch.corrcoef(moved.T).fill_diagonal_(0).abs().max() < 0.1


def test_tone_by_hand() -> None:
    seeds, flat = torch.arange(2000), torch.full((2000, 1, 2, 2), 0.9)
    brighter = Transforms(brightness=0.05).toned(flat, seeds)[:, 0, 0, 0] - 0.9
    assert -0.05 <= brighter.min() < -0.049
    assert 0.049 < brighter.max() <= 0.0501
    contrast = (Transforms(contrast=0.2).toned(flat, seeds)[:, 0, 0, 0] - 0.5) / 0.4
    assert 0.8 - 1e-6 <= contrast.min() < 0.801
    assert 1.199 < contrast.max() <= 1.2 + 1e-6
    grey = torch.full((2000, 1, 2, 2), 0.5)
    noisy = Transforms(noise=0.05).toned(grey, seeds)
    assert noisy.std().item() == pytest.approx(0.05, rel=0.03)
    wild = Transforms(brightness=1.0, contrast=1.0, noise=1.0).toned(flat, seeds)
    assert wild.min() == 0
    assert wild.max() == 1


def test_blur_is_a_gaussian_of_each_patch_s_own_width() -> None:
    point = torch.zeros(3, 1, 15, 15)
    point[:, :, 7, 7] = 1.0
    sigmas = torch.tensor([0.0, 1.0, 2.0])
    result = blurred(point, sigmas, 6)
    assert torch.equal(result[0], point[0])
    for i in (1, 2):
        kernel = torch.exp(-0.5 * (torch.arange(-6, 7) / sigmas[i]) ** 2)
        kernel /= kernel.sum()
        torch.testing.assert_close(result[i, 0, 1:14, 1:14], torch.outer(kernel, kernel))
    flat = torch.full((3, 1, 5, 5), 0.3)
    torch.testing.assert_close(blurred(flat, sigmas, 6), flat)


def test_draws_are_keyed_by_image() -> None:
    attack, theta, images = GridPatch(4, 0.4, **ALL), some(3, 4, 4), some(6, 3, 30, 40)
    whole, boxes = attack.apply(images, theta, seeds=cases.seeds(6))
    some_of, some_boxes = attack.apply(images[2:4], theta, seeds=cases.seeds(6)[2:4])
    torch.testing.assert_close(some_of, whole[2:4], rtol=0, atol=1e-6)
    assert torch.equal(some_boxes, boxes[2:4])
    assert len({tuple(box) for box in boxes[:, 2:].tolist()}) > 1
    assert 0 <= whole.min() <= whole.max() <= 1


def test_the_boxes_bound_what_changed() -> None:
    images = torch.full((20, 3, 60, 60), 0.25)
    attack = GridPatch(2, 0.3, place="centre", rotation=40.0, scale=0.3, perspective=0.3)
    painted, boxes = attack.apply(images, torch.ones(3, 2, 2), seeds=cases.seeds(20))
    changed = (painted[:, 0] - 0.25) / 0.75
    for share, box in zip(changed, boxes.tolist(), strict=True):
        rows, columns = (share > 0.5).nonzero().unbind(dim=1)
        assert box[:2] == [rows.min().item(), columns.min().item()]
        assert box[2:] == [rows.max().item() - box[0] + 1, columns.max().item() - box[1] + 1]
    assert boxes[:, 2].float().std() > 1


@pytest.mark.parametrize("name", sorted(ALL))
def test_gradients_pass_through_every_transform(name: str) -> None:
    images, _, top, left = (
        part.double() if part.is_floating_point() else part for part in placed()
    )
    transforms = Transforms(**{name: ALL[name]})
    theta = (0.3 + 0.4 * some(3, 3, 2, 2)).double().requires_grad_(True)
    seeds = cases.seeds(3)

    def painted(cells: torch.Tensor) -> torch.Tensor:
        patches = transforms.toned(enlarged(cells, 4), seeds)
        return laid(images, patches, top, left, transforms.outlines(seeds))[0]

    assert torch.autograd.gradcheck(painted, (theta,), eps=1e-4, atol=1e-4, fast_mode=True)
    assert (torch.autograd.grad(painted(theta).sum(), theta)[0] > 0).all()


def test_a_patch_fitted_to_turned_ones_is_better_turned() -> None:
    attack = GridPatch(3, 0.5, epochs=30, optimizer="adam", step_size=0.1)
    robust = dataclasses.replace(attack, rotation=180.0, scale=0.2)
    items = [(cases.images(), torch.arange(8))]

    def goals(images: torch.Tensor, places: torch.Tensor) -> cases.Objective:
        return cases.Misclassify(cases.MODEL, cases.labels()[places])

    scores = {}
    for name, fitted in (("flat", attack), ("turned", robust)):
        *_, state = fitted.fit(items, goals, seeds=cases.seeds())
        scores[name] = 0.0
        for draw in range(20):
            seeds = cases.seeds() + 100 + draw
            turned = robust.apply(cases.images(), state.theta, seeds=seeds)[0]
            scores[name] += goals(turned, torch.arange(8))(turned).mean().item() / 20
    assert scores["turned"] > scores["flat"]
