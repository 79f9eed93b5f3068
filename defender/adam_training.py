"""The loop of trainings with Adam: a sequence of states, one an epoch, that goes on from any."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from defender.adam import Adam
from defender.training import Batches, TrainingState
from defender.training_parts import average_into, one_cycle

BatchLoss = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""Loss of a batch, from its two tensors and a source of the random numbers of this step."""

Rate = Callable[[int], float]
"""Learning rate of a step, counted from 0."""

Share = Callable[[str], float]
"""Factor of the learning rate of a parameter, by its name."""


class AdamRecipe(Protocol):
    """What the loop asks of a recipe."""

    @property
    def epochs(self) -> int:
        """Passes over the data."""
        ...

    @property
    def peak_lr(self) -> float:
        """Learning rate at the top of the cycle."""
        ...

    @property
    def warmup(self) -> float:
        """Share of the steps before the peak."""
        ...

    @property
    def weight_decay(self) -> float:
        """Share by which convolution and linear weights shrink in a step, times the rate."""
        ...

    @property
    def average_decay(self) -> float:
        """Decay of the exponential moving average of the weights."""
        ...


def fit_with_adam(
    recipe: AdamRecipe,
    batches: Batches,
    model: nn.Module,
    loss_of: BatchLoss,
    *,
    steps_per_epoch: int,
    seed: int,
    state: TrainingState | None = None,
    rate_of: Rate | None = None,
    share_of: Share = lambda name: 1.0,
) -> Iterator[TrainingState]:
    """Train ``model`` in place and yield a state after each epoch.

    Args:
        recipe: epochs, one-cycle rate, decoupled weight decay and averaging.
        batches: ``batches(epoch)`` iterates over pairs of tensors in the order of that epoch; the
            same order every time. The length of the second is the number of images.
        model: its weights are the start.
        loss_of: the loss that is descended.
        steps_per_epoch: number of batches in an epoch.
        seed: seed of the random numbers of all steps.
        state: a state yielded before; training goes on after it, to the same end.
        rate_of: learning rate of a step; none: the one-cycle rate of the recipe.
        share_of: factor of that rate for a parameter; one with a factor of 0 stays as it is.

    Raises:
        FloatingPointError: when the loss is not finite.

    Source: D. P. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", 2015, arXiv
    1412.6980; I. Loshchilov, F. Hutter, "Decoupled Weight Decay Regularization", 2019, arXiv
    1711.05101.
    """
    state = state or TrainingState()
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad and share_of(n)]
    parameters, shares = [p for _, p in trained], [share_of(name) for name, _ in trained]
    optimisers = [Adam(p, step_size=0.0) for p in parameters]
    if state.epoch:
        model.load_state_dict(state.weights)
        for index, adam in enumerate(optimisers):
            adam.first, adam.second = state.momentum[2 * index : 2 * index + 2]
            adam.steps = state.epoch * steps_per_epoch
    else:
        state.average = {k: v.clone() for k, v in model.state_dict().items()}
        state.momentum = [m for adam in optimisers for m in (adam.first, adam.second)]
    total = steps_per_epoch * recipe.epochs
    if rate_of is None:
        rate_of = partial(one_cycle, steps=total, peak=recipe.peak_lr, warmup=recipe.warmup)
    while state.epoch < recipe.epochs:
        model.train()
        loss_sum, seen = 0.0, 0
        for index, (images, targets) in enumerate(batches(state.epoch)):
            step = state.epoch * steps_per_epoch + index
            generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
            loss = loss_of(images, targets, generator)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"training loss is {loss.item()} at step {step}")
            gradients = torch.autograd.grad(loss, parameters)
            rate = rate_of(step)
            rates = [rate * share for share in shares]
            _update(parameters, gradients, optimisers, rates, recipe.weight_decay)
            average_into(state.average, model, step, recipe.average_decay)
            loss_sum += loss.item() * len(targets)
            seen += len(targets)
        state.epoch += 1
        state.weights = {k: v.clone() for k, v in model.state_dict().items()}
        state.history.append({"loss": loss_sum / seen})
        yield state


@torch.no_grad()
def _update(
    parameters: list[nn.Parameter],
    gradients: tuple[Tensor, ...],
    optimisers: list[Adam],
    rates: list[float],
    weight_decay: float,
) -> None:
    for parameter, gradient, adam, rate in zip(
        parameters, gradients, optimisers, rates, strict=True
    ):
        adam.step_size = rate
        if parameter.ndim > 1:
            parameter.mul_(1 - rate * weight_decay)
        parameter.sub_(adam.step(gradient))
