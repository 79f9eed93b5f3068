from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import spsolve
from torch import Tensor

from defender.detectors import GradientMask, HistogramCosine, PatchEnergy
from defender.purifiers import MaskInpaint
from defender.purifiers.inpainting import dilated, fill_diffusion, fill_mean, fill_telea
from tests import cases
from tests.defender.photographs import photographs

NONE = torch.zeros(0, dtype=torch.int64)
FILLS = ["mean", "diffusion", "telea"]


def box(top: int, left: int, height: int, width: int, size: tuple[int, int]) -> Tensor:
    mask = torch.zeros(1, 1, *size, dtype=torch.bool)
    mask[..., top : top + height, left : left + width] = True
    return mask


def patched(images: Tensor, cells: int = 6, cell: int = 3) -> tuple[Tensor, Tensor]:
    """Images with random squares at places of their own, and where they are."""
    images, where = images.clone(), torch.zeros_like(images, dtype=torch.bool)
    generator = torch.Generator().manual_seed(5)
    side = cells * cell
    for i, image in enumerate(images):
        levels = torch.randint(0, 256, (images.shape[1], cells, cells), generator=generator)
        square = (levels / 255).repeat_interleave(cell, 1).repeat_interleave(cell, 2)
        top, left = 11 + 9 * i, 40 - 13 * i
        image[:, top : top + side, left : left + side] = square
        where[i, :, top : top + side, left : left + side] = True
    return images, where


def test_dilation_grows_in_all_directions_up_to_the_border() -> None:
    assert torch.equal(dilated(box(0, 3, 2, 2, (8, 9)), 2), box(0, 1, 4, 6, (8, 9)))
    assert torch.equal(dilated(box(2, 3, 2, 2, (8, 9)), 0), box(2, 3, 2, 2, (8, 9)))


def test_mean_is_that_of_the_pixels_around() -> None:
    image = torch.zeros(1, 2, 6, 7)
    # the hole touches the left border, so that 2 + 2 * 3 - 2 + ... pixels surround it: 8 of them
    mask = box(2, 0, 2, 2, (6, 7))
    image[0, 0, 1, :3] = 0.8
    image[0, 1] = 0.3
    filled = fill_mean(image, mask)
    assert torch.allclose(filled[0, 0, 2:4, :2], torch.tensor(3 * 0.8 / 8))
    assert torch.allclose(filled[0, 1], torch.tensor(0.3))
    assert torch.equal(filled.masked_fill(mask, 0), image.masked_fill(mask, 0))


def test_diffusion_continues_what_is_linear() -> None:
    rows, columns = torch.arange(16.0)[:, None], torch.arange(20.0)
    plane = (0.1 + 0.02 * rows + 0.01 * columns).expand(1, 1, 16, 20)
    mask = box(4, 5, 8, 11, (16, 20))
    assert torch.allclose(fill_diffusion(plane.masked_fill(mask, 0), mask), plane, atol=1e-5)
    # nothing flows through the border of the image: what does not change towards it goes on
    across = (0.1 + 0.04 * columns).expand(1, 1, 16, 20)
    mask = box(0, 5, 9, 11, (16, 20))
    assert torch.allclose(fill_diffusion(across.masked_fill(mask, 0), mask), across, atol=1e-5)


def test_diffusion_solves_laplaces_equation() -> None:
    generator = torch.Generator().manual_seed(7)
    image = torch.rand(1, 1, 9, 10, generator=generator)
    # a hole of any form: two parts, one of them in a corner
    mask = box(0, 0, 3, 4, (9, 10)) | box(4, 5, 4, 3, (9, 10)) | box(5, 3, 1, 3, (9, 10))
    height, width = 9, 10
    places = np.arange(90).reshape(height, width)
    rows, columns, values, known = [], [], [], np.zeros(90)
    for y in range(height):
        for x in range(width):
            if not mask[0, 0, y, x]:
                rows, columns, values = (
                    [*rows, places[y, x]],
                    [*columns, places[y, x]],
                    [*values, 1.0],
                )
                known[places[y, x]] = image[0, 0, y, x].item()
                continue
            for a, b in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= a < height and 0 <= b < width:
                    rows += [places[y, x]] * 2
                    columns += [places[y, x], places[a, b]]
                    values += [1.0, -1.0]
    exact = spsolve(coo_matrix((values, (rows, columns))).tocsr(), known).reshape(height, width)
    filled = fill_diffusion(image, mask)[0, 0].numpy()
    assert np.abs(filled - exact).max() < 1e-4


