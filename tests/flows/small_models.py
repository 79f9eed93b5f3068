"""Classifiers with fixed random weights for images that are not 32 x 32 in colour."""

from __future__ import annotations

import torch
from torch import nn


def grey() -> nn.Module:
    """Six classes, one channel, any size."""
    return _classifier(1)


def colour() -> nn.Module:
    """Six classes, three channels, any size."""
    return _classifier(3)


def _classifier(channels: int) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, stride=2),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(128, 6),
    )
