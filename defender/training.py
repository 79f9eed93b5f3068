"""Training of classifiers as a resumable sequence of states, one an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from defender.models.classifiers import Normalised

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


def augment(
    images: Tensor, *, padding: int, flip: bool, cutout: int, generator: torch.Generator
) -> Tensor:
    """Random crop after reflective padding, mirror, and one blanked square, image by image.

    Args:
        images: (n, c, h, w) float in [0, 1].
        padding: pixels added on each side before cropping back.
        flip: mirror half of the images left to right.
        cutout: side of the square that is set to mid grey; 0 switches it off.
        generator: source of all random numbers.

    Source: T. DeVries and G. W. Taylor, "Improved Regularization of Convolutional Neural
    Networks with Cutout", 2017, arXiv 1708.04552.
    """
    n, _, height, width = images.shape
    if flip:
        mirrored = torch.rand(n, generator=generator) < 0.5
        images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
    if padding:
        padded = nn.functional.pad(images, [padding] * 4, mode="reflect")
        top = torch.randint(0, 2 * padding + 1, (n,), generator=generator)
        left = torch.randint(0, 2 * padding + 1, (n,), generator=generator)
        rows = (top.view(-1, 1) + torch.arange(height)).view(n, 1, height, 1)
        columns = (left.view(-1, 1) + torch.arange(width)).view(n, 1, 1, width)
        index = torch.arange(n).view(n, 1, 1, 1)
        channel = torch.arange(images.shape[1]).view(1, -1, 1, 1)
        images = padded[index, channel, rows, columns]
    if cutout:
        centre_row = torch.randint(0, height, (n, 1), generator=generator)
        centre_column = torch.randint(0, width, (n, 1), generator=generator)
        row_inside = (torch.arange(height) - centre_row + cutout // 2).div(
            cutout, rounding_mode="floor"
        ) == 0
        column_inside = (torch.arange(width) - centre_column + cutout // 2).div(
            cutout, rounding_mode="floor"
        ) == 0
        blank = row_inside.unsqueeze(2) & column_inside.unsqueeze(1)
        images = images.masked_fill(blank.unsqueeze(1), 0.5)
    return images


@dataclass(frozen=True)
class ClassifierTraining:
    """Stochastic gradient descent with Nesterov momentum on a one-cycle learning rate.

    Args:
        epochs: passes over the data.
        peak_lr: learning rate at the top of the cycle, reached after ``warmup`` of the steps and
            then lowered along a cosine to zero.
        momentum: Nesterov momentum.
        weight_decay: L2 penalty, on convolution and linear weights only.
        bias_rate: factor of the learning rate for shifts and other one-dimensional parameters.
        label_smoothing: mass given to the other classes.
        padding, flip, cutout: see :func:`augment`.
        average_decay: decay of the exponential moving average of the weights that is shipped.
        precision: ``fp32`` or ``bf16`` (autocast; weights stay float32).
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

    def learning_rate(self, step: int, steps: int) -> float:
        """Learning rate of ``step`` (counted from 0) among ``steps`` in all."""
        rising = max(1, round(self.warmup * steps))
        if step < rising:
            return self.peak_lr * (step + 1) / rising
        return self.peak_lr * 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))

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
            batches: ``batches(epoch)`` iterates over (uint8 images (n, c, h, w), labels (n,)) in
                the order of that epoch; the same order every time it is asked.
            model: maps images in [0, 1] to logits; its initial weights are the start.
            steps_per_epoch: number of batches in an epoch.
            seed: seed of the augmentation.
            state: a state yielded before; training goes on after it, to the same end.

        Raises:
            FloatingPointError: when the loss is not finite.
        """
        state = state or TrainingState()
        parameters = [p for p in model.parameters() if p.requires_grad]
        if state.epoch:
            model.load_state_dict(state.weights)
        else:
            self._initialise(model, batches)
            state.average = {k: v.clone() for k, v in model.state_dict().items()}
            state.momentum = [torch.zeros_like(p) for p in parameters]
        decayed = [p.ndim > 1 for p in parameters]
        total = steps_per_epoch * self.epochs
        while state.epoch < self.epochs:
            model.train()
            loss_sum, correct, seen = 0.0, 0, 0
            for index, (pixels, labels) in enumerate(batches(state.epoch)):
                step = state.epoch * steps_per_epoch + index
                generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
                images = augment(
                    pixels.float() / 255,
                    padding=self.padding,
                    flip=self.flip,
                    cutout=self.cutout,
                    generator=generator,
                ).contiguous(memory_format=torch.channels_last)
                with self._autocast():
                    logits = model(images)
                    loss = nn.functional.cross_entropy(
                        logits, labels, label_smoothing=self.label_smoothing
                    )
                if not torch.isfinite(loss):
                    raise FloatingPointError(f"training loss is {loss.item()} at step {step}")
                gradients = torch.autograd.grad(loss, parameters)
                self._update(parameters, gradients, decayed, state.momentum, step, total)
                self._average(model, state.average, step)
                loss_sum += loss.item() * len(labels)
                correct += int((logits.argmax(1) == labels).sum())
                seen += len(labels)
            state.epoch += 1
            state.weights = {k: v.clone() for k, v in model.state_dict().items()}
            state.history.append({"loss": loss_sum / seen, "accuracy": correct / seen})
            yield state

    @staticmethod
    def _initialise(model: nn.Module, batches: Batches) -> None:
        """Let a network that asks for it set fixed weights from the first training images."""
        network: Any = getattr(model, "network", None)
        if isinstance(model, Normalised) and hasattr(network, "initialise"):
            collected: list[Tensor] = []
            for pixels, _ in batches(0):
                collected.append(pixels)
                if sum(map(len, collected)) >= 5000:
                    break
            images = torch.cat(collected).float() / 255
            network.initialise((images - model.mean) / model.std)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "bf16":
            return torch.autocast("cpu", dtype=torch.bfloat16)
        return nullcontext()

    @torch.no_grad()
    def _update(
        self,
        parameters: list[nn.Parameter],
        gradients: tuple[Tensor, ...],
        decayed: list[bool],
        momentum: list[Tensor],
        step: int,
        total: int,
    ) -> None:
        rate = self.learning_rate(step, total)
        for parameter, gradient, decay, velocity in zip(
            parameters, gradients, decayed, momentum, strict=True
        ):
            direction = gradient + self.weight_decay * parameter if decay else gradient
            velocity.mul_(self.momentum).add_(direction)
            own = rate if decay else rate * self.bias_rate
            parameter.sub_(own * (direction + self.momentum * velocity))

    @torch.no_grad()
    def _average(self, model: nn.Module, average: dict[str, Tensor], step: int) -> None:
        decay = min(self.average_decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                average[name].lerp_(value, 1 - decay)
            else:
                average[name].copy_(value)
