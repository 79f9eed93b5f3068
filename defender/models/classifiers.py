"""Small convolutional classifiers that image-defender trains and ships itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvNorm(nn.Sequential):
    """A 3x3 convolution without bias followed by batch normalisation."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )


class PooledResidual(nn.Module):
    """Widen, halve the resolution by max-pooling, then add one residual convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.widen = ConvNorm(in_channels, out_channels)
        self.residual = ConvNorm(out_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (n, in_channels, h, w) to (n, out_channels, h // 2, w // 2)."""
        x = torch.relu(nn.functional.max_pool2d(self.widen(x), 2))
        return x + torch.relu(self.residual(x))


class PooledResNet(nn.Module):
    """A short residual network for 32 x 32 images: stem, three pooled stages, global max.

    Args:
        classes: number of output classes.
        stem: channels after the first convolution.
        widths: channels of the three stages, each of which halves the resolution.

    Source: the layout follows the ResNet-9 family of D. Page, "How to train your ResNet", 2018.
    Differs: narrower (1.1 M parameters at the default widths), a residual in every stage.
    """

    def __init__(
        self, classes: int = 10, stem: int = 16, widths: tuple[int, int, int] = (48, 128, 256)
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, stem, 3, padding=1)
        channels = (stem, *widths)
        self.stages = nn.Sequential(
            *(PooledResidual(channels[i], channels[i + 1]) for i in range(len(widths)))
        )
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (n, 3, h, w) to logits (n, classes)."""
        features = self.stages(torch.relu(self.stem(x)))
        logits: Tensor = self.head(features.amax(dim=(2, 3)))
        return logits


def cifar_resnet(classes: int = 10) -> PooledResNet:
    """The classifier shipped for CIFAR-10: 1.12 M parameters, 65 M multiply-adds an image."""
    return PooledResNet(classes, stem=16, widths=(48, 128, 256))


def shapes_cnn(classes: int = 10) -> PooledResNet:
    """The tiny classifier shipped for ``builtin:shapes``: 0.03 M parameters."""
    return PooledResNet(classes, stem=8, widths=(16, 24, 32))


class Normalised(nn.Module):
    """A network behind its own normalisation, so that callers pass images in [0, 1].

    Args:
        network: module that maps normalised images (n, c, h, w) to its output.
        mean: channel means in [0, 1] units.
        std: channel standard deviations in [0, 1] units.
        name: short name, used with the digest of the weights in ``repr``.
        digest: hexadecimal digest of the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: tuple[float, ...] = (0.0,),
        std: tuple[float, ...] = (1.0,),
        *,
        name: str = "model",
        digest: str = "",
    ) -> None:
        super().__init__()
        self.network = network
        self.name = name
        self.digest = digest
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, c, h, w) in [0, 1] to the network's output."""
        output: Tensor = self.network((images - self.mean) / self.std)
        return output

    def __repr__(self) -> str:
        return f"{self.name}@{self.digest[:12]}" if self.digest else self.name
