"""Networks made by a function, for specifications that name one; some of them unsuitable."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def linear(classes: int = 10, channels: int = 3) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, stride=4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(64, classes),
    )


def with_dropout() -> nn.Module:
    return nn.Sequential(nn.Dropout(0.3), linear())


def three_classes() -> nn.Module:
    return linear(classes=3)


def for_grey() -> nn.Module:
    return linear(channels=1)


def images_out() -> nn.Module:
    return nn.Conv2d(3, 10, 1)


def nothing() -> None:
    return None


def brightness(images: object) -> object:
    """Scores of a model that is no torch module: NumPy in, NumPy out."""
    means = torch.as_tensor(images).mean((1, 2, 3))
    return torch.stack([means, 1 - means], 1).numpy()


def three_scores(images: object) -> object:
    return torch.zeros(len(torch.as_tensor(images)), 3).numpy()


def not_finite(images: object) -> object:
    return torch.full((len(torch.as_tensor(images)), 2), float("nan")).numpy()


def words(images: object) -> object:
    return "bright"


def one_number(images: object) -> object:
    return 0.5


def blackens(images: Any) -> object:
    images *= 0
    return images.mean((2, 3))
