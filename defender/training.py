"""Training of classifiers as a resumable sequence of states, one an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from defender.augmentation import augment
from defender.models.classifiers import Normalised
from defender.recipes import Recipe, later
from defender.scaling import Pipeline
from defender.training_parts import autocast, average_into, one_cycle

Batches = Callable[[int], Iterable[tuple[Tensor, Tensor]]]


@dataclass
class TrainingState:
    """Everything that continues a training exactly: plain numbers and tensors only.

    ``history`` holds one record an epoch: mean training loss and share of correct training
    predictions (augmented images, weights of the moment).
    """

    epoch: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    momentum: list[Tensor] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain containers, fit for ``torch.save`` and a weights-only load."""
        return dict(vars(self))

    @property
    def result(self) -> dict[str, Tensor]:
        """What the training is for: the averaged weights."""
        return self.average


def through_one(
    images: Tensor, pipelines: Sequence[Pipeline], generator: torch.Generator
) -> Tensor:
    """Resize each image by one of several pipelines of one target size, drawn at random.

    Args:
        images: (n, c, h, w) float in [0, 1].
        pipelines: at least one.
        generator: source of the draws.

    Returns:
        (n, c, height, width) of the pipelines' target.
    """
    drawn = torch.randint(len(pipelines), (len(images),), generator=generator)
    scaled = images.new_empty((*images.shape[:2], *pipelines[0].target))
    for index, pipeline in enumerate(pipelines):
        mine = drawn == index
        if mine.any():
            scaled[mine] = pipeline.of(images)(images[mine])
    return scaled


