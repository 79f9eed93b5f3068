"""A patch found by hiding it: few small masks change a prediction that all others leave alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from defender.certification.masks import rectangles
from defender.objectives import Classifier
from defender.types import Images, Knowledge, Scores, Seeds, check_parameters, parameter


@dataclass(frozen=True)
class MaskEntropy:
    """How much the prediction depends on which part of the image is hidden.

    Square masks cover the image so that one of them hides each place of a patch of the stated
    size (stride ``s = ceil((n - p + 1) / k)``, side ``p + s - 1``, at most ``k^2`` masks). Under a
    mask that hides the patch that decides it, the prediction changes; the map is where those
    masks are.

    Args:
        model: maps images in [0, 1] to logits.
        patch: side of the patch that fits under a mask, as a share of the shorter side.
        masks: masks along an axis at most, k.
        score: ``"entropy"``: of the predicted classes under the masks, in nats; ``"changed"``:
            share of the masks that change the prediction.
        fill: value of hidden pixels.

    Source: after C. Xiang, S. Mahloujifar, P. Mittal, "PatchCleanser: Certifiably Robust Defense
    against Adversarial Patches for Any Image Classifier", 2022, arXiv 2108.09135: the masks of its
    first round.
    Differs: PatchCleanser decides by agreement of all; the entropy as a score is ours.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "after C. Xiang, S. Mahloujifar, P. Mittal, PatchCleanser: Certifiably Robust Defense "
        "against Adversarial Patches for Any Image Classifier, 2022, arXiv 2108.09135"
    )
    knowledge: ClassVar[Knowledge] = "model"

    model: Classifier
    patch: float = parameter(
        0.15, doc="side of the patch, share of the shorter side", low=0, high=1, open_low=True
    )
    masks: int = parameter(6, doc="masks along an axis at most", low=1)
    score: str = parameter("entropy", doc="what is counted", choices=("entropy", "changed"))
    fill: float = parameter(0.5, doc="value of hidden pixels", low=0, high=1)

    def __post_init__(self) -> None:
        check_parameters(self)

    @torch.no_grad()
    def __call__(self, images: Images, *, seeds: Seeds, reference: Images | None = None) -> Scores:
        """Entropy or share of changes (n,), >= 0.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            seeds: unused, the detector is deterministic.
            reference: unused.
        """
        hidden = self._hidden(images)
        if self.score == "changed":
            return self._changed(images, hidden).double().mean(dim=1)
        predicted = self._predicted(images, hidden)
        same = (predicted[:, :, None] == predicted[:, None, :]).double().mean(dim=2)
        # the mean over masks of the information of their class is the entropy of the classes
        return -same.log().mean(dim=1) + 0.0

    @torch.no_grad()
    def map(
        self, images: Images, *, seeds: Seeds, reference: Images | None = None
    ) -> Tensor | None:
        """What the masks that change the prediction hide, bool (n, c, h, w)."""
        hidden = self._hidden(images)
        changed = self._changed(images, hidden).to(torch.float32)
        where = (changed @ hidden.flatten(1).to(torch.float32)) > 0
        return where.view(len(images), 1, *hidden.shape[1:]).expand(images.shape)

    def _hidden(self, images: Images) -> Tensor:
        """The masks, bool (masks, h, w)."""
        size = (images.shape[2], images.shape[3])
        side = max(1, int(self.patch * min(size)))
        return rectangles(size, (side, side), self.masks).to(images.device)

    def _predicted(self, images: Images, hidden: Tensor) -> Tensor:
        """Predicted classes (n, masks) under each mask."""
        # mask by mask, so that the model always sees the compute batch
        copies = (images.masked_fill(mask, self.fill) for mask in hidden)
        return torch.stack([self.model(copy).argmax(dim=1) for copy in copies], dim=1)

    def _changed(self, images: Images, hidden: Tensor) -> Tensor:
        """Which masks change the prediction, bool (n, masks)."""
        return self._predicted(images, hidden) != self.model(images).argmax(dim=1, keepdim=True)
