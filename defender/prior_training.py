"""Training of diffusion models on images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from defender.adam_training import fit_with_adam
from defender.augmentation import mirror
from defender.diffusion.schedule import NoiseSchedule
from defender.training import Batches, TrainingState
from defender.training_parts import autocast


@dataclass(frozen=True)
class PriorTraining:
    """Adam on the squared error of the predicted noise.

    The loss is ``mean((N(sqrt(abar_t) x + sqrt(1 - abar_t) z, t) - z)^2)`` for a network N, images
    x in [-1, 1] and normal numbers z, with a step t drawn for every image.

    Args:
        epochs: passes over the images.
        peak_lr: learning rate at the top of the cycle, reached after ``warmup`` of the steps and
            then lowered along a cosine to zero.
        warmup: share of the steps before the peak.
        weight_decay: share by which weights shrink in a step, times the learning rate.
        flip: mirror half of the images left to right.
        low_share: share of the images whose step is drawn among the first ``low_steps`` instead of
            among all: purification uses these.
        low_steps: how many steps count as low.
        average_decay: decay of the exponential moving average of the weights that is shipped.
        precision: ``fp32`` or ``bf16`` (autocast; weights stay float32).

    Source: J. Ho, A. Jain, P. Abbeel, "Denoising Diffusion Probabilistic Models", 2020, arXiv
    2006.11239.
    Differs: a one-cycle rate in place of a constant one; low steps are drawn more often; no
    dropout.
    """

    epochs: int = 100
    peak_lr: float = 1e-3
    warmup: float = 0.1
    weight_decay: float = 0.0
    flip: bool = True
    low_share: float = 0.0
    low_steps: int = 250
    average_decay: float = 0.999
    precision: str = "fp32"

    def fit(
        self,
        batches: Batches,
        model: nn.Module,
        schedule: NoiseSchedule,
        *,
        steps_per_epoch: int,
        seed: int,
        state: TrainingState | None = None,
    ) -> Iterator[TrainingState]:
        """Train ``model`` in place and yield a state after each epoch.

        Args:
            batches: ``batches(epoch)`` iterates over uint8 images (n, c, h, w) with a tensor of
                length n, in the order of that epoch; the same order every time.
            model: maps noisy images and their steps to the noise; its weights are the start.
            schedule: noise levels of the steps.
            steps_per_epoch: number of batches in an epoch.
            seed: seed of what is drawn.
            state: a state yielded before; training goes on after it, to the same end.

        Raises:
            ValueError: where there are more low steps than steps.
            FloatingPointError: when the loss is not finite.
        """
        if not 1 <= self.low_steps <= schedule.steps:
            raise ValueError(f"low_steps: expected [1, {schedule.steps}], got {self.low_steps}")

        def loss_of(pixels: Tensor, _: Tensor, generator: torch.Generator) -> Tensor:
            noisy, steps, noise = self.noisy(pixels, schedule, generator)
            with autocast(self.precision):
                predicted = model(noisy.contiguous(memory_format=torch.channels_last), steps)
            loss: Tensor = (predicted.float() - noise).square().mean()
            return loss

        return fit_with_adam(
            self, batches, model, loss_of, steps_per_epoch=steps_per_epoch, seed=seed, state=state
        )

    def noisy(
        self, pixels: Tensor, schedule: NoiseSchedule, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Images with noise in them, their steps, and the noise.

        Args:
            pixels: uint8 (n, c, h, w).
            schedule: noise levels of the steps.
            generator: source of all that is drawn.

        Returns:
            float32 (n, c, h, w), int64 (n,) and float32 (n, c, h, w).
        """
        if self.flip:
            pixels = mirror(pixels, generator)
        images = pixels.float().div_(127.5).sub_(1.0)
        steps = torch.randint(schedule.steps, (len(images),), generator=generator)
        if self.low_share:
            low = torch.rand(len(images), generator=generator) < self.low_share
            drawn = torch.randint(self.low_steps, (len(images),), generator=generator)
            steps = torch.where(low, drawn, steps)
        noise = torch.randn(images.shape, generator=generator)
        kept = schedule.abar[steps].float()[:, None, None, None]
        return kept.sqrt() * images + (1 - kept).sqrt() * noise, steps, noise
