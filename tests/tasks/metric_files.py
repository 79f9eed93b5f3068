"""Checkpoints of Linearity metrics with random values, and a plain second implementation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from defender.models.linearity import Linearity

State = dict[str, Tensor]


def random_state(arch: str, seed: int = 11) -> State:
    """A state dict of the public layout; batch statistics are random too."""
    torch.manual_seed(seed)
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in Linearity(arch).state_dict().items()}
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith("running_var"):
            state[name] = torch.rand(shape) + 0.5
        elif len(shape) > 1:
            state[name] = torch.randn(shape) * shape[1:].numel() ** -0.5
        else:
            state[name] = torch.randn(shape) * 0.1 + float("weight" in name)
    return state


def save(path: Path, state: State, k: Any = 2.0, b: Any = 40.0, **more: Any) -> Path:
    """Write a checkpoint as the public ones are."""
    torch.save({"model": state, "optimizer": {"step": 3}, "k": k, "b": b, **more}, path)
    return path


def second_opinion(
    backbone: Callable[..., nn.Module], state: State, images: Tensor, k: float, b: float
) -> Tensor:
    """Scores of a Linearity metric on a torchvision ResNet, step by step.

    Children of the backbone but the last two; averages after children 6 and 7; each through
    Linear, BatchNorm, Linear, BatchNorm, Linear, BatchNorm, ReLU; one line of both.
    """
    features = nn.Sequential(*list(backbone(weights=None).children())[:-2])
    prefix = "features."
    features.load_state_dict(
        {name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)}
    )
    features.eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (images - mean[:, None, None]) / std[:, None, None]
    levels = {}
    with torch.no_grad():
        for index, child in enumerate(features):
            x = child(x)
            levels[index] = functional.avg_pool2d(x, tuple(x.shape[2:])).flatten(1)
        vectors = []
        for level in (6, 7):
            x = levels[level]
            for layer in (0, 2, 4):
                at, norm = f"dr{level}.{layer}", f"dr{level}.{layer + 1}"
                x = functional.linear(x, state[f"{at}.weight"], state[f"{at}.bias"])
                x = (x - state[f"{norm}.running_mean"]) / (
                    state[f"{norm}.running_var"] + 1e-5
                ).sqrt()
                x = x * state[f"{norm}.weight"] + state[f"{norm}.bias"]
            vectors.append(x.clamp(min=0))
        weight, bias = state["regression.weight"], state["regression.bias"]
        return k * (torch.cat(vectors, 1) @ weight[0] + bias) + b
