"""PatchCleanser: a label that no patch of a known size can change, by masking twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from defender.certification.masked_classifier import MaskedClassifier, majority
from defender.certification.masks import rectangles
from defender.types import Images, Seeds

FIRST_BLOCK = 4
"""Pairs of masks that are tried first; each further block is twice as long."""


@dataclass(frozen=True)
class PatchCleanser(MaskedClassifier):
    """Double masking.

    Inference. Hide each of the k^2 masks in turn. If all predictions agree, that is the label.
    Otherwise, for each mask whose prediction is not that of the majority, hide every second mask
    besides: if all these predictions equal its own, it is the label; if there is no such mask,
    the majority's label is.

    Certificate. If the predictions under all pairs of masks, ``k^2 (k^2 + 1) / 2`` with the pairs
    of a mask and itself, equal y, then the label is y whatever one patch holds. For let m be a
    mask that covers the patch: under m and any second mask the patch is invisible and the
    prediction y. A minority mask with another label therefore fails its second round at m, and if
    y is not the majority, m itself passes.

    Pairs are tried from the most doubtful (smallest sum of the two one-mask margins) in blocks of
    4, 8, 16, ... and an image is left as soon as its answer is known. Which pairs are evaluated
    depends on the image alone.

    Source: C. Xiang et al., "PatchCleanser: Certifiably Robust Defense against Adversarial
    Patches for Any Image Classifier", 2022, arXiv 2108.09135.
    Differs: the order of the pairs and the early exits, which change no result; of equally
    frequent labels the smaller one is the majority's.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "Xiang et al. 2022, arXiv 2108.09135"

    def __call__(self, images: Images, *, seeds: Seeds | None = None) -> Tensor:
        """Label int64 (n,) of images (n, c, h, w) in [0, 1]; seeds are unused."""
        self.check(images)
        return _Pairs(self, images).infer()

    def certify(self, images: Images, labels: Tensor) -> Tensor:
        """Whether no patch can change the label, bool (n,).

        Args:
            images: clean images (n, c, h, w) in [0, 1].
            labels: int64 (n,), the true label of each.
        """
        self.check(images, labels)
        return _Pairs(self, images).certify(labels)

    def judge(self, images: Images, labels: Tensor) -> dict[str, Tensor]:
        """Inference and certificate at once.

        Args:
            images: clean images (n, c, h, w) in [0, 1].
            labels: int64 (n,), the true label of each.

        Returns:
            Columns (n,): ``prediction`` int64; ``certified`` bool; ``one_mask_agreement``
            float32, the share of the one-mask predictions that equal the most frequent one;
            ``evaluations`` int64, masked copies that the model was asked about.
        """
        self.check(images, labels)
        pairs = _Pairs(self, images)
        return {
            "prediction": pairs.infer(),
            "certified": pairs.certify(labels),
            "one_mask_agreement": pairs.agreement,
            "evaluations": pairs.evaluations,
        }


class _Pairs:
    """What is known of the predictions under pairs of masks.

    Args:
        defence: model, masks and batch.
        images: (n, c, h, w).
    """

    def __init__(self, defence: PatchCleanser, images: Images) -> None:
        self.defence = defence
        self.images = images
        height, width = images.shape[2:]
        side = defence.patch_side((height, width))
        hidden = rectangles((height, width), (side, side), defence.masks)
        self.hidden = hidden.to(images.device)
        self.logits = defence.first_round(images, self.hidden)
        n, masks, classes = self.logits.shape
        self.one = self.logits.argmax(2)
        self.majority, self.agreement = majority(self.one, classes)
        self.table = torch.full((n, masks, masks), -1, device=images.device)
        self.table.diagonal(dim1=1, dim2=2).copy_(self.one)
        self.evaluations = torch.full((n,), masks, device=images.device)

    def infer(self) -> Tensor:
        """The label int64 (n,)."""
        label = self.majority.clone()
        image, mask = (self.one != self.majority[:, None]).nonzero().unbind(1)
        masks = len(self.hidden)
        second = torch.arange(masks, device=image.device).expand(len(image), -1)
        pairs = torch.stack([mask[:, None].expand(-1, masks), second], dim=2)
        own = self.one[image, mask]
        passed = self._unanimous(image, own, pairs)
        label[image[passed]] = own[passed]
        return label

    def certify(self, labels: Tensor) -> Tensor:
        """Whether all predictions under two masks are the label, bool (n,)."""
        certified = (self.one == labels[:, None]).all(1)
        image = certified.nonzero()[:, 0]
        masks = len(self.hidden)
        pairs = torch.triu_indices(masks, masks, offset=1, device=image.device).T
        every = pairs.expand(len(image), -1, -1)
        certified[image] = self._unanimous(image, labels[image], every)
        return certified

    def _unanimous(self, image: Tensor, label: Tensor, pairs: Tensor) -> Tensor:
        """Whether all predictions of a question are its label.

        Args:
            image: int64 (q,), the image of each question.
            label: int64 (q,).
            pairs: int64 (q, pairs, 2), the pairs of masks of each question.

        Returns:
            bool (q,).
        """
        alive = torch.ones(len(image), dtype=torch.bool, device=image.device)
        margin = self._margin(image, label)
        rows = torch.arange(len(image), device=image.device)[:, None]
        doubt = margin[rows, pairs[..., 0]] + margin[rows, pairs[..., 1]]
        order = doubt.argsort(dim=1, stable=True)
        start, block = 0, FIRST_BLOCK
        while start < pairs.shape[1] and bool(alive.any()):
            asked = alive.nonzero()[:, 0]
            places = order[asked, start : start + block]
            chosen = pairs[asked[:, None], places]
            alive[asked] = (self._look_up(image[asked], chosen) == label[asked, None]).all(1)
            start, block = start + block, 2 * block
        return alive

    def _margin(self, image: Tensor, label: Tensor) -> Tensor:
        """Logit of the label above the best other one under each mask, (q, masks)."""
        logits = self.logits[image]
        index = label[:, None, None].expand(-1, logits.shape[1], 1)
        others = logits.scatter(2, index, -torch.inf)
        return logits.gather(2, index)[..., 0] - others.amax(2)

    def _look_up(self, image: Tensor, pairs: Tensor) -> Tensor:
        """Predictions int64 (q, pairs) under pairs (q, pairs, 2); new ones are evaluated once."""
        masks = len(self.hidden)
        low, high = pairs.aminmax(dim=2)
        where = image[:, None].expand_as(low)
        unknown = self.table[where, low, high] < 0
        keys = torch.unique(((where * masks + low) * masks + high)[unknown])
        if len(keys):
            new, first, second = keys // masks**2, keys // masks % masks, keys % masks
            two = torch.stack([first, second], dim=1)
            found = self.defence.masked_logits(self.images, new, self.hidden, two).argmax(1)
            self.table[new, first, second] = found
            self.evaluations += new.bincount(minlength=len(self.images))
        return self.table[where, low, high]
