"""What an image-quality metric says of stored images, and how like they are to the clean ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from defender.metrics.quality import closeness, halved, summed
from tasks.workbench import Workbench

LIKENESSES = {"quality": "likeness", "image_similarity": "image_similarity"}
"""Metrics that compare an image with the clean one, and their columns."""
FORMULAS = {"likeness": halved, "image_similarity": summed}
"""How a column is made of SSIM and PSNR."""


def likenesses(bench: Workbench) -> list[str]:
    """The columns that the specification asks for, of those that compare with the clean image."""
    return [column for metric, column in LIKENESSES.items() if metric in bench.spec.metrics]


@torch.no_grad()
def opinion(bench: Workbench, images: Tensor, clean: Tensor) -> dict[str, Tensor]:
    """Columns (b,) of a batch: ``score``, of the images at their own size, and their likenesses.

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
    wanted = likenesses(bench)
    if wanted:
        found = closeness(clean, images)
        columns |= {column: FORMULAS[column](*found) for column in wanted}
    return columns
