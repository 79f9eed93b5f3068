"""The Haar transform against values by hand and against its matrix."""

from __future__ import annotations

import math

import pytest
import torch

from defender.wavelets import dwt, halved, idwt

SIZES = [(8, 8), (12, 20), (7, 7), (9, 4), (1, 5), (2, 1), (1, 1), (299, 299)]


def haar_matrix(side: int) -> torch.Tensor:
    """The orthonormal Haar matrix of an even side: sums in the upper half, differences below."""
    matrix = torch.zeros(side, side, dtype=torch.float64)
    for i in range(side // 2):
        matrix[i, 2 * i] = matrix[i, 2 * i + 1] = math.sqrt(0.5)
        matrix[side // 2 + i, 2 * i] = math.sqrt(0.5)
        matrix[side // 2 + i, 2 * i + 1] = -math.sqrt(0.5)
    return matrix


def some(size: tuple[int, int], channels: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(size))
    return torch.rand(3, channels, *size, generator=generator)


def test_a_block_by_hand() -> None:
    block = torch.tensor([[[[1.0, 2.0], [3.0, 8.0]]]])
    low, (details,) = dwt(block)
    assert low.tolist() == [[[[7.0]]]]
    assert details.flatten().tolist() == [-3.0, -4.0, 2.0]


def test_two_levels_by_hand() -> None:
    image = torch.arange(16.0).view(1, 1, 4, 4)
    low, details = dwt(image, levels=2)
    assert low.flatten().tolist() == [30.0]
    assert [tuple(level.shape) for level in details] == [(1, 1, 3, 2, 2), (1, 1, 3, 1, 1)]
    assert details[0][0, 0, 0].unique().tolist() == [-1.0]
    assert details[0][0, 0, 1].unique().tolist() == [-4.0]
    assert details[0][0, 0, 2].unique().tolist() == [0.0]
    assert details[1].flatten().tolist() == [-4.0, -16.0, 0.0]


def test_agrees_with_the_matrix_on_both_sides() -> None:
    images = some((8, 12)).double()
    low, (details,) = dwt(images)
    both = haar_matrix(8) @ images @ haar_matrix(12).T
    torch.testing.assert_close(low, both[:, :, :4, :6])
    torch.testing.assert_close(details[:, :, 0], both[:, :, :4, 6:])
    torch.testing.assert_close(details[:, :, 1], both[:, :, 4:, :6])
    torch.testing.assert_close(details[:, :, 2], both[:, :, 4:, 6:])


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("levels", [0, 1, 3])
def test_the_inverse_gives_the_images_back(size: tuple[int, int], levels: int) -> None:
    images = some(size)
    low, details = dwt(images, levels)
    assert len(details) == levels
    torch.testing.assert_close(idwt(low, details, size), images, rtol=0, atol=1e-6)


def test_the_length_is_kept_where_the_sides_are_even() -> None:
    images = some((16, 24)).double()
    low, details = dwt(images, levels=3)
    energy = low.square().sum() + sum(level.square().sum() for level in details)
    assert energy.item() == pytest.approx(images.square().sum().item(), rel=1e-12)


def test_an_odd_side_is_completed_by_its_last_row_and_column() -> None:
    images = some((5, 7))
    low, (details,) = dwt(images)
    assert low.shape[2:] == halved((5, 7)) == (3, 4)
    completed = torch.cat([images, images[:, :, -1:]], dim=2)
    completed = torch.cat([completed, completed[..., -1:]], dim=3)
    torch.testing.assert_close(low, dwt(completed)[0])
    assert details[:, :, 0, :, -1].abs().max() == 0
    assert details[:, :, 1, -1].abs().max() == 0


def test_a_constant_image_has_no_details() -> None:
    low, details = dwt(torch.full((1, 1, 13, 9), 0.25), levels=2)
    assert (low == 1.0).all()
    assert all(level.abs().max() == 0 for level in details)


def test_the_transpose_of_the_transform_is_its_inverse() -> None:
    images = some((8, 8)).double().requires_grad_()
    low, details = dwt(images, levels=2)
    weights = [torch.rand_like(band) for band in (low, *details)]
    total = sum((band * w).sum() for band, w in zip((low, *details), weights, strict=True))
    (gradient,) = torch.autograd.grad(total, images)
    torch.testing.assert_close(gradient, idwt(weights[0], weights[1:], (8, 8)))


def test_shapes_that_do_not_belong_together_are_named() -> None:
    low, details = dwt(some((8, 8)), levels=2)
    with pytest.raises(ValueError, match="low: expected"):
        idwt(low, details, (10, 10))
    with pytest.raises(ValueError, match=r"details\[0\]: expected"):
        idwt(low, [details[0][:, :, :2], details[1]], (8, 8))
    with pytest.raises(ValueError, match="levels: expected >= 0, got -1"):
        dwt(some((8, 8)), levels=-1)
    with pytest.raises(ValueError, match="images: expected"):
        dwt(torch.zeros(8, 8))
