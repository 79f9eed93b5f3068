"""Tiny diffusion models for tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from defender.diffusion.prior import Prior
from defender.diffusion.schedule import NoiseSchedule
from defender.models.unet import UNet


class Counting(nn.Module):
    """Notes the steps at which a network is asked."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.asked: list[int] = []

    def forward(self, x: Tensor, steps: Tensor) -> Tensor:
        assert len(set(steps.tolist())) == 1
        self.asked.append(int(steps[0]))
        result: Tensor = self.network(x, steps)
        return result


class PointPrior(nn.Module):
    """Knows that every image is ``point``: predicts the noise without an error."""

    def __init__(self, point: float, schedule: NoiseSchedule | None = None) -> None:
        super().__init__()
        self.point = point
        self.schedule = schedule or NoiseSchedule()

    def forward(self, x: Tensor, steps: Tensor) -> Tensor:
        kept = self.schedule.abar[steps].float()[:, None, None, None]
        return (x - kept.sqrt() * self.point) / (1 - kept).sqrt()


def tiny_network(seed: int = 23, channels: int = 3) -> UNet:
    """A network of a thousandth of the usual size, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet(8, (1, 2), (), groups=4, patch=2, channels=channels, blocks=1)


def tiny_prior(side: int = 16, channels: int = 3) -> Prior:
    """A prior with random weights for images of ``side`` pixels."""
    prior = Prior(tiny_network(channels=channels), (side, side), name="tiny", digest="0123456789ab")
    return prior.requires_grad_(False).eval()


def of(network: nn.Module, side: int = 16, schedule: NoiseSchedule | None = None) -> Prior:
    """A prior around a network."""
    return Prior(network, (side, side), schedule).requires_grad_(False).eval()
