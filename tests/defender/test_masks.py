"""Precision and recall of masks, and the mask of the largest changes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from defender.metrics import mask_precision, mask_recall, top_mask


def masks() -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
    truth = torch.tensor([[1, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
    return mask.view(3, 1, 2, 2), truth.view(3, 1, 2, 2)


def test_precision_and_recall() -> None:
    mask, truth = masks()
    expected = torch.tensor([0.5, torch.nan, 0.0], dtype=torch.float64)
    assert torch.equal(mask_precision(mask, truth).nan_to_num(-1), expected.nan_to_num(-1))
    expected = torch.tensor([0.5, 0.0, torch.nan], dtype=torch.float64)
    assert torch.equal(mask_recall(mask, truth).nan_to_num(-1), expected.nan_to_num(-1))


def test_recall_is_precision_the_other_way_round() -> None:
    mask, truth = masks()
    swapped = mask_precision(truth, mask).nan_to_num(-1)
    assert torch.equal(mask_recall(mask, truth).nan_to_num(-1), swapped)


def test_masks_must_be_masks_of_one_shape() -> None:
    mask, truth = masks()
    with pytest.raises(ValueError, match="expected two bool masks"):
        mask_precision(mask, truth.float())
    with pytest.raises(ValueError, match="expected two bool masks"):
        mask_recall(mask, truth[:2])


@given(seed=st.integers(0, 2**31), count=st.integers(0, 12))
@settings(max_examples=30, deadline=None)
def test_top_mask_holds_the_largest_changes(seed: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    difference = torch.randint(-3, 4, (4, 3, 2, 2), generator=generator) / 255
    chosen = top_mask(difference, count)
    assert (chosen.flatten(1).sum(1) == count).all()
    inside = difference.abs().masked_fill(~chosen, 1).flatten(1).amin(1)
    outside = difference.abs().masked_fill(chosen, 0).flatten(1).amax(1)
    assert (inside >= outside).all()


def test_top_mask_takes_a_count_an_image() -> None:
    difference = torch.tensor([[0.1, -0.3, 0.2], [0.0, 0.0, 0.0]])
    chosen = top_mask(difference, torch.tensor([2, 1]))
    assert chosen.tolist() == [[False, True, True], [True, False, False]]
    with pytest.raises(ValueError, match="count: expected 1 or 2"):
        top_mask(difference, torch.tensor([1, 2, 3]))
