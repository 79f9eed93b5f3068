"""A patch found by where the model looks: a heat map that lies in one small window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from defender.boxes import box_mask
from defender.detectors.patch_lattice import integral_image
from defender.objectives import Classifier
from defender.types import Images, Knowledge, Scores, Seeds, check_parameters, parameter


@dataclass(frozen=True)
class CamEnergy:
    """Share of the Grad-CAM of the predicted class that lies in the best small square window.

    A patch that decides the prediction draws the heat map to itself; on a clean image the map
    covers the object. The map of the detector is that window. Heat maps are as coarse as the
    model's last stage, so that the window is, too.

    Args:
        model: maps images in [0, 1] to logits.
        window: side of the window as a share of the image's shorter side, at least one pixel.
        layer: dotted name of the module that is explained; None for the last stage.
        threshold: score above which the map shows the window; scores do not depend on it.

    Raises:
        TypeError: a model without a gradient.

    Source: R. Selvaraju, M. Cogswell, A. Das, R. Vedantam, D. Parikh, D. Batra, "Grad-CAM: Visual
    Explanations from Deep Networks via Gradient-based Localization", 2017, arXiv 1610.02391; as a
    sign of patches: E. Chou, F. Tramèr, G. Pellegrino, "SentiNet: Detecting Localized Universal
    Attacks Against Deep Learning Systems", 2020, arXiv 1812.00292.
    Differs: SentiNet pastes the region on other images and asks the model again; here the
    concentration itself is the score.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "R. Selvaraju et al., Grad-CAM, 2017, arXiv 1610.02391; E. Chou, F. Tramèr, G. Pellegrino, "
        "SentiNet, 2020, arXiv 1812.00292"
    )
    knowledge: ClassVar[Knowledge] = "model"

    model: Classifier
    window: float = parameter(
        0.2, doc="side of the window, share of the shorter side", low=0, high=1, open_low=True
    )
    layer: str | None = parameter(None, doc="module that is explained; none: the last stage")
    threshold: float = parameter(0.0, doc="score above which the map shows the window")

    def __post_init__(self) -> None:
        check_parameters(self)

    def __call__(self, images: Images, *, seeds: Seeds, reference: Images | None = None) -> Scores:
        """Share (n,) in [0, 1] of the heat map inside its best window; 0 for an empty map.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            seeds: unused, the detector is deterministic.
            reference: unused.
        """
        return self._found(images)[0]

    def map(
        self, images: Images, *, seeds: Seeds, reference: Images | None = None
    ) -> Tensor | None:
        """The best window where its score exceeds the threshold, bool (n, c, h, w)."""
        scores, boxes = self._found(images)
        boxes = boxes * (scores > self.threshold)[:, None]
        return box_mask(boxes, (images.shape[2], images.shape[3])).expand(images.shape)

    def _found(self, images: Images) -> tuple[Scores, Tensor]:
        """Scores float64 (n,) and windows int64 (n, 4)."""
        from defender.explain import gradcam, seen_region

        size = (images.shape[2], images.shape[3])
        model: Any = self.model
        heat = gradcam(model, images, None, self.layer, region=seen_region(model, size))
        return best_window(heat, max(1, round(self.window * min(size))))


@torch.no_grad()
def best_window(heat: Tensor, side: int) -> tuple[Scores, Tensor]:
    """The square window that holds most of a map.

    Args:
        heat: (n, h, w), >= 0.
        side: side of the window in pixels, no more than h and w.

    Returns:
        The share float64 (n,) of the map inside, 0 for an empty map, and the windows int64 (n, 4)
        as top, left, height, width: the first one where several hold as much.
    """
    table = integral_image(heat.detach().double())
    inside = table[:, side:, side:] - table[:, side:, :-side]
    inside = inside - table[:, :-side, side:] + table[:, :-side, :-side]
    most, place = inside.flatten(1).max(1)
    whole = table[:, -1, -1]
    shares = torch.where(whole > 0, most / whole.clamp_min(1e-30), 0.0).clamp(0.0, 1.0)
    columns = inside.shape[2]
    sides = torch.full_like(place, side)
    top = place.div(columns, rounding_mode="floor")
    return shares, torch.stack([top, place % columns, sides, sides], dim=1)
