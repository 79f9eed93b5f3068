"""Small networks with fixed weights that the cases of the contracts work on."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from defender.models import Normalised
from defender.models.fcn import fcn, residual_fcn

CLASSES = 5
SIDE = 12


def classifier(channels: int = 3, dtype: torch.dtype = torch.float32) -> Normalised:
    """A convolution, a smooth bend and a linear layer with fixed weights, 5 classes."""
    generator = torch.Generator().manual_seed(20)
    network = nn.Sequential(
        nn.Conv2d(channels, 4, 3, stride=2, padding=1),
        nn.Softplus(),
        nn.Flatten(),
        nn.Linear(4 * (SIDE // 2) ** 2, CLASSES),
    )
    digest = hashlib.sha256()
    with torch.no_grad():
        for weight in network.parameters():
            weight.normal_(0.0, 0.3, generator=generator)
            digest.update(weight.numpy().tobytes())
    model = Normalised(network, (0.5,), (0.25,), name="tiny", digest=digest.hexdigest())
    return model.to(dtype).eval()


class SmoothQuality(nn.Module):
    """A toy image-quality metric: a smooth network, one score an image, larger is better."""

    lower_is_better = False
    needs_reference = False
    score_range = (0.0, 100.0)

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(21)
        self.first = nn.Conv2d(channels, 4, 3, padding=1)
        self.last = nn.Linear(4, 1)
        with torch.no_grad():
            for weight in self.parameters():
                weight.normal_(0.0, 0.5, generator=generator)
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor, reference: Tensor | None = None) -> Tensor:
        """Score (n,) of images (n, c, h, w)."""
        features = nn.functional.softplus(self.first(images - 0.5)).mean(dim=(2, 3))
        return 50 + 20 * self.last(features)[:, 0]

    def __repr__(self) -> str:
        return "smooth-quality"


def image_network(*, residual: bool = False) -> Normalised:
    """A network from image to image with fixed weights, behind its name and digest."""
    generator = torch.Generator().manual_seed(22)
    network = residual_fcn() if residual else fcn()
    with torch.no_grad():
        for weight in network.parameters():
            weight.normal_(0.0, 0.1, generator=generator)
    name = "residual-fcn" if residual else "fcn"
    return Normalised(network, name=name, digest="0123456789abcdef").eval()
