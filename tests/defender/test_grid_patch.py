"""The grid patch on images: its size, its cells and its places."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from defender.attacks.control_patch import ControlPatch
from defender.attacks.grid_patch import GridPatch
from defender.boxes import box_mask
from defender.models import Normalised
from defender.patch_placing import CANDIDATES, cell_side, corners
from defender.patch_training import Patch
from tests import cases


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def nothing(images: torch.Tensor) -> torch.Tensor:
    raise AssertionError("the objective of an attacked image is not asked")


@pytest.mark.parametrize(
    ("grid", "size", "shape", "side"),
    [
        (10, 0.15, (224, 224), 30),  # 33.6 pixels wanted, cells of 3.36
        (4, 0.15, (32, 32), 4),  # 4.8
        (4, 0.25, (32, 32), 8),
        (10, 0.3, (50, 90), 10),  # the shorter side counts
        (10, 0.29, (1000, 1000), 290),  # 0.29 * 1000 is below 290 in binary
        (1, 0.15, (32, 32), 4),
        (3, 1.0, (10, 12), 9),
    ],
)
def test_paints_whole_cells(grid: int, size: float, shape: tuple[int, int], side: int) -> None:
    images, theta = some(2, 3, *shape), some(3, grid, grid, seed=1)
    painted, boxes = GridPatch(grid, size).apply(images, theta, seeds=cases.seeds(2))
    assert boxes[:, 2:].tolist() == [[side, side]] * 2
    cell = side // grid
    for image, before, (top, left, height, width) in zip(painted, images, boxes, strict=True):
        for row in range(grid):
            for column in range(grid):
                down, across = top + row * cell, left + column * cell
                square = image[:, down : down + cell, across : across + cell]
                assert square.shape == (3, cell, cell)
                assert torch.equal(square, theta[:, row, column, None, None].expand_as(square))
        outside = ~box_mask(torch.stack([top, left, height, width])[None], shape)[0, 0]
        assert torch.equal(image[:, outside], before[:, outside])
        assert outside.sum() == shape[0] * shape[1] - side * side


@pytest.mark.parametrize(
    ("grid", "size", "shape", "says"),
    [
        (10, 0.15, (32, 32), r"size: .*got 0\.15 with grid 10 .*32 x 32.* works is 0\.3125"),
        (10, 0.04, (224, 300), r"size: .*shorter side is 224.* works is 0\.0447"),
        (40, 1.0, (32, 50), r"size: .*grid 40.*at most 32 cells a side fit"),
    ],
)
def test_refuses_cells_below_a_pixel(
    grid: int, size: float, shape: tuple[int, int], says: str
) -> None:
    for attack in (GridPatch(grid, size), ControlPatch("noise", grid, size)):
        with pytest.raises(ValueError, match=f"(?s){says}"):
            attack.apply(some(1, 3, *shape), some(3, grid, grid), seeds=cases.seeds(1))


def test_the_smallest_size_that_is_named_works() -> None:
    for shorter in (32, 224, 299, 97):
        for grid in (3, 7, 10, 32):
            with pytest.raises(ValueError, match="works is") as refused:
                cell_side(0.5 * grid / shorter, grid, (shorter, shorter))
            named = float(str(refused.value).rsplit(" ", 1)[1])
            assert cell_side(named, grid, (shorter, shorter)) == 1


def test_places_are_uniform_and_keyed_by_image() -> None:
    seeds = torch.arange(9000)
    top, left = corners(torch.zeros(9000, 1, 12, 10), 8, "random", seeds)
    counts = torch.zeros(5, 3).index_put_((top, left), torch.ones(9000), accumulate=True)
    assert counts.min() > 600 - 5 * 24  # 24 is the deviation of 9000 draws at 1 / 15
    assert counts.max() < 600 + 5 * 24
    again = corners(torch.ones(3, 3, 12, 10), 8, "random", seeds[[5, 8999, 7]])
    assert torch.equal(again[0], top[[5, 8999, 7]])
    assert torch.equal(again[1], left[[5, 8999, 7]])


@pytest.mark.parametrize(
    ("place", "corner"),
    [
        ("centre", (2, 3)),
        ("upper-left", (0, 0)),
        ("upper-right", (0, 7)),
        ("lower-left", (5, 0)),
        ("lower-right", (5, 7)),
    ],
)
def test_fixed_places(place: str, corner: tuple[int, int]) -> None:
    attack = GridPatch(4, 0.5, place=place)
    boxes = attack.apply(some(3, 1, 9, 11), some(1, 4, 4), seeds=cases.seeds(3))[1]
    assert boxes.tolist() == [[*corner, 4, 4]] * 3


def blob_model() -> Normalised:
    """A classifier whose last stage is the brightness of the image, one channel."""
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.append(nn.Linear(1, 2))
    with torch.no_grad():
        for name, value in network.named_parameters():
            value.fill_(0.0 if name.endswith("bias") else 1.0)
        network[3].weight[1] = -1.0
    return Normalised(network, name="blob", digest="0" * 16).eval()


def test_keeps_off_the_object() -> None:
    images = torch.zeros(6, 1, 24, 24)
    images[:, :, 2:14, 2:14] = 1.0
    attack = GridPatch(2, 0.34, place="off-object", model=blob_model())
    boxes = attack.apply(images, some(1, 2, 2), seeds=cases.seeds(6))[1]
    covered = (box_mask(boxes, (24, 24)) & (images > 0)).sum(dim=(1, 2, 3))
    assert covered.tolist() == [0] * 6
    at_random = GridPatch(2, 0.34).apply(images, some(1, 2, 2), seeds=cases.seeds(6))[1]
    assert (box_mask(at_random, (24, 24)) & (images > 0)).sum() > 0
    alone = attack.apply(images[4:5], some(1, 2, 2), seeds=cases.seeds(6)[4:5])[1]
    assert torch.equal(alone[0], boxes[4])
    assert CANDIDATES > 1


def test_without_heat_the_random_place_is_kept() -> None:
    images = torch.zeros(4, 1, 24, 24)
    attack = GridPatch(2, 0.34, place="off-object", model=blob_model())
    boxes = attack.apply(images, some(1, 2, 2), seeds=cases.seeds(4))[1]
    random = dataclasses.replace(attack, place="random")
    assert torch.equal(boxes, random.apply(images, some(1, 2, 2), seeds=cases.seeds(4))[1])
    with pytest.raises(ValueError, match="model: expected a classifier for place='off-object'"):
        dataclasses.replace(attack, model=None).apply(images, some(1, 2, 2), seeds=cases.seeds(4))


def test_grey_images_take_the_mean_of_the_channels() -> None:
    theta = some(3, 4, 4)
    painted, boxes = GridPatch(4, 0.34).apply(some(2, 1, 12, 12), theta, seeds=cases.seeds(2))
    top, left = boxes[1, :2]
    expected = (theta[0] + theta[1] + theta[2]) / 3
    torch.testing.assert_close(painted[1, 0, top : top + 4, left : left + 4], expected)
    with pytest.raises(ValueError, match="images: expected 1 or 3 channels, got 4"):
        GridPatch(4, 0.34).apply(some(2, 4, 12, 12), theta, seeds=cases.seeds(2))


def test_attacks_with_what_was_fitted() -> None:
    theta, images = some(3, 4, 4), cases.images()
    attack = GridPatch(4, 0.34)
    assert attack.must_fit
    with pytest.raises(ValueError, match="perturbation: expected a fitted one, got GridPatch"):
        attack(images, nothing, seeds=cases.seeds())
    fitted = dataclasses.replace(attack, perturbation=Patch(theta))
    assert not fitted.must_fit
    expected = attack.apply(images, theta, seeds=cases.seeds())[0]
    assert torch.equal(fitted(images, nothing, seeds=cases.seeds()), expected)
    assert repr(fitted.perturbation) == f"patch@{Patch(theta).digest[:12]}"


def test_what_is_no_theta_is_refused() -> None:
    with pytest.raises(ValueError, match=r"perturbation: expected \(c, 10, 10\), got \(3, 4, 4\)"):
        GridPatch(perturbation=Patch(some(3, 4, 4)))
    with pytest.raises(ValueError, match=r"values: expected values in \[0, 1\], got \[0, 1\.5\]"):
        Patch(torch.tensor([0.0, 1.5, 0.0, 0.0]).view(1, 2, 2))
    with pytest.raises(ValueError, match=r"values: expected \(c, 3, 3\), got \(1, 2, 3\)"):
        Patch(torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match=r"theta: expected \(c, 2, 2\), got \(2, 2\)"):
        GridPatch(2).apply(cases.images(), torch.zeros(2, 2), seeds=cases.seeds())


def test_the_fitting_is_named_by_what_it_depends_on() -> None:
    attack = GridPatch(4, 0.25)
    same = [
        dataclasses.replace(attack, place="centre"),
        dataclasses.replace(attack, perturbation=Patch(some(3, 4, 4))),
        dataclasses.replace(attack, size=0.5, fit_size=0.25),
        dataclasses.replace(attack, model=cases.MODEL),
    ]
    assert {one.fitting for one in same} == {attack.fitting}
    others = [
        *({"grid": 5}, {"size": 0.3}, {"target": 1}, {"epochs": 3}, {"step_size": 0.2}),
        *(
            {"optimizer": "sign"},
            {"start": "zero"},
            {"starts": 2},
            {"total_variation": 0.1},
            {"printable": 0.1},
        ),
        *({"brightness": 0.1}, {"contrast": 0.1}, {"rotation": 5.0}, {"scale": 0.1}),
        *({"perspective": 0.1}, {"blur": 0.5}, {"noise": 0.1}, {"fit_size": 0.4}),
    ]
    changed = {field for one in others for field in one}
    fields = {field.name for field in dataclasses.fields(attack)}
    assert fields - changed == {"place", "perturbation", "model"}
    names = {dataclasses.replace(attack, **one).fitting for one in others}
    assert len(names | {attack.fitting}) == len(others) + 1


def test_controls_lie_where_the_patch_lies() -> None:
    images, theta = some(4, 3, 20, 26), some(3, 4, 4)
    for place in ("random", "centre", "lower-left"):
        boxes = GridPatch(4, 0.45, place=place).apply(images, theta, seeds=cases.seeds(4))[1]
        for kind in ("random", "mean", "noise"):
            control = ControlPatch(kind, 4, 0.45, place)
            painted, own = control.apply(images, theta, seeds=cases.seeds(4))
            assert torch.equal(own, boxes)
            inside = box_mask(boxes, (20, 26)).expand_as(images)
            assert torch.equal(painted[~inside], images[~inside])
            assert (painted[inside] != images[inside]).float().mean() > 0.99


def test_controls_have_the_colours_that_they_say() -> None:
    images, theta = torch.full((300, 3, 8, 8), 2.0), some(3, 4, 4)
    squares = {}
    for kind in ("random", "mean", "noise"):
        control = ControlPatch(kind, 4, 1.0)
        squares[kind] = control.apply(images, theta, seeds=cases.seeds(300))[0]
    cells = squares["random"].reshape(300, 3, 4, 2, 4, 2).transpose(3, 4).flatten(4)
    assert torch.equal(cells.amin(dim=4), cells.amax(dim=4))
    assert len(cells[..., 0].unique()) > 14000  # of 300 x 3 x 16 colours, few meet by chance
    assert squares["noise"].unique().numel() > 57000  # of 300 x 3 x 64
    for kind in ("random", "noise"):
        assert squares[kind].mean().item() == pytest.approx(0.5, abs=0.01)
        assert squares[kind].var().item() == pytest.approx(1 / 12, abs=0.005)
    colour = theta.double().mean(dim=(1, 2)).float()
    torch.testing.assert_close(
        squares["mean"], colour.view(1, 3, 1, 1).expand(300, 3, 8, 8), rtol=0, atol=1e-6
    )


def test_the_mean_colour_alone_must_be_fitted() -> None:
    theta = some(3, 10, 10)
    mean, images = ControlPatch("mean", grid=4, size=0.5), cases.images(1, channels=1)
    assert mean.must_fit
    assert not ControlPatch("random").must_fit
    assert not ControlPatch("noise").must_fit
    with pytest.raises(ValueError, match="perturbation: expected a fitted one"):
        mean(images, nothing, seeds=cases.seeds(1))
    fitted = dataclasses.replace(mean, perturbation=Patch(theta), place="upper-left")
    painted = fitted(images, nothing, seeds=cases.seeds(1))
    assert painted[0, 0, 0, 0].item() == pytest.approx(theta.mean().item(), abs=1e-6)
