"""A diffusion model as a prior of images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from defender.diffusion.schedule import NoiseSchedule

KEPT_CALLS = 4
"""Network calls up to which a gradient keeps what the layers made; more are computed anew."""


class Prior(nn.Module):
    """A network that predicts noise, with the schedule that it was trained for.

    Args:
        network: maps noisy images (n, c, h, w), of which clean ones lie in [-1, 1], and step
            numbers int64 (n,) to the noise; results with twice the channels also hold a variance,
            which is left out.
        size: height and width of the images that it was trained on.
        schedule: noise levels of the steps.
        name: for reports.
        digest: of weights and architecture.
    """

    def __init__(
        self,
        network: nn.Module,
        size: tuple[int, int],
        schedule: NoiseSchedule | None = None,
        name: str = "prior",
        digest: str = "",
    ) -> None:
        super().__init__()
        self.network = network
        self.size = size
        self.schedule = schedule or NoiseSchedule()
        self.name = name
        self.digest = digest

    def forward(self, noisy: Tensor, step: int) -> Tensor:
        """Predict the noise in images that are all at the same step.

        Args:
            noisy: (n, c, h, w), ``x_t``.
            step: t.

        Returns:
            (n, c, h, w).
        """
        steps = torch.full((len(noisy),), step, dtype=torch.int64, device=noisy.device)
        predicted: Tensor = self.network(noisy, steps)
        return predicted[:, : noisy.shape[1]]

    def noise(self, noisy: Tensor, step: int, *, frugal: bool = False) -> Tensor:
        """As the call; with ``frugal`` a gradient computes the network anew.

        What the layers made is then not kept for it, so that memory does not grow with the calls.
        """
        if frugal and noisy.requires_grad:
            again: Tensor = checkpoint(
                self, noisy, step, use_reentrant=False, preserve_rng_state=False
            )
            return again
        predicted: Tensor = self(noisy, step)
        return predicted

    def without(self, noisy: Tensor, noise: Tensor, step: int) -> Tensor:
        """The image that ``x_t`` was made from: ``(x_t - sqrt(1 - abar_t) z) / sqrt(abar_t)``."""
        kept = self.schedule.abar[step]
        image: Tensor = (noisy - float((1 - kept).sqrt()) * noise) / float(kept.sqrt())
        return image

    def denoised(self, noisy: Tensor, step: int, *, frugal: bool = False) -> Tensor:
        """The mean of all images that could have become ``x_t``, not clamped.

        Args:
            noisy: (n, c, h, w), ``x_t``.
            step: t.
            frugal: as :meth:`noise` has it.
        """
        return self.without(noisy, self.noise(noisy, step, frugal=frugal), step)

    @property
    def channels(self) -> int | None:
        """Channels of the images that the network takes, where it says so."""
        return _stated(self.network, "channels")

    @property
    def side_unit(self) -> int:
        """What the sides of images must be multiples of."""
        return _stated(self.network, "side_unit") or 1

    def __repr__(self) -> str:
        return f"{self.name}@{self.digest[:12]}"


def _stated(network: nn.Module, name: str) -> int | None:
    """A whole number that a network has as an attribute, or the one within its wrapper."""
    inside = getattr(network, "network", network)
    value = getattr(network, name, getattr(inside, name, None))
    return None if value is None else int(value)
