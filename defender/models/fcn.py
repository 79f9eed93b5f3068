"""The small fully convolutional network that learned purification of metrics started from."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FCN(nn.Module):
    """Three 3 x 3 convolutions from image to image, for images of any size.

    ``conv c->64, LeakyReLU 0.2, conv 64->16, instance norm, LeakyReLU 0.2, conv 16->c, tanh``,
    clamped to [0, 1].

    Args:
        channels: channels of the images, 3 for RGB.
        residual: the output of tanh is added to the image in place of being the image; such a
            network starts as the identity, its last convolution being zero.

    Source: A. Gushchin, A. Chistyakova, V. Minashkin, A. Antsiferova, D. Vatolin, "Adversarial
    purification for no-reference image-quality metrics: applicability study and new methods",
    2024, arXiv 2404.06957, and its code.
    Differs: ``residual`` is ours. In training mode the result is not clamped, so that values out
    of range have a gradient.
    """

    def __init__(self, channels: int = 3, *, residual: bool = False) -> None:
        super().__init__()
        self.channels = channels
        self.residual = residual
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 64, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(64, 16, 3, padding=1),
            nn.InstanceNorm2d(16),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(16, channels, 3, padding=1),
            nn.Tanh(),
        )
        if residual:
            last = self.layers[-2]
            for weight in last.parameters():
                nn.init.zeros_(weight)

    def extra_repr(self) -> str:
        """What the layers do not show: the digest of a network covers its ``repr``."""
        return f"residual={self.residual}"

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, channels, h, w) in [0, 1] to such images."""
        # with the channels of a pixel side by side, convolutions take half the time on a CPU
        made: Tensor = self.layers(images.contiguous(memory_format=torch.channels_last))
        made = made.contiguous(memory_format=torch.contiguous_format)
        if self.residual:
            made = images + made
        return made if self.training else torch.clamp(made, 0.0, 1.0)


def fcn(channels: int = 3) -> FCN:
    """The published filter: 0.011 M parameters, 11 k multiply-adds a pixel."""
    return FCN(channels)


def residual_fcn(channels: int = 3) -> FCN:
    """The filter that learns what to change: the same layers, added to the image."""
    return FCN(channels, residual=True)
