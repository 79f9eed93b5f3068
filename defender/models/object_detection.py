"""Object detectors of torchvision as victims: what they find, and how sure they are before that.

A detector proposes thousands of boxes with a confidence for each class, drops those below a
threshold, suppresses boxes that overlap surer ones, and keeps the rest. What is left is what it
finds (:meth:`ObjectDetector.forward`); dropping and suppressing have no gradient, so attacks work
on the confidences of all that was proposed (:meth:`ObjectDetector.log_confidences`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from defender.types import Images

FAMILIES = ("FasterRCNN", "RetinaNet", "FCOS", "SSD")
"""What detectors are built as in torchvision; Mask and Keypoint R-CNN are Faster R-CNN."""


@dataclass(frozen=True, eq=False)
class Detections:
    """Objects that were found in one image, the surest first.

    Args:
        boxes: float (k, 4), top, left, height, width in pixels.
        labels: int64 (k,), class of each.
        confidences: float (k,) in [0, 1].
    """

    boxes: Tensor
    labels: Tensor
    confidences: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def above(self, threshold: float) -> Detections:
        """Those whose confidence is at least the threshold."""
        kept = self.confidences >= threshold
        return Detections(self.boxes[kept], self.labels[kept], self.confidences[kept])


class ObjectDetector(nn.Module):
    """A frozen object detector that looks at one image at a time.

    torchvision pads images of a batch to a common size, which changes what is found in each; seen
    singly, an image gives the same whatever is beside it.

    Args:
        network: a detector of ``torchvision.models.detection``; it is switched to evaluation
            mode, and its parameters ask for no gradients.
        name: short name, used with the digest in ``repr``.
        digest: hexadecimal digest of the weights.
        class_names: names by label, where they are known.

    Raises:
        TypeError: a network of no known family.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str = "detector",
        digest: str = "",
        class_names: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.family = _family(network)
        self.network: Any = network
        self.name = name
        self.digest = digest
        self.class_names = class_names
        self.requires_grad_(False).eval()

    @property
    def has_object_at_zero(self) -> bool:
        """Whether label 0 is a class like others; else it is the background."""
        return self.family in ("RetinaNet", "FCOS")

    @torch.no_grad()
    def forward(self, images: Images) -> list[Detections]:
        """Find objects.

        The network itself drops what is below its ``score_thresh`` and keeps no more than its
        ``detections_per_img``.

        Args:
            images: (n, c, h, w) in [0, 1]; grey ones are seen as colour.

        Returns:
            What was found in each image, in its own pixels.

        Raises:
            ValueError: in training mode, in which the network wants targets.
        """
        self._require_evaluation()
        return [_detections(self.network([self._colour(image)])[0]) for image in images]

    def log_confidences(self, image: Tensor) -> Tensor:
        """Logarithm of the confidence of each class for each box that is proposed in an image.

        These are all boxes before any is dropped or suppressed, so that the surest of a class is
        at least as sure as what is found of it.

        Args:
            image: (c, h, w) in [0, 1].

        Returns:
            (boxes, labels), at most 0, with a gradient; -inf for the background where that is
            one of the labels.

        Raises:
            ValueError: in training mode.
        """
        self._require_evaluation()
        seen, _ = self.network.transform([self._colour(image)])
        features = self.network.backbone(seen.tensors)
        if self.family == "FasterRCNN":
            return _without_background(self._logits_of_regions(seen, features))
        levels = [features] if isinstance(features, Tensor) else list(features.values())
        found = self.network.head(levels)
        logits: Tensor = found["cls_logits"][0]
        if self.family == "SSD":
            return _without_background(logits)
        if self.family == "RetinaNet":
            return functional.logsigmoid(logits)
        centred = functional.logsigmoid(found["bbox_ctrness"][0])
        return (functional.logsigmoid(logits) + centred) / 2

    def _logits_of_regions(self, seen: Any, features: Any) -> Tensor:
        """The second stage of Faster R-CNN: logits (boxes, labels) of the regions proposed."""
        if isinstance(features, Tensor):
            features = {"0": features}
        with torch.no_grad():  # no gradient passes through the places of the regions
            regions, _ = self.network.rpn(seen, features, None)
        heads = self.network.roi_heads
        pooled = heads.box_head(heads.box_roi_pool(features, regions, seen.image_sizes))
        logits: Tensor = heads.box_predictor(pooled)[0]
        return logits

    def _colour(self, image: Tensor) -> Tensor:
        channels = len(self.network.transform.image_mean)
        return image.expand(channels, -1, -1) if len(image) == 1 else image

    def _require_evaluation(self) -> None:
        if self.training or self.network.training:
            raise ValueError(f"expected {self!r} in evaluation mode, got training mode")

    def __repr__(self) -> str:
        return f"{self.name}@{self.digest[:12]}" if self.digest else self.name


def torchvision_detector(
    architecture: str, *, public_weights: bool = False, labels: int | None = None
) -> nn.Module:
    """A detector of torchvision by the name of its architecture.

    Args:
        architecture: such as ``fasterrcnn_resnet50_fpn``; see
            ``torchvision.models.list_models(module=torchvision.models.detection)``.
        public_weights: with the default public weights, which are fetched where they are not
            cached; else with random ones, to be replaced.
        labels: number of labels, the background included; None: the 91 of COCO.

    Raises:
        ValueError: no detector of that name, or a number of labels beside public weights, which
            have their own.
        OSError: the weights cannot be fetched.
    """
    from torchvision import models

    known = models.list_models(module=models.detection)
    if architecture not in known:
        raise ValueError(
            f"architecture: expected one of torchvision's object detectors, {', '.join(known)}, "
            f"got {architecture!r}"
        )
    if not public_weights:
        return models.get_model(  # type: ignore[no-any-return]
            architecture, weights=None, weights_backbone=None, num_classes=labels
        )
    if labels is not None:
        raise ValueError(f"labels: expected none beside public weights, got {labels}")
    return models.get_model(architecture, weights="DEFAULT")  # type: ignore[no-any-return]


def public_class_names(architecture: str) -> tuple[str, ...]:
    """Names by label of the public weights of an architecture."""
    from torchvision import models

    return tuple(models.get_model_weights(architecture).DEFAULT.meta["categories"])


def _family(network: nn.Module) -> str:
    names = {kind.__name__ for kind in type(network).__mro__}
    for family in FAMILIES:
        if family in names:
            return family
    raise TypeError(
        f"network: expected an object detector of torchvision ({', '.join(FAMILIES)}), "
        f"got {type(network).__name__}"
    )


def _without_background(logits: Tensor) -> Tensor:
    """Logarithms of the softmax over labels, of which the first is the background: -inf."""
    confidences = functional.log_softmax(logits, dim=1)
    nothing = torch.full_like(confidences[:, :1], -torch.inf)
    return torch.cat([nothing, confidences[:, 1:]], dim=1)


def _detections(found: dict[str, Tensor]) -> Detections:
    left, top, right, bottom = found["boxes"].unbind(dim=1)
    boxes = torch.stack([top, left, bottom - top, right - left], dim=1)
    return Detections(boxes, found["labels"], found["scores"])
