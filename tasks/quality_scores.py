"""What an image-quality metric says of stored images, and how like they are to the clean ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from defender.metrics.quality import likeness
from tasks.workbench import Workbench


@torch.no_grad()
def opinion(bench: Workbench, images: Tensor, clean: Tensor) -> dict[str, Tensor]:
    """Columns (b,) of a batch: ``score``, of the images at their own size, and ``likeness``.

    A metric that compares with the original is given the clean image, at the size of the image
    that it scores.

    Args:
        bench: the run.
        images: (b, c, h, w) in [0, 1].
        clean: (b, c, any height, any width) in [0, 1].
    """
    metric: Any = bench.metric
    reference = None
    if metric.needs_reference:
        reference = clean
        if clean.shape != images.shape:
            size = (int(images.shape[2]), int(images.shape[3]))
            reference = torch.nn.functional.interpolate(
                clean, size, mode="bilinear", antialias=True
            )
    columns = {"score": metric(images, reference)}
    if "quality" in bench.spec.metrics:
        columns["likeness"] = likeness(clean, images)
    return columns
