"""A model behind the resize of its own pipeline, so that it takes images of any size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from defender.norms import from_uint8, to_uint8
from defender.scaling import Pipeline, Scaler


class _Resize(torch.autograd.Function):
    """Forward: the real library on 8-bit images. Backward: the transposed linear map."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, scaler: Scaler) -> Tensor:
        ctx.scaler = scaler
        return scaled_files(images, scaler)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.scaler.adjoint(gradients[0].contiguous()), None


def scaled_files(images: Tensor, scaler: Scaler) -> Tensor:
    """What a scaler makes of the 8-bit files of images in [0, 1], in [0, 1] again."""
    return from_uint8(scaler(to_uint8(images)))


class Scaled(nn.Module):
    """Rounds images to 8 bits, resizes them as the pipeline does, and asks the model.

    The gradient is that of the linear map ``L X R``, passed through the rounding unchanged. Images
    of the target size go to the model as they are.

    Args:
        model: maps images (n, c, height, width) in [0, 1] of the pipeline's target size to scores.
        pipeline: the resize.
    """

    def __init__(self, model: nn.Module, pipeline: Pipeline) -> None:
        super().__init__()
        self.model = model
        self.pipeline = pipeline

    @property
    def digest(self) -> str:
        """Digest of the model behind the resize."""
        return str(getattr(self.model, "digest", ""))

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, c, h, w) in [0, 1] of any size to scores (n, classes)."""
        if tuple(images.shape[2:]) != self.pipeline.target:
            images = _Resize.apply(images, self.pipeline.of(images))
        scores: Tensor = self.model(images)
        return scores

    def __repr__(self) -> str:
        return f"{self.pipeline!r} > {self.model!r}"
