"""ArcFace: a classification of people by angles, with a margin that the right one must keep."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from defender.adam_training import fit_with_adam
from defender.augmentation import augment
from defender.training import Batches, TrainingState
from defender.training_parts import autocast


def additive_angular_margin(
    cosines: Tensor, labels: Tensor, margin: float = 0.5, scale: float = 64.0
) -> Tensor:
    """``s cos(theta + m)`` for the right class and ``s cos(theta)`` for the others.

    Args:
        cosines: (n, classes), of the angles between embeddings and class centres, in [-1, 1].
        labels: int64 (n,), the right classes.
        margin: m, in radians, [0, pi / 2].
        scale: s, above 0.

    Returns:
        Logits (n, classes) for a cross-entropy.

    Source: J. Deng, J. Guo, N. Xue, S. Zafeiriou, "ArcFace: Additive Angular Margin Loss for Deep
    Face Recognition", 2019, arXiv 1801.07698, equation 3.
    Differs: where ``theta + m`` would be above pi, the logit is ``s (cos(theta) - m sin(m))``, as
    in the authors' code, so that it still falls as the angle grows.
    """
    right = labels.unsqueeze(1)
    cosine = cosines.gather(1, right)
    # the root has no finite slope where the angle is 0 or pi
    sine = (1 - cosine * cosine).clamp_min(1e-9).sqrt()
    further = cosine * math.cos(margin) - sine * math.sin(margin)
    straight = cosine - margin * math.sin(margin)
    wanted = torch.where(cosine > math.cos(math.pi - margin), further, straight)
    return scale * cosines.scatter(1, right, wanted)


class ArcFaceHead(nn.Module):
    """Cosines of the angles between embeddings and one learned centre for each person.

    Args:
        people: number of people.
        width: length of embeddings.
    """

    def __init__(self, people: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(people, width))
        nn.init.normal_(self.weight, std=0.01)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map embeddings (n, width) of any length to cosines (n, people)."""
        centres = functional.normalize(self.weight.float())
        return functional.normalize(embeddings.float()) @ centres.T


@dataclass(frozen=True)
class FaceTraining:
    """Adam with decoupled weight decay on a one-cycle rate, and the loss of ArcFace.

    Args:
        epochs: passes over the data.
        peak_lr: learning rate at the top of the cycle, reached after ``warmup`` of the steps and
            then lowered along a cosine to zero.
        warmup: share of the steps before the peak.
        weight_decay: share by which convolution and linear weights shrink in a step, times the
            learning rate.
        margin: angle in radians by which the right person must be nearer than the others.
        scale: factor of the cosines in the cross-entropy.
        padding, flip, cutout, rotation, zoom, gamma, contrast, brightness: see
            :func:`defender.augmentation.augment`.
        average_decay: decay of the exponential moving average of the weights that is shipped.
        precision: ``fp32`` or ``bf16`` (autocast; weights stay float32).

    Source: J. Deng, J. Guo, N. Xue, S. Zafeiriou, "ArcFace: Additive Angular Margin Loss for Deep
    Face Recognition", 2019, arXiv 1801.07698.
    Differs: Adam with decoupled decay (I. Loshchilov, F. Hutter, "Decoupled Weight Decay
    Regularization", 2019, arXiv 1711.05101) in place of momentum, a one-cycle rate in place of
    steps, averaged weights, and augmentation.
    """

    epochs: int = 30
    peak_lr: float = 1e-3
    warmup: float = 0.2
    weight_decay: float = 0.05
    margin: float = 0.5
    scale: float = 64.0
    padding: int = 0
    flip: bool = True
    cutout: int = 0
    rotation: float = 0.0
    zoom: float = 0.0
    gamma: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
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
            batches: ``batches(epoch)`` iterates over (uint8 images (n, c, h, w), int64 people (n,)
                counted from 0) in the order of that epoch; the same order every time.
            model: maps images in [0, 1] to cosines (n, people); its weights are the start.
            steps_per_epoch: number of batches in an epoch.
            seed: seed of augmentation and dropout.
            state: a state yielded before; training goes on after it, to the same end.

        Raises:
            FloatingPointError: when the loss is not finite.
        """
        device = next(model.parameters()).device
        forked = [device] if device.type == "cuda" else []

        def loss_of(pixels: Tensor, people: Tensor, generator: torch.Generator) -> Tensor:
            images = self._augmented(pixels, generator)
            # dropout draws from torch's own generator, which no state holds
            with torch.random.fork_rng(devices=forked), autocast(self.precision):
                torch.manual_seed(int(torch.randint(1 << 62, (), generator=generator)))
                cosines = model(images)
            return self.loss(cosines.float(), people)

        return fit_with_adam(
            self, batches, model, loss_of, steps_per_epoch=steps_per_epoch, seed=seed, state=state
        )

    def loss(self, cosines: Tensor, people: Tensor) -> Tensor:
        """Mean cross-entropy in nats: cosines (n, people) of any, int64 (n,) of the right ones."""
        logits = additive_angular_margin(cosines, people, self.margin, self.scale)
        return functional.cross_entropy(logits, people)

    def _augmented(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        images = augment(
            pixels.float() / 255,
            padding=self.padding,
            flip=self.flip,
            cutout=self.cutout,
            rotation=self.rotation,
            zoom=self.zoom,
            gamma=self.gamma,
            contrast=self.contrast,
            brightness=self.brightness,
            generator=generator,
        )
        return images.contiguous(memory_format=torch.channels_last)
