"""What a patch does to the detections of an object detector, image by image."""

from __future__ import annotations

import torch
from torch import Tensor

from defender.boxes import box_iou
from defender.models.object_detection import Detections


def matched(first: Detections, second: Detections, *, iou: float = 0.5) -> Tensor:
    """Which detections of one image are found again in another.

    A detection is found again if the other image has one of the same label whose box covers the
    same place. Each of those counts once: they are given to the surest first, each taking the one
    that it shares most with.

    Args:
        first: detections of an image.
        second: detections of the other.
        iou: least area that two boxes share, as a part of what either covers, in (0, 1].

    Returns:
        bool (k,), for each of the first.

    Raises:
        ValueError: an iou out of range.

    Source: the matching follows that of T.-Y. Lin et al., "Microsoft COCO: Common Objects in
    Context", 2014, arXiv 1405.0312.
    Differs: detections are matched to detections; there are no true boxes.
    """
    if not 0 < iou <= 1:
        raise ValueError(f"iou: expected (0, 1], got {iou}")
    found = torch.zeros(len(first), dtype=torch.bool)
    if not len(first) or not len(second):
        return found
    shared = _shared(first.boxes.detach().cpu(), second.boxes.detach().cpu())
    same = first.labels.cpu()[:, None] == second.labels.cpu()[None]
    shared = shared.masked_fill(~same, 0.0)
    for index in first.confidences.cpu().argsort(descending=True, stable=True).tolist():
        best = int(shared[index].argmax())
        if float(shared[index, best]) >= iou:
            found[index] = True
            shared[:, best] = 0.0
    return found


def detection_scores(
    clean: list[Detections],
    patched: list[Detections],
    *,
    threshold: float = 0.5,
    iou: float = 0.5,
    target: int | None = None,
) -> dict[str, Tensor]:
    """What became of the detections of each image.

    Args:
        clean: detections of n clean images.
        patched: those of the same images with a patch.
        threshold: least confidence of a detection that counts, on either side.
        iou: see :func:`matched`.
        target: label of the objects that the patch is to invent; None: any.

    Returns:
        By name, each (n,): ``detections_before`` and ``detections_after``, int64, all that are at
        least as sure as the threshold; ``vanished``, float in [0, 1], the share of those before
        that are not found again, NaN where there are none; ``invented``, int64, those after of the
        target label that are not found before.

    Raises:
        ValueError: as many patched images as clean ones are not given, or an iou out of range.
    """
    if len(clean) != len(patched):
        raise ValueError(f"patched: expected {len(clean)} images, got {len(patched)}")
    rows = []
    for one, other in zip(clean, patched, strict=True):
        before, after = one.above(threshold), other.above(threshold)
        lost = (~matched(before, after, iou=iou)).float()
        new = ~matched(after, before, iou=iou)
        if target is not None:
            new &= after.labels.cpu() == target
        rows.append((len(before), len(after), float(lost.mean()), int(new.sum())))
    before_after = torch.tensor([row[:2] for row in rows], dtype=torch.int64).reshape(-1, 2)
    return {
        "detections_before": before_after[:, 0],
        "detections_after": before_after[:, 1],
        "vanished": torch.tensor([row[2] for row in rows], dtype=torch.float32),
        "invented": torch.tensor([row[3] for row in rows], dtype=torch.int64),
    }


def _shared(first: Tensor, second: Tensor) -> Tensor:
    """Shared area (k, m) of boxes (k, 4) and (m, 4), as a part of what either covers."""
    rows, columns = len(first), len(second)
    pairs = box_iou(first.repeat_interleave(columns, dim=0), second.repeat(rows, 1))
    return pairs.reshape(rows, columns)
