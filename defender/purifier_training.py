"""Training of networks that purify, from clean images and what attacks made of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from defender.adam_training import fit_with_adam
from defender.augmentation import crop, mirror
from defender.gradients import gradient
from defender.metrics.structural import structural_similarity
from defender.objectives import RaiseScore
from defender.training import Batches, TrainingState
from defender.training_parts import autocast
from defender.types import QualityMetric


@dataclass(frozen=True)
class PurifierTraining:
    """Adam on the squared distance between purified and clean images, on squares cut out of them.

    The loss is ``mean((N(x') - x)^2) + ssim_weight (1 - SSIM(x, N(x')))`` for a network N, a clean
    image x and an attacked one x', over all values of a batch. In every epoch each image is shown
    once, by one of the attacks, drawn anew. Where a quality metric q is known,
    ``score_weight mean(|q(N(x')) - q(x)|) / span`` is added; and a share ``adversary`` of the pairs
    is attacked in every step through the network as it is then, so that it learns to stand
    attackers who know it.

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
        score_weight: weight of what is left of the change of the metric's score, as a share of the
            width of its range.
        adversary: share of the pairs that are attacked through the network: projected gradient
            steps on the metric's score, from a random place in the ball.
        adversary_epsilon: largest change of a value by that attack.
        adversary_steps: its steps, each of 2.5 / steps of the radius.
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
    score_weight: float = 0.0
    adversary: float = 0.0
    adversary_epsilon: float = 8 / 255
    adversary_steps: int = 5
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
        metric: QualityMetric | None = None,
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
            metric: what ``score_weight`` and ``adversary`` are about.

        Raises:
            ValueError: where images are smaller than ``crop``, or a metric is missing.
            FloatingPointError: when the loss is not finite.
        """
        if metric is None and (self.score_weight or self.adversary):
            raise ValueError("metric: expected one for score_weight and adversary, got None")

        def loss_of(versions: Tensor, _: Tensor, generator: torch.Generator) -> Tensor:
            clean, attacked = self.pairs(versions, generator)
            if metric is not None and self.adversary:
                chosen = torch.rand(len(clean), generator=generator) < self.adversary
                against = self.against(model, metric, clean[chosen], generator)
                attacked[chosen.to(attacked.device)] = against
            with autocast(self.precision):
                made = model(attacked)
            loss = self.loss(clean, made.float())
            if metric is not None and self.score_weight:
                change = RaiseScore(metric, clean)
                with torch.no_grad():
                    wanted = change(clean)
                left = (change(made.float().clamp(0.0, 1.0)) - wanted).abs().mean()
                loss = loss + self.score_weight * left / change.span
            return loss

        return fit_with_adam(
            self, batches, model, loss_of, steps_per_epoch=steps_per_epoch, seed=seed, state=state
        )

    def against(
        self, model: nn.Module, metric: QualityMetric, clean: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Attacks on the metric by someone who knows the network as it is.

        Args:
            model: the network.
            metric: what is to be raised behind it.
            clean: (n, c, h, w) in [0, 1].
            generator: source of the start.

        Returns:
            (n, c, h, w) in [0, 1], within ``adversary_epsilon`` of the clean images.

        Source: A. Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks",
        2018, arXiv 1706.06083.
        """
        if not len(clean):
            return clean
        goal = RaiseScore(metric, clean)

        def behind(images: Tensor) -> Tensor:
            with autocast(self.precision):
                made = model(images)
            return goal(made.float().clamp(0.0, 1.0))

        epsilon, step = self.adversary_epsilon, 2.5 * self.adversary_epsilon / self.adversary_steps
        start = torch.rand(clean.shape, generator=generator).to(clean).mul_(2).sub_(1)
        attacked = (clean + epsilon * start).clamp_(0.0, 1.0)
        for _ in range(self.adversary_steps):
            upward = gradient(behind, attacked).sign_()
            attacked = (attacked + step * upward).clamp(clean - epsilon, clean + epsilon)
            attacked.clamp_(0.0, 1.0)
        return attacked

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
