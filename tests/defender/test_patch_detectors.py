from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from defender.boxes import bounding_boxes, box_iou
from defender.detectors import CamEnergy, MaskEntropy, PatchEnergy
from defender.detectors.cam_energy import best_window
from defender.detectors.patch_lattice import integral_image
from defender.models import Normalised
from defender.norms import from_uint8
from defender.purifiers import JPEG
from tests.defender.photographs import photographs

NONE = torch.zeros(0, dtype=torch.int64)


def smooth(channels: int = 3, size: tuple[int, int] = (80, 96)) -> Tensor:
    """One image that rises to the right and falls to the bottom, on the 8-bit grid."""
    across = torch.linspace(0.3, 0.8, size[1])
    down = torch.linspace(0.1, -0.1, size[0])
    return ((across + down[:, None]) * 255).round().div(255).expand(1, channels, *size).clone()


def chequers(cells: int, low: float = 0.0, high: float = 1.0, channels: int = 3) -> Tensor:
    """Cells that differ from all their neighbours, (channels, cells, cells)."""
    place = torch.arange(cells)
    odd = (place[:, None] + place) % 2
    return (low + (high - low) * odd).expand(channels, -1, -1)


def pasted(image: Tensor, theta: Tensor, cell: int, top: int, left: int) -> tuple[Tensor, Tensor]:
    """An image (1, c, h, w) with a patch, and its box (1, 4)."""
    square = theta.repeat_interleave(cell, 1).repeat_interleave(cell, 2)
    side = square.shape[1]
    image = image.clone()
    image[0, :, top : top + side, left : left + side] = square
    return image, torch.tensor([[top, left, side, side]])


def random_theta(cells: int, channels: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(0, 256, (channels, cells, cells), generator=generator)
    return levels / 255


def boxes(detector: PatchEnergy, images: Tensor) -> Tensor:
    where = detector.map(images, seeds=NONE)
    assert where is not None
    assert where.shape == images.shape
    return bounding_boxes(where)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("cells", "cell", "top", "left"),
    [(4, 2, 0, 0), (4, 5, 60, 76), (7, 3, 13, 50), (9, 2, 41, 7), (10, 2, 5, 76), (12, 2, 30, 31)],
)
def test_finds_the_pasted_square_to_the_pixel(
    channels: int, cells: int, cell: int, top: int, left: int
) -> None:
    theta = random_theta(cells, channels)
    image, box = pasted(smooth(channels), theta, cell, top, left)
    assert torch.equal(boxes(PatchEnergy(), image), box)


def test_score_of_chequers_is_that_of_the_formula() -> None:
    image, box = pasted(torch.full((1, 1, 70, 70), 0.5), chequers(8, channels=1), 3, 20, 31)
    detector = PatchEnergy(largest=0.4, least_step=0.3)
    # every pair across the 7 inner lines of either direction counts as 1, none inside cells
    pairs = 2 * 7 * 24
    assert detector(image, seeds=NONE).item() == pytest.approx(0.7 * math.sqrt(pairs), rel=1e-5)
    assert torch.equal(boxes(detector, image), box)


def test_differences_inside_cells_are_taken_off() -> None:
    plain, _ = pasted(torch.full((1, 1, 70, 70), 0.5), chequers(8, 0.2, 0.8, 1), 3, 20, 31)
    rippled = plain.clone()
    # the middle column of every cell is 4 of the 16 levels brighter: both pairs of each row of a
    # cell that lie inside it differ by 1/4, across lines nothing changes
    rippled[:, :, :, 2::3] += 4 / 255
    score = [PatchEnergy(largest=0.35)(image, seeds=NONE).item() for image in (plain, rippled)]
    pairs = 2 * 7 * 24
    inside = 8 * 24 * 2 * 0.25
    assert score[0] == pytest.approx(0.8 * math.sqrt(pairs), rel=1e-5)
    taken = 2 / math.sqrt(pairs) * 1.2 / 2 * inside
    assert score[1] == pytest.approx(score[0] - taken, rel=1e-4)


def test_flat_images_and_images_without_room_score_alike() -> None:
    detector = PatchEnergy(least_step=0.2)
    flat = -0.2 * math.sqrt(2 * 3 * 4 * 2)
    for size in ((80, 80), (20, 30), (1, 1)):
        image = torch.full((2, 3, *size), 0.25)
        score = detector(image, seeds=NONE)
        assert score.tolist() == pytest.approx([flat, flat], rel=1e-5)
        assert not boxes(detector, image).any()


