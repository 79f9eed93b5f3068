"""Training of networks that purify, from clean images and what attacks made of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from defender.adam_training import fit_with_adam
from defender.augmentation import crop, mirror
from defender.metrics.structural import structural_similarity
from defender.training import Batches, TrainingState
from defender.training_parts import autocast


@dataclass(frozen=True)
class PurifierTraining:
    """Adam on the squared distance between purified and clean images, on squares cut out of them.

    The loss is ``mean((N(x') - x)^2) + ssim_weight (1 - SSIM(x, N(x')))`` for a network N, a clean
    image x and an attacked one x', over all values of a batch. In every epoch each image is shown
    once, by one of the attacks, drawn anew.

    Args:
        epochs: passes over the images.
        peak_lr: learning rate at the top of the cycle, reached after ``warmup`` of the steps and
            then lowered along a cosine to zero.
        warmup: share of the steps before the peak.
        weight_decay: share by which convolution weights shrink in a step, times the learning
            rate.
        crop: side of the square that is cut out of both images of a pair, at the same place; 0
            takes whole images.
        flip: mirror half of the pairs left to right.
        clean: share of the pairs, drawn at random, whose image nobody attacked, so that the
            network learns to leave such images alone.
        ssim_weight: weight of the structural similarity.
        average_decay: decay of the exponential moving average of the weights that is shipped.
        precision: ``fp32`` or ``bf16`` (autocast; weights stay float32).

    Source: A. Gushchin, A. Chistyakova, V. Minashkin, A. Antsiferova, D. Vatolin, "Adversarial
    purification for no-reference image-quality metrics: applicability study and new methods",
    2024, arXiv 2404.06957, and its code: squared error, Adam with 1e-3, batches of 4, 200 epochs.
    Differs: a one-cycle rate, crops, clean pairs; averaged weights of the last epoch, where the
    code keeps those of the epoch with the best SSIM on held-out images. So these choose nothing.
    """

    epochs: int = 100
    peak_lr: float = 1e-3
    warmup: float = 0.1
    weight_decay: float = 0.0
    crop: int = 128
    flip: bool = True
    clean: float = 0.1
    ssim_weight: float = 0.0
    average_decay: float = 0.998
    precision: str = "fp32"

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
            batches: ``batches(epoch)`` iterates over uint8 images (n, 1 + attacks, c, h, w), the
                clean one first, with a tensor of length n, in the order of that epoch; the same
                order every time.
            model: maps images in [0, 1] to images of the same shape; its weights are the start.
            steps_per_epoch: number of batches in an epoch.
            seed: seed of what is drawn.
            state: a state yielded before; training goes on after it, to the same end.

        Raises:
            ValueError: where images are smaller than ``crop``.
            FloatingPointError: when the loss is not finite.
        """

        def loss_of(versions: Tensor, _: Tensor, generator: torch.Generator) -> Tensor:
            clean, attacked = self.pairs(versions, generator)
            with autocast(self.precision):
                made = model(attacked)
            return self.loss(clean, made.float())

        return fit_with_adam(
            self, batches, model, loss_of, steps_per_epoch=steps_per_epoch, seed=seed, state=state
        )

    def loss(self, clean: Tensor, made: Tensor) -> Tensor:
        """The loss of purified images (n, c, h, w), which may leave [0, 1]."""
        loss = (made - clean).square().mean()
        if self.ssim_weight:
            similarity = structural_similarity(clean, made).mean().float()
            loss = loss + self.ssim_weight * (1 - similarity)
        return loss

    def pairs(self, versions: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Clean images and what is to be purified, cut and mirrored alike.

        Args:
            versions: uint8 (n, 1 + attacks, c, h, w), the clean image first.
            generator: source of all that is drawn.

        Returns:
            Two float tensors (n, c, side, side) in [0, 1].
        """
        n, count, channels = versions.shape[:3]
        drawn = torch.randint(1, count, (n,), generator=generator)
        if self.clean:
            untouched = torch.rand(n, generator=generator) < self.clean
            drawn = drawn.masked_fill(untouched, 0)
        both = torch.cat([versions[:, 0], versions[torch.arange(n), drawn]], dim=1)
        if self.crop:
            both = crop(both, (self.crop, self.crop), generator)
        if self.flip:
            both = mirror(both, generator)
        pair = both.float() / 255
        return pair[:, :channels], pair[:, channels:]
