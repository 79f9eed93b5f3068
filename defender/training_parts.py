"""What the trainings of this package share: rates, averages, precision."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


def one_cycle(step: int, steps: int, peak: float, warmup: float) -> float:
    """Learning rate that rises along a line and falls along a cosine to zero.

    Args:
        step: counted from 0.
        steps: steps in all.
        peak: highest rate.
        warmup: share of the steps before the peak.
    """
    rising = max(1, round(warmup * steps))
    if step < rising:
        return peak * (step + 1) / rising
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))


@torch.no_grad()
def average_into(average: dict[str, Tensor], model: nn.Module, step: int, decay: float) -> None:
    """Take the weights of a model into their exponential moving average, in place.

    Args:
        average: tensors under the names of the model's state dict.
        model: its weights after a step; whole numbers are copied.
        step: counted from 0; early averages forget sooner.
        decay: of the average.
    """
    decay = min(decay, (1 + step) / (10 + step))
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


def autocast(precision: str) -> AbstractContextManager[Any]:
    """Compute in ``fp32`` or, where that is sound, in ``bf16``; weights stay float32."""
    if precision == "bf16":
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return nullcontext()