def test_an_image_that_the_patch_fills_is_searched_when_allowed() -> None:
    theta = random_theta(6)
    image = theta.repeat_interleave(3, 1).repeat_interleave(3, 2)[None]
    assert not boxes(PatchEnergy(), image).any()
    assert torch.equal(boxes(PatchEnergy(largest=1.0), image), torch.tensor([[0, 0, 18, 18]]))


def test_stripes_are_no_grid() -> None:
    stripes = chequers(24)[:, :1].repeat_interleave(3, 2).expand(3, 72, 72)
    assert PatchEnergy(largest=0.35)(stripes[None], seeds=NONE).item() < 0


def test_colours_of_one_luma_are_found() -> None:
    # red 114 levels and green 58 levels have the luma of black plus 34.1
    theta = torch.zeros(3, 8, 8)
    odd = chequers(8)[0] > 0
    theta[0], theta[1] = odd * 114 / 255, ~odd * 58 / 255
    image, box = pasted(smooth(), theta, 3, 11, 13)
    assert torch.equal(boxes(PatchEnergy(), image), box)


@pytest.mark.parametrize("cells", [7, 9, 11])
def test_weak_patches_are_kept_whole(cells: int) -> None:
    image, box = pasted(smooth(), chequers(cells, 0.4, 0.4 + 6 / 255), 2, 20, 40)
    detector = PatchEnergy()
    assert detector(image, seeds=NONE).item() > 1
    assert torch.equal(boxes(detector, image), box)


def test_a_transposed_image_has_the_transposed_square() -> None:
    image, box = pasted(smooth(), random_theta(7), 3, 13, 50)
    detector = PatchEnergy()
    turned = image.mT.contiguous()
    assert detector(turned, seeds=NONE).item() == pytest.approx(
        detector(image, seeds=NONE).item(), rel=1e-5
    )
    assert torch.equal(boxes(detector, turned), box[:, [1, 0, 3, 2]])


def test_an_image_does_not_depend_on_its_batch() -> None:
    images = torch.cat(
        [pasted(smooth(), random_theta(5, seed=i), 3, 4 * i, 7 * i)[0] for i in range(5)]
    )
    detector = PatchEnergy()
    together = detector(images, seeds=NONE)
    alone = torch.cat([detector(image[None], seeds=NONE) for image in images])
    assert torch.equal(together, alone)
    assert together.dtype == torch.float64
    assert detector(images[:0], seeds=NONE).shape == (0,)
    assert boxes(detector, images[:0]).shape == (0, 4)


