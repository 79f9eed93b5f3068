"""Training of quality metrics with two levels and three heads, as a sequence of states."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from defender.adam_training import fit_with_adam
from defender.augmentation import crop, mirror
from defender.losses import norm_in_norm
from defender.recipes import Recipe, later
from defender.training import Batches, TrainingState
from defender.training_parts import autocast

SCHEDULES = ("one-cycle", "steps")

_BACKBONE = "features"
"""Name of the backbone among the parts of the network."""


@dataclass(frozen=True, repr=False)
class QualityTraining(Recipe):
    """Adam with decoupled weight decay, and the Norm-in-Norm loss.

    The loss is ``l(final) + level_weight (l(level 6) + l(level 7))``, divided by the sum of the
    weights, with ``l`` as :func:`defender.losses.norm_in_norm`. It leaves scale and offset of the
    outputs open; :func:`defender.quality_labels.least_squares_line` settles them afterwards.
    Images are only cropped and mirrored, which leaves their quality as it is.

    Args:
        epochs: passes over the data.
        peak_lr: the highest learning rate. With the schedule ``one-cycle`` it is reached after
            ``warmup`` of the steps and then lowered along a cosine to zero; with ``steps`` it is
            the first rate.
        warmup: share of the steps before the peak; ``one-cycle`` only.
        weight_decay: share by which convolution and linear weights shrink in a step, times the
            learning rate.
        crop: side of the square that is cut out of each image; 0 takes whole images.
        flip: mirror half of the images left to right.
        p: norm of the difference in the loss.
        q: norm by which scores are normalised in the loss.
        level_weight: weight of the losses of levels 6 and 7.
        average_decay: decay of the exponential moving average of the weights that is shipped.
        precision: ``fp32`` or ``bf16`` (autocast; weights stay float32).
        backbone_rate: factor of the learning rate for the convolutional backbone, which the
            published recipe sets to 0.1; 0 leaves its weights as they are.
        schedule: ``one-cycle`` or ``steps``.
        step_epochs: epochs after which the rate is multiplied by ``decay``, again and again;
            ``steps`` only.
        decay: factor of the rate; ``steps`` only.

    Raises:
        ValueError: for an unknown schedule.

    Source: D. Li, T. Jiang, M. Jiang, "Norm-in-Norm Loss with Faster Convergence and Better
    Performance for Image Quality Assessment", ACM MM 2020, arXiv 2008.03889.
    Differs: by default on a one-cycle rate, with decoupled decay (I. Loshchilov, F. Hutter,
    "Decoupled Weight Decay Regularization", 2019, arXiv 1711.05101), mirrored, and with averaged
    weights; every one of these can be set as published. The weights are those after the last
    epoch, where the authors keep the epoch that is best on validation images.
    """

    epochs: int = 30
    peak_lr: float = 2e-3
    warmup: float = 0.15
    weight_decay: float = 0.02
    crop: int = 0
    flip: bool = True
    p: float = 1.0
    q: float = 2.0
    level_weight: float = 0.1
    average_decay: float = 0.998
    precision: str = "fp32"
    backbone_rate: float = later(1.0)
    schedule: str = later("one-cycle")
    step_epochs: int = later(10)
    decay: float = later(0.1)

    def __post_init__(self) -> None:
        """Check the schedule."""
        if self.schedule not in SCHEDULES:
            raise ValueError(
                f"schedule: expected one of {', '.join(SCHEDULES)}, got {self.schedule!r}"
            )

    def fit(
        self,
        batches: Batches,
        model: nn.Module,
        *,
        steps_per_epoch: int,
        seed: int,
        state: TrainingState | None = None,
    ) -> Iterator[TrainingState]:
        """Train ``model`` in place and yield a state after each epoch.

        Args:
            batches: ``batches(epoch)`` iterates over (uint8 images (n, c, h, w), labels (n,),
                larger for better images) in the order of that epoch; the same order every time.
            model: its method ``heads`` maps images in [0, 1] to three outputs (n,), of level 6,
                of level 7 and the final one; its weights are the start.
            steps_per_epoch: number of batches in an epoch.
            seed: seed of the augmentation.
            state: a state yielded before; training goes on after it, to the same end.

        Raises:
            ValueError: where images are smaller than ``crop``.
            FloatingPointError: when the loss is not finite.
        """

        def loss_of(pixels: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
            images = self._augmented(pixels, generator)
            with autocast(self.precision):
                return self.loss(model, images, labels)

        def stepped(step: int) -> float:
            return self.peak_lr * self.decay ** (step // steps_per_epoch // self.step_epochs)

        return fit_with_adam(
            self,
            batches,
            model,
            loss_of,
            steps_per_epoch=steps_per_epoch,
            seed=seed,
            state=state,
            rate_of=stepped if self.schedule == "steps" else None,
            share_of=lambda name: self.backbone_rate if _BACKBONE in name.split(".") else 1.0,
        )

    def loss(self, model: Any, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch, in [0, 1]: images (n, c, h, w) in [0, 1], labels (n,)."""
        level6, level7, final = (
            norm_in_norm(output.float(), labels.float(), self.p, self.q)
            for output in model.heads(images)
        )
        weighted = final + self.level_weight * (level6 + level7)
        return weighted / (1 + 2 * self.level_weight)

    def _augmented(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        if self.crop:
            pixels = crop(pixels, (self.crop, self.crop), generator)
        if self.flip:
            pixels = mirror(pixels, generator)
        return (pixels.float() / 255).contiguous(memory_format=torch.channels_last)
