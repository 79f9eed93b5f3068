"""DDRM with the network calls that matter against all of its calls, to the same bits."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from defender.diffusion.prior import Prior
from defender.models.unet import ddpm_celeba_hq, small_prior
from defender.purifiers import DDRM
from defender.purifiers.diffusing import RANGES


def run(_images: int) -> dict[str, Any]:
    """Ratios above 1 mean that leaving calls out is faster; the weights are random."""
    return against_all_calls(small_prior, batch=64, side=32, rounds=3)


def run_large(_images: int) -> dict[str, Any]:
    """One round with the network of Ho et al. for 256 x 256: minutes on one core."""
    shown = ("unit_compat",)
    return against_all_calls(ddpm_celeba_hq, batch=1, side=256, rounds=1, ranges=shown)


def against_all_calls(
    factory: Callable[[], nn.Module],
    *,
    batch: int,
    side: int,
    rounds: int,
    ranges: tuple[str, ...] = RANGES,
) -> dict[str, Any]:
    """CPU seconds of both and their ratio: medians of rounds that alternate which goes first.

    Raises:
        AssertionError: the results differ in a bit.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = factory().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    prior = Prior(network, (side, side)).requires_grad_(False).eval()
    images = torch.rand(batch, 3, side, side)
    figures: dict[str, Any] = {}
    try:
        for shown in ranges:
            few = DDRM(prior, range=shown)
            whole = DDRM(prior, range=shown, pruned=False)
            both = []
            for number in range(rounds):
                order = [few, whole] if number % 2 else [whole, few]
                results, spent = {}, {}
                for purifier in order:
                    begun = time.process_time()
                    results[purifier.pruned] = purifier(images, seeds=torch.arange(batch))
                    spent[purifier.pruned] = time.process_time() - begun
                if not torch.equal(results[True], results[False]):
                    raise AssertionError("expected the same bits of few calls and of all")
                both.append((spent[True], spent[False], spent[False] / spent[True]))
            mine, full, ratio = (statistics.median(column) for column in zip(*both, strict=True))
            where = f"{batch} x {side} x {side}, {shown}"
            figures[f"{where}: {len(few.network_steps)} calls (s)"] = round(mine, 2)
            figures[f"{where}: {len(whole.network_steps)} calls (s)"] = round(full, 2)
            figures[f"{where}: all / few"] = round(ratio, 2)
    finally:
        torch.set_num_threads(threads)
    return figures
