"""A diffusion model as a prior of images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from defender.diffusion.schedule import NoiseSchedule


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

    def denoised(self, noisy: Tensor, step: int) -> Tensor:
        """The image that is the mean of all that could have become ``x_t``.

        ``x_0 = (x_t - sqrt(1 - abar_t) noise) / sqrt(abar_t)``, not clamped.
        """
        kept = self.schedule.abar[step]
        lost = float((1 - kept).sqrt())
        image: Tensor = (noisy - lost * self(noisy, step)) / float(kept.sqrt())
        return image

    def __repr__(self) -> str:
        return f"{self.name}@{self.digest[:12]}"
