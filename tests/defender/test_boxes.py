"""Rectangles: what they cover, what surrounds a mask, what two share."""

from __future__ import annotations

import torch

from defender.boxes import bounding_boxes, box_iou, box_mask

BOXES = torch.tensor([[1, 2, 2, 3], [0, 0, 4, 6], [3, 5, 1, 1], [0, 0, 0, 0]])


def test_a_mask_covers_the_rectangle_and_nothing_else() -> None:
    masks = box_mask(BOXES, (4, 6))
    assert masks.shape == (4, 1, 4, 6)
    assert masks.dtype == torch.bool
    assert masks[0, 0, 1:3, 2:5].all()
    assert masks.flatten(1).sum(1).tolist() == [6, 24, 1, 0]


def test_the_box_around_a_mask_is_the_rectangle_it_was_made_of() -> None:
    assert torch.equal(bounding_boxes(box_mask(BOXES, (4, 6))), BOXES)


def test_a_pixel_of_any_channel_counts() -> None:
    masks = torch.zeros(1, 2, 5, 5, dtype=torch.bool)
    masks[0, 0, 1, 1] = masks[0, 1, 3, 4] = True
    assert bounding_boxes(masks).tolist() == [[1, 1, 3, 4]]


def test_shared_area_over_covered_area() -> None:
    first = torch.tensor([[0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 0, 0]])
    second = torch.tensor([[0, 0, 2, 2], [1, 1, 2, 2], [5, 5, 2, 2], [0, 0, 0, 0]])
    assert torch.allclose(box_iou(first, second), torch.tensor([1.0, 1 / 7, 0.0, 0.0]))
