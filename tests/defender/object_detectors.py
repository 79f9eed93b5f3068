"""Small object detectors with fixed random weights, one of each family of torchvision's."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.ssd import SSD
from torchvision.ops import MultiScaleRoIAlign

from defender.models.object_detection import ObjectDetector

LABELS = 4
SIDE = 64
WIDTH = 32


def _backbone() -> nn.Module:
    """Three convolutions, a step of 8 pixels, means between, so that a shift changes little."""
    layers: list[nn.Module] = []
    for given, made in pairwise([3, 8, 12, WIDTH]):
        layers += [nn.Conv2d(given, made, 3, padding=1), nn.Softplus(), nn.AvgPool2d(2)]
    network = nn.Sequential(*layers)
    network.out_channels = WIDTH  # type: ignore[assignment]
    return network


def _anchors() -> AnchorGenerator:
    return AnchorGenerator(sizes=((16,),), aspect_ratios=((1.0,),))


def _size() -> dict[str, int]:
    return {"min_size": SIDE, "max_size": SIDE}


def _retinanet() -> nn.Module:
    return RetinaNet(_backbone(), LABELS, anchor_generator=_anchors(), **_size())


def _fcos() -> nn.Module:
    anchors = AnchorGenerator(sizes=((8,),), aspect_ratios=((1.0,),))
    return FCOS(_backbone(), LABELS, anchor_generator=anchors, score_thresh=0.05, **_size())


def _ssd() -> nn.Module:
    boxes = DefaultBoxGenerator([[1]], scales=[0.25, 0.4])
    backbone = _backbone()
    backbone.out_channels = [WIDTH]  # type: ignore[assignment]
    return SSD(backbone, boxes, (SIDE, SIDE), LABELS, score_thresh=0.05)


def _fasterrcnn() -> nn.Module:
    pool = MultiScaleRoIAlign(featmap_names=["0"], output_size=3, sampling_ratio=2)
    return FasterRCNN(
        _backbone(),
        num_classes=None,
        rpn_anchor_generator=_anchors(),
        box_roi_pool=pool,
        box_head=TwoMLPHead(WIDTH * 9, 24),
        box_predictor=_Predictor(),
        rpn_post_nms_top_n_test=60,
        **_size(),
    )


class _Predictor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cls_score = nn.Linear(24, LABELS)
        self.bbox_pred = nn.Linear(24, 4 * LABELS)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(x), self.bbox_pred(x)


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "RetinaNet": _retinanet,
    "FCOS": _fcos,
    "SSD": _ssd,
    "FasterRCNN": _fasterrcnn,
}


_CLASSES = {
    "RetinaNet": "head.classification_head.cls_logits",
    "FCOS": "head.classification_head.cls_logits",
    "SSD": "head.classification_head.module_list.0",
    "FasterRCNN": "roi_heads.box_predictor.cls_score",
}
"""The layer that makes the logits of the classes."""


def detector(family: str, seed: int = 4) -> ObjectDetector:
    """A detector of a family that is sure of some boxes and unsure of most."""
    network = FAMILIES[family]().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim < 2:
                distance = family == "FCOS" and name.endswith("bbox_reg.bias")
                weight.fill_(float(distance or name.endswith("weight")))
                continue
            gain = 0.1 if "bbox" in name or "regression" in name else 1.6
            weight.normal_(0.0, gain / math.sqrt(weight[0].numel()), generator=generator)
        _spread(network, network.get_submodule(_CLASSES[family]), family)
    return ObjectDetector(network, name=family.lower(), digest="0123456789abcdef")


def _spread(network: nn.Module, layer: nn.Module, family: str) -> None:
    """Move and stretch the logits of each class, so that most boxes are none."""
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _, __, logits: seen.append(logits))
    network(list(images(4)))
    handle.remove()
    logits = torch.cat(seen).transpose(0, 1).flatten(1)
    stretch = 1.5 / logits.std(dim=1)
    wanted = torch.full((LABELS,), -2.0)
    if family in ("SSD", "FasterRCNN"):
        wanted = torch.tensor([2.0] + [-1.0] * (LABELS - 1))
    layer.weight.mul_(stretch.view(-1, *[1] * (layer.weight.ndim - 1)))  # type: ignore[union-attr]
    places = wanted.repeat(len(stretch) // LABELS)
    layer.bias.copy_(places - stretch * logits.mean(dim=1))  # type: ignore[union-attr]


def images(n: int = 3, height: int = SIDE, width: int = SIDE, seed: int = 5) -> Tensor:
    """Smooth random images with edges."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 6, 6, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    flat = nn.functional.interpolate(
        torch.rand(n, 3, 4, 4, generator=generator), size=(height, width)
    )
    return (0.5 * smooth + 0.5 * flat).clamp(0, 1)
