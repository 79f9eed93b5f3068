"""A classifier that is asked about copies of an image with parts hidden."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from defender.certification.masks import Size
from defender.objectives import Classifier
from defender.types import Images, check_parameters, parameter

PIXELS = 1 << 20
"""Pixels (h * w summed over copies) of a batch at most, but at least one copy."""


@dataclass(frozen=True)
class MaskedClassifier:
    """What defences by covering masks share: the model, the patch, the masks and the batch.

    A certificate holds for one square patch of at most the stated side, anywhere in the image
    and with any content. It rests on this: a copy whose masks cover the patch is, bit by bit, the
    same copy of the image without it. So hidden pixels are a constant and no mean of the image.

    Args:
        model: maps images in [0, 1] to logits; in evaluation mode.
        patch: side of the patch as a share of the image's shorter side, rounded down to pixels
            (at least 1), as :class:`defender.attacks.GridPatch` rounds its own.
        patch_pixels: side of the patch in pixels instead; cut to the image's shorter side.
        masks: masks or bands along an axis at most, k.
        fill: value of hidden pixels, in [0, 1].
        batch: copies that the model is given at once; fewer of large images (2^20 pixels at
            most). Every batch is filled up to the same size, because kernels choose their
            arithmetic by the shape.
    """

    model: Classifier
    patch: float = parameter(
        0.15, doc="side of the patch, share of the shorter side", low=0.0, high=1.0, open_low=True
    )
    patch_pixels: int | None = parameter(
        None, doc="side of the patch, instead of the share", low=1, unit="px"
    )
    masks: int = parameter(6, doc="masks along an axis at most", low=1)
    fill: float = parameter(0.5, doc="value of hidden pixels", low=0.0, high=1.0)
    batch: int = parameter(64, doc="masked copies evaluated at once", low=1)

    def __post_init__(self) -> None:
        check_parameters(self)

    def patch_side(self, size: Size) -> int:
        """Side in pixels of the patch that is certified against, for images (h, w)."""
        shorter = min(size)
        if self.patch_pixels is not None:
            return min(self.patch_pixels, shorter)
        # a share such as 0.29 of 100 is 28.999... in floating point; a larger patch is the safe one
        return max(1, math.floor(self.patch * shorter + 1e-6))

    def check(self, images: Images, labels: Tensor | None = None) -> None:
        """Refuse what cannot be judged.

        Raises:
            ValueError: images of another shape, labels that are not int64 (n,), or a model in
                training mode, in which its batch statistics would mix the copies.
        """
        if images.ndim != 4:
            raise ValueError(f"images: expected (n, c, h, w), got {tuple(images.shape)}")
        if labels is not None and (labels.dtype != torch.int64 or labels.shape != images.shape[:1]):
            raise ValueError(
                f"labels: expected int64 ({len(images)},), got {labels.dtype} {tuple(labels.shape)}"
            )
        if getattr(self.model, "training", False):
            raise ValueError(f"model: expected {self.model!r} in evaluation mode, got training")

    @torch.no_grad()
    def masked_logits(self, images: Images, which: Tensor, hidden: Tensor, pairs: Tensor) -> Tensor:
        """Logits of masked copies, computed in batches of one size.

        Args:
            images: (n, c, h, w) in [0, 1].
            which: int64 (m,), the image of each copy; at least one copy.
            hidden: bool (masks, h, w), true where hidden.
            pairs: int64 (m, 2), the two masks of each copy, which may be the same.

        Returns:
            (m, classes).
        """
        height, width = images.shape[2:]
        size = max(1, min(self.batch, PIXELS // (height * width)))
        layout = torch.channels_last if images.shape[1] == 3 else torch.contiguous_format
        count = len(which)
        padding = -count % size
        places = torch.arange(count + padding, device=images.device).clamp(max=count - 1)
        found = []
        for chosen in places.view(-1, size):
            first, second = pairs[chosen].unbind(1)
            covered = (hidden[first] | hidden[second])[:, None]
            copies = torch.where(covered, self.fill, images[which[chosen]])
            found.append(self.model(copies.contiguous(memory_format=layout)))
        return torch.cat(found)[:count]

    def first_round(self, images: Images, hidden: Tensor) -> Tensor:
        """Logits (n, masks, classes) of each image under each mask of bool (masks, h, w)."""
        n, masks = len(images), len(hidden)
        which = torch.arange(n, device=images.device).repeat_interleave(masks)
        single = torch.arange(masks, device=images.device).repeat(n)
        pairs = torch.stack([single, single], dim=1)
        return self.masked_logits(images, which, hidden, pairs).view(n, masks, -1)


def majority(predictions: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """The most frequent class of each row, and its share of the row.

    Args:
        predictions: int64 (n, votes).
        classes: number of classes.

    Returns:
        int64 (n,), the smaller class where two are equally frequent; float32 (n,) in (0, 1].
    """
    votes = torch.nn.functional.one_hot(predictions, classes).sum(1)
    smaller_first = torch.arange(classes - 1, -1, -1, device=votes.device)
    chosen = (votes * classes + smaller_first).argmax(1)
    return chosen, votes.gather(1, chosen[:, None])[:, 0] / predictions.shape[1]