def test_photographs_are_clean_and_patches_on_them_are_found_also_in_jpeg_files() -> None:
    clean = photographs((128, 128))
    detector = PatchEnergy()
    assert (detector(clean, seeds=NONE) < 0).all()
    attacked, expected = zip(
        *(pasted(image[None], random_theta(8), 3, 40, 61) for image in clean), strict=True
    )
    images = torch.cat(attacked)
    assert torch.equal(boxes(detector, images), torch.cat(expected))
    compressed = JPEG(90)(images, seeds=NONE)
    assert (box_iou(boxes(detector, compressed), torch.cat(expected)) > 0.8).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"contrast": 0.0}, "contrast: expected"),
        ({"largest": 1.5}, "largest: expected"),
        ({"smallest": 0.5}, "largest: expected >= smallest 0.5, got 0.3"),
    ],
)
def test_energy_refuses_what_it_cannot_use(parameters: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PatchEnergy(**parameters)


def test_integral_image_sums_what_is_above_and_left() -> None:
    values = torch.arange(12.0).view(1, 3, 4)
    table = integral_image(values)
    assert table.shape == (1, 4, 5)
    assert not table[:, 0].any()
    assert table[0, 2, 3] == values[0, :2, :3].sum()
    assert table[0, 3, 4] == values.sum()


def test_best_window_is_that_of_trying_all() -> None:
    heat = torch.rand(4, 9, 11, generator=torch.Generator().manual_seed(2))
    heat[3] = 0
    shares, windows = best_window(heat, 3)
    for image, share, window in zip(heat, shares, windows.tolist(), strict=True):
        tried = {
            (top, left): image[top : top + 3, left : left + 3].sum().item()
            for top in range(7)
            for left in range(9)
        }
        best = max(tried.values())
        assert tried[window[0], window[1]] == pytest.approx(best)
        assert window[2:] == [3, 3]
        assert share.item() == pytest.approx(best / max(image.sum().item(), 1e-9), abs=1e-6)


class Brightness(nn.Module):
    """Two classes: the mean of the features, which are what exceeds 1/2, and minus that."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 1, 1)
        nn.init.ones_(self.features.weight)
        nn.init.constant_(self.features.bias, -0.5)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        mean = torch.relu(self.features(x)).mean(dim=(1, 2, 3))
        return torch.stack([mean, -mean], dim=1)


class Peak(nn.Module):
    """Class 1 where the brightest value exceeds 0.9, else class 0."""

    def forward(self, x: Tensor) -> Tensor:
        peak = x.amax(dim=(1, 2, 3))
        return torch.stack([torch.full_like(peak, 0.9), peak], dim=1)


def of(network: nn.Module) -> Normalised:
    return Normalised(network, (0.0,), (1.0,), name="toy", digest="0").eval().requires_grad_(False)


def test_cam_energy_sees_the_square_that_the_model_looks_at() -> None:
    images = torch.full((2, 1, 20, 20), 0.25)
    images[0, :, 6:10, 11:15] = 1.0
    images[1] = 0.75
    detector = CamEnergy(of(Brightness()))
    # a window of 4 x 4 pixels: the square itself; of an even map 16 of 400 pixels
    assert detector(images, seeds=NONE).tolist() == pytest.approx([1.0, 16 / 400])
    where = detector.map(images, seeds=NONE)
    assert where is not None
    assert bounding_boxes(where)[0].tolist() == [6, 11, 4, 4]
    picky = CamEnergy(of(Brightness()), threshold=0.5).map(images, seeds=NONE)
    assert picky is not None
    assert picky.flatten(1).sum(dim=1).tolist() == [16, 0]


@pytest.mark.parametrize("score", ["entropy", "changed"])
def test_mask_entropy_is_that_of_the_masks_that_hide_the_patch(score: str) -> None:
    images = torch.full((3, 3, 24, 24), 0.25)
    images[0, :, 1:3, 1:3] = 1.0
    images[1, :, 0, 0] = images[1, :, 23, 23] = 1.0
    detector = MaskEntropy(of(Peak()), patch=0.125, masks=3, score=score, fill=0.5)
    # p = 3, s = ceil(22 / 3) = 8: masks of 10 pixels at 0, 8 and 14; only the first hides the first
    # patch, and no mask hides both marks of the second image
    share = 1 / 9
    entropy = -(share * math.log(share) + (1 - share) * math.log(1 - share))
    expected = share if score == "changed" else entropy
    assert detector(images, seeds=NONE).tolist() == pytest.approx([expected, 0.0, 0.0], abs=1e-9)
    where = detector.map(images, seeds=NONE)
    assert where is not None
    assert bounding_boxes(where).tolist() == [[0, 0, 10, 10], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert where[0].sum() == 3 * 100


def pictures(name: str, prefix: str, mode: str) -> Iterator[Tensor]:
    """Every fifth picture of an archive at 224 x 224, uint8 (c, h, w)."""
    beside = Path(__file__).resolve().parents[2].parent / "shared/data"
    path = Path(os.environ.get("IMAGE_DEFENDER_DATA") or beside) / name
    if not path.exists():
        pytest.skip(f"no real data at {path}")
    with zipfile.ZipFile(path) as archive:
        files = [file for file in archive.namelist() if prefix in file]
        names = sorted(file for file in files if file.lower().endswith((".jpg", ".jpeg")))
        for file in names[:: len(names) // 100][:100]:
            with Image.open(io.BytesIO(archive.read(file))) as opened:
                picture = opened.convert(mode).resize((224, 224), Image.Resampling.BILINEAR)
            pixels = torch.from_numpy(np.array(picture)).view(224, 224, -1)
            yield pixels.permute(2, 0, 1)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "prefix", "mode"),
    [("imagenet_samples.zip", "", "RGB"), ("chest_xray.zip", "/test/", "L")],
)
def test_nine_patches_of_ten_are_found_at_one_false_alarm_in_a_hundred(
    name: str, prefix: str, mode: str
) -> None:
    clean = from_uint8(torch.stack(list(pictures(name, prefix, mode))))
    detector = PatchEnergy()
    assert len(clean) == 100
    alarms = boxes(detector, clean)[:, 2] > 0
    assert alarms.sum() <= 1
    generator = np.random.default_rng(3)
    for contrast in (1.0, 0.2):
        found = []
        for i, image in enumerate(clean):
            cells, size = int(generator.integers(4, 11)), generator.uniform(0.1, 0.25)
            cell = int(size * 224 / cells)
            top, left = (int(generator.integers(0, 225 - cells * cell)) for _ in range(2))
            theta = 0.5 + contrast * (random_theta(cells, clean.shape[1], seed=i) - 0.5)
            theta = (theta * 255).round() / 255
            attacked, box = pasted(image[None], theta, cell, top, left)
            found.append(box_iou(boxes(detector, attacked), box) >= 0.5)
        assert torch.cat(found).sum() >= 95
