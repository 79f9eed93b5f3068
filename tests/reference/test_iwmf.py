"""The iterative window mean filter against plain loops over its windows, from its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from defender import iwmf_means, iwmf_waves

FRACTION = 0.4


def centres(keys: Tensor, side: int, window: int) -> list[list[tuple[int, int]]]:
    """The windows (r, c) of square images, int(fraction H W) each."""
    count = int(FRACTION * side * side)
    corners = iwmf_means.draw(keys, count, (side, side), window)
    reach = window // 2
    return [
        [(corner // side + reach, corner % side + reach) for corner in sequence]
        for sequence in corners.tolist()
    ]


def sequential(image: np.ndarray, places: list[tuple[int, int]], window: int) -> np.ndarray:
    """float32 (c, h, w): sums row by row, one value after the other, and a division."""
    image = image.copy()
    low, high = math.floor(window / 2), math.ceil(window / 2)
    for r, c in places:
        block = image[:, r - low : r + high, c - low : c + high]
        assert block.shape[1:] == (window, window)
        sums = np.add.accumulate(block.reshape(len(image), -1), axis=1, dtype=np.float32)[:, -1]
        block[:] = (sums / np.float32(window**2))[:, None, None]
    return image


def naive(images: Tensor, places: list[tuple[int, int]], window: int) -> Tensor:
    """As anybody would write it in torch."""
    images = images.clone()
    low, high = math.floor(window / 2), math.ceil(window / 2)
    for r, c in places:
        block = images[..., r - low : r + high, c - low : c + high]
        images[..., r - low : r + high, c - low : c + high] = block.mean(dim=(-1, -2), keepdim=True)
    return images


@pytest.mark.parametrize("window", [2, 3, 4, 5])
@pytest.mark.parametrize("side", [32, 112, 224])
def test_every_way_gives_what_the_definition_gives(side: int, window: int) -> None:
    generator = torch.Generator().manual_seed(side + window)
    images = torch.rand(1, 3, side, side, generator=generator)
    keys = torch.tensor([side * window])
    (places,) = centres(keys, side, window)
    corners = iwmf_means.draw(keys, len(places), (side, side), window)
    made = iwmf_means.replaced(images, corners, window)
    expected = torch.from_numpy(sequential(images[0].numpy(), places, window))
    assert torch.equal(made[0], expected)
    assert torch.equal(iwmf_waves.replaced(images, corners, window), made)
    assert (made - naive(images, places, window)).abs().max() <= 1e-6


@pytest.mark.parametrize("sequences", [1, 3])
def test_images_of_a_batch_are_filtered_by_their_own_or_by_one_sequence(sequences: int) -> None:
    images = torch.rand(3, 2, 17, 17, generator=torch.Generator().manual_seed(5))
    keys = torch.tensor([5, -7, 11])[:sequences]
    places = centres(keys, 17, 3)
    corners = iwmf_means.draw(keys, len(places[0]), (17, 17), 3)
    made = iwmf_means.replaced(images, corners, 3)
    for number, image in enumerate(images.numpy()):
        own = places[number % sequences]
        assert torch.equal(made[number], torch.from_numpy(sequential(image, own, 3)))
    assert torch.equal(iwmf_waves.replaced(images, corners, 3), made)