def test_everything_hidden_is_grey() -> None:
    images = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 1, 6, 6, dtype=torch.bool)
    mask[1] = False
    for fill in (fill_mean, fill_diffusion, lambda x, m: fill_telea(x, m, 3.0)):
        filled = fill(images, mask)
        assert torch.equal(filled[0], torch.full((3, 6, 6), 0.5))
        assert torch.equal(filled[1], images[1])


@pytest.mark.skipif(importlib.util.find_spec("cv2") is None, reason="no OpenCV")
def test_telea_is_opencvs_in_the_hole_only() -> None:
    import cv2

    image = photographs()[:1]
    mask = box(10, 12, 9, 7, (48, 56))
    filled = fill_telea(image, mask, 4.0)
    assert torch.equal(filled.masked_fill(mask, 0), image.masked_fill(mask, 0))
    pixels = (image[0, 1] * 255).round().to(torch.uint8).numpy()
    made = cv2.inpaint(pixels, mask[0, 0].to(torch.uint8).numpy(), 4.0, cv2.INPAINT_TELEA)
    inside = mask[0, 0].numpy()
    assert np.array_equal((filled[0, 1] * 255).round().numpy()[inside], made[inside])


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("channels", [1, 3])
def test_takes_the_patch_out_and_nothing_else(fill: str, channels: int) -> None:
    clean = photographs((96, 96), channels)
    images, where = patched(clean)
    parts = MaskInpaint(fill)(images, seeds=NONE), MaskInpaint(fill).parts(images, seeds=NONE)
    purified, mask = parts[0], parts[1]["mask"]
    assert torch.equal(purified, parts[1]["purified"])
    assert torch.equal(mask, dilated(where, 1))
    assert torch.equal(purified[~mask], images[~mask])
    assert torch.equal(parts[1]["replacement"], purified * mask)
    left = (purified - clean).square().mean(dim=(1, 2, 3))
    assert (left < 0.45 * (images - clean).square().mean(dim=(1, 2, 3))).all()


@pytest.mark.parametrize("fill", FILLS)
def test_images_without_a_patch_stay_to_the_bit(fill: str) -> None:
    clean = photographs((96, 96)) * 0.999 + 1e-7
    mixed, _ = patched(clean)
    mixed[1] = clean[1]
    purified = MaskInpaint(fill)(mixed, seeds=NONE)
    assert torch.equal(purified[1], clean[1])
    assert not torch.equal(purified[0], mixed[0])
    small = clean[:, :, :7, :5]
    assert torch.equal(MaskInpaint(fill)(small, seeds=NONE), small)


@pytest.mark.parametrize("fill", FILLS)
def test_an_image_does_not_depend_on_its_batch(fill: str) -> None:
    images, _ = patched(photographs((96, 96)))
    together = MaskInpaint(fill)(images, seeds=NONE)
    alone = [MaskInpaint(fill)(image[None], seeds=NONE) for image in images]
    assert torch.equal(together, torch.cat(alone))


def test_threshold_and_dilation_are_those_that_were_asked_for() -> None:
    images, where = patched(photographs((96, 96)))
    assert torch.equal(MaskInpaint(threshold=1000.0)(images, seeds=NONE), images)
    wide = MaskInpaint(dilation=4).parts(images, seeds=NONE)["mask"]
    assert torch.equal(wide, dilated(where, 4))


def test_another_detector_says_where() -> None:
    images, _ = patched(photographs((96, 96)))
    blind = MaskInpaint(detector=PatchEnergy(smallest=0.29, largest=0.3, threshold=100.0))
    assert torch.equal(blind(images, seeds=NONE), images)
    assert blind.knowledge == "blind"
    small = MaskInpaint(detector=GradientMask(cases.MODEL))
    assert small.knowledge == "model"
    parts = small.parts(cases.images(), seeds=cases.seeds())
    where = GradientMask(cases.MODEL).map(cases.images(), seeds=cases.seeds())
    assert where is not None
    assert torch.equal(parts["mask"], dilated(where.any(1, keepdim=True), 1).expand_as(where))


def test_refuses_what_cannot_say_where() -> None:
    detector = HistogramCosine(cases.PIPELINE)
    with pytest.raises(ValueError, match="detector: expected one that says where"):
        MaskInpaint(detector=detector)(cases.images(), seeds=cases.seeds())
    with pytest.raises(TypeError, match="detector: expected a detector"):
        MaskInpaint(detector=PatchEnergy)
    with pytest.raises(ValueError, match="fill: expected"):
        MaskInpaint("median")
