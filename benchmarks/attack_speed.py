"""Our I-FGSM against the raw passes it is made of, and against torchattacks' BIM."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from defender.attacks import IFGSM
from defender.norms import to_uint8
from defender.objectives import Misclassify
from tasks.models import load_model
from tasks.subject_specs import ModelSpec

EPSILON, STEP, STEPS, BATCH, ROUNDS = 8 / 255, 2 / 255, 10, 64, 12


def seconds(action: Callable[[], Any]) -> float:
    """Wall time of one call."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def paired(one: Callable[[], Any], two: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """Median of the ratios one / two over rounds that alternate which goes first."""
    one(), two()
    ratios = []
    for number in range(rounds):
        if number % 2:
            second = seconds(two)
            first = seconds(one)
        else:
            first = seconds(one)
            second = seconds(two)
        ratios.append(first / second)
    return statistics.median(ratios)


def raw_passes(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Forward and backward passes alone, as many as the attack takes."""
    for _ in range(STEPS):
        leaf = images.detach().requires_grad_(True)
        loss = nn.functional.cross_entropy(model(leaf), labels, reduction="sum")
        torch.autograd.grad(loss, leaf)


def run(_images: int) -> dict[str, Any]:
    """Ratios below 1 mean that ours is faster."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(ModelSpec(name="cifar-resnet"), Path(), device)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (BATCH, 3, 32, 32), generator=generator).float().div(255)
    images = images.to(device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (BATCH,), generator=generator).to(device)
    seeds = torch.arange(BATCH, device=device)
    attack = IFGSM(epsilon=EPSILON, step_size=STEP, steps=STEPS)

    def ours() -> Tensor:
        return attack(images, Misclassify(model, labels), seeds=seeds)

    figures: dict[str, Any] = {
        "device": device.type,
        "torch threads": torch.get_num_threads(),
        "IFGSM / raw forward and backward passes": round(
            paired(ours, lambda: raw_passes(model, images, labels)), 4
        ),
    }
    halves = [
        attack(images[i : i + 32], Misclassify(model, labels[i : i + 32]), seeds=seeds[i : i + 32])
        for i in (0, 32)
    ]
    differing = (to_uint8(ours()) != to_uint8(torch.cat(halves))).float().mean()
    figures["share of pixels that differ between batches of 64 and 32"] = f"{float(differing):.5f}"
    if find_spec("torchattacks") is None:
        figures["IFGSM / torchattacks BIM"] = "not measured: torchattacks is not installed"
        return figures
    import torchattacks

    theirs = torchattacks.BIM(model, eps=EPSILON, alpha=STEP, steps=STEPS)
    same = (ours() - theirs(images, labels)).abs().amax()
    figures["largest difference of the attacked images"] = f"{float(same):.2e}"
    figures["IFGSM / torchattacks BIM"] = round(paired(ours, lambda: theirs(images, labels)), 4)
    return figures