@dataclass(frozen=True, repr=False)
class ClassifierTraining(Recipe):
    """Stochastic gradient descent with Nesterov momentum on a one-cycle learning rate.

    Args:
        epochs: passes over the data.
        peak_lr: learning rate at the top of the cycle, reached after ``warmup`` of the steps and
            then lowered along a cosine to zero.
        momentum: Nesterov momentum.
        weight_decay: L2 penalty, on convolution and linear weights only.
        bias_rate: factor of the learning rate for shifts and other one-dimensional parameters.
        label_smoothing: mass given to the other classes.
        padding, flip, cutout, rotation, zoom, stretch, gamma, contrast, brightness: see
            :func:`defender.augmentation.augment`.
        average_decay: decay of the exponential moving average of the weights that is shipped.
        precision: ``fp32`` or ``bf16`` (autocast; weights stay float32).
        class_weights: ``equal``, or ``balanced``: the loss of an image is weighted by the inverse
            of the share of its class, so that every class has the same say.
        mixup: each image is mixed with another of its batch, ``w`` to ``1 - w``, and so is its
            loss, with one ``w`` a batch from a Beta distribution of this parameter; 0 for none.

    Source: H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018, arXiv 1710.09412.
    """

    epochs: int = 40
    peak_lr: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    bias_rate: float = 1.0
    label_smoothing: float = 0.1
    warmup: float = 0.2
    padding: int = 4
    flip: bool = True
    cutout: int = 8
    average_decay: float = 0.998
    precision: str = "fp32"
    rotation: float = later(0.0)
    zoom: float = later(0.0)
    gamma: float = later(0.0)
    contrast: float = later(0.0)
    brightness: float = later(0.0)
    class_weights: str = later("equal")
    stretch: float = later(0.0)
    mixup: float = later(0.0)

    def fit(
        self,
        batches: Batches,
        model: nn.Module,
        *,
        steps_per_epoch: int,
        seed: int,
        state: TrainingState | None = None,
        class_counts: Sequence[int] = (),
        pipelines: Sequence[Pipeline] = (),
    ) -> Iterator[TrainingState]:
        """Train ``model`` in place and yield a state after each epoch.

        Args:
            batches: ``batches(epoch)`` iterates over (uint8 images (n, c, h, w), labels (n,)) in
                the order of that epoch; the same order every time it is asked.
            model: maps images in [0, 1] to logits; its initial weights are the start.
            steps_per_epoch: number of batches in an epoch.
            seed: seed of the augmentation.
            state: a state yielded before; training goes on after it, to the same end.
            class_counts: training images of each class, for ``balanced`` class weights.
            pipelines: resizes in front of the model; every augmented image goes through one of
                them, drawn at random. Without any, the model sees images of their own size.

        Raises:
            ValueError: when ``balanced`` class weights are asked for without ``class_counts``.
            FloatingPointError: when the loss is not finite.
        """
        state = state or TrainingState()
        parameters = [p for p in model.parameters() if p.requires_grad]
        if state.epoch:
            model.load_state_dict(state.weights)
        else:
            self._initialise(model, batches, pipelines)
            state.average = {k: v.clone() for k, v in model.state_dict().items()}
            state.momentum = [torch.zeros_like(p) for p in parameters]
        decayed = [p.ndim > 1 for p in parameters]
        total = steps_per_epoch * self.epochs
        weights = self._class_weights(class_counts)
        device = parameters[0].device
        forked = [device] if device.type == "cuda" else []
        while state.epoch < self.epochs:
            model.train()
            loss_sum, correct, seen = 0.0, 0, 0
            for index, (pixels, labels) in enumerate(batches(state.epoch)):
                step = state.epoch * steps_per_epoch + index
                generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
                images = self._augmented(pixels.float() / 255, pipelines, generator)
                share, other = self._partners(len(labels), seed, step, generator)
                if other is not None:
                    images = share * images + (1 - share) * images[other]
                # dropout draws from torch's own generator, which no state holds
                with torch.random.fork_rng(devices=forked), autocast(self.precision):
                    torch.manual_seed(seed * 1_000_003 + step)
                    logits = model(images.contiguous(memory_format=torch.channels_last))
                    loss = self._loss(logits, labels, weights)
                    if other is not None:
                        mixed = self._loss(logits, labels[other], weights)
                        loss = share * loss + (1 - share) * mixed
                if not torch.isfinite(loss):
                    raise FloatingPointError(f"training loss is {loss.item()} at step {step}")
                gradients = torch.autograd.grad(loss, parameters)
                rate = one_cycle(step, total, self.peak_lr, self.warmup)
                self._update(parameters, gradients, decayed, state.momentum, rate)
                average_into(state.average, model, step, self.average_decay)
                loss_sum += loss.item() * len(labels)
                correct += int((logits.argmax(1) == labels).sum())
                seen += len(labels)
            state.epoch += 1
            state.weights = {k: v.clone() for k, v in model.state_dict().items()}
            state.history.append({"loss": loss_sum / seen, "accuracy": correct / seen})
            yield state

    def _class_weights(self, counts: Sequence[int]) -> Tensor | None:
        if self.class_weights == "equal":
            return None
        if not counts:
            raise ValueError("class_counts: expected the images of each class, got none")
        images = torch.tensor(counts, dtype=torch.float32)
        weights = images.sum() / ((images > 0).sum() * images)
        return weights.masked_fill(images == 0, 0.0)

    def _partners(
        self, count: int, seed: int, step: int, generator: torch.Generator
    ) -> tuple[float, Tensor | None]:
        """Share of the images themselves in a batch, and which others they are mixed with."""
        if not self.mixup:
            return 1.0, None
        share = float(np.random.default_rng([seed, step]).beta(self.mixup, self.mixup))
        return share, torch.randperm(count, generator=generator)

    def _loss(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        if weights is not None:
            weights = nn.functional.pad(weights, (0, logits.shape[1] - len(weights)))
        return nn.functional.cross_entropy(
            logits, labels, weights, label_smoothing=self.label_smoothing
        )

    def _augmented(
        self, images: Tensor, pipelines: Sequence[Pipeline], generator: torch.Generator
    ) -> Tensor:
        images = augment(
            images,
            padding=self.padding,
            flip=self.flip,
            cutout=self.cutout,
            rotation=self.rotation,
            zoom=self.zoom,
            stretch=self.stretch,
            gamma=self.gamma,
            contrast=self.contrast,
            brightness=self.brightness,
            generator=generator,
        )
        return through_one(images, pipelines, generator) if pipelines else images

    @staticmethod
    def _initialise(model: nn.Module, batches: Batches, pipelines: Sequence[Pipeline]) -> None:
        """Let a network that asks for it set fixed weights from the first training images."""
        network: Any = getattr(model, "network", None)
        if isinstance(model, Normalised) and hasattr(network, "initialise"):
            collected: list[Tensor] = []
            for pixels, _ in batches(0):
                collected.append(pixels)
                if sum(map(len, collected)) >= 5000:
                    break
            images = torch.cat(collected).float() / 255
            if pipelines:
                images = pipelines[0].of(images)(images)
            network.initialise((images - model.mean) / model.std)

    @torch.no_grad()
    def _update(
        self,
        parameters: list[nn.Parameter],
        gradients: tuple[Tensor, ...],
        decayed: list[bool],
        momentum: list[Tensor],
        rate: float,
    ) -> None:
        for parameter, gradient, decay, velocity in zip(
            parameters, gradients, decayed, momentum, strict=True
        ):
            direction = gradient + self.weight_decay * parameter if decay else gradient
            velocity.mul_(self.momentum).add_(direction)
            own = rate if decay else rate * self.bias_rate
            parameter.sub_(own * (direction + self.momentum * velocity))
