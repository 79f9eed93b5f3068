"""The iterative window mean filter against the plain loop over its windows in torch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from defender import iwmf_waves
from defender.iwmf_means import draw, kernels
from defender.noise import derive_seeds
from defender.purifiers import IWMF

SIDE, BATCH, FRACTION, WINDOW = 112, 64, 0.4, 3
COUNT = int(FRACTION * SIDE * SIDE)


def seconds(action: Callable[[], Any], calls: int) -> float:
    """CPU time of one call, which other programs change least, over several."""
    begun = time.process_time()
    for _ in range(calls):
        action()
    return (time.process_time() - begun) / calls


def compare(
    ours: Callable[[], Tensor], theirs: Callable[[], Tensor], calls: int, rounds: int
) -> tuple[float, float, float]:
    """Seconds of both and their ratio: medians of rounds that alternate which goes first.

    Raises:
        AssertionError: the results differ by more than 1e-6.
    """
    difference = float((ours() - theirs()).abs().max())
    if difference > 1e-6:
        raise AssertionError(f"expected the same results, got a difference of {difference}")
    both = []
    for number in range(rounds):
        if number % 2:
            loop, mine = seconds(theirs, 1), seconds(ours, calls)
        else:
            mine, loop = seconds(ours, calls), seconds(theirs, 1)
        both.append((mine, loop, loop / mine))
    mine, loop, ratio = (statistics.median(column) for column in zip(*both, strict=True))
    return mine, loop, ratio


def loop(images: Tensor, keys: Tensor) -> Tensor:
    """One key's windows on all images at once; drawing them is part of it, as it is of ours."""
    images = images.clone()
    for corner in draw(keys, COUNT, (SIDE, SIDE), WINDOW)[0].tolist():
        r, c = divmod(corner, SIDE)
        block = images[..., r : r + WINDOW, c : c + WINDOW]
        images[..., r : r + WINDOW, c : c + WINDOW] = block.mean(dim=(-1, -2), keepdim=True)
    return images


def run(_images: int) -> dict[str, Any]:
    """Ratios above 1 mean that ours is faster; ours is the whole purifier, seeds included."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {"compiled": kernels() is not None, **against_the_loop(), **of_both_ways()}
    finally:
        torch.set_num_threads(threads)


def against_the_loop() -> dict[str, Any]:
    """Ratios at batch 1, and at 64 with one sequence of windows for all or one for each."""
    images = torch.rand(BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    seeds = torch.arange(BATCH)
    own, shared = IWMF(FRACTION, WINDOW), IWMF(FRACTION, WINDOW, shared=True)
    keys = derive_seeds(seeds, "iwmf windows")
    one_key = derive_seeds(torch.zeros(1, dtype=torch.int64), "iwmf shared windows")
    pairs = {
        "batch 1": (
            lambda: own(images[:1], seeds=seeds[:1]),
            lambda: loop(images[:1], keys[:1]),
            (50, 9),
        ),
        "batch 64, one sequence": (
            lambda: shared(images, seeds=seeds),
            lambda: loop(images, one_key),
            (5, 9),
        ),
        "batch 64, a sequence each": (
            lambda: own(images, seeds=seeds),
            lambda: torch.cat([loop(images[i : i + 1], keys[i : i + 1]) for i in range(BATCH)]),
            (5, 3),
        ),
    }
    figures: dict[str, Any] = {}
    for name, (ours, theirs, (calls, rounds)) in pairs.items():
        mine, slow, ratio = compare(ours, theirs, calls, rounds)
        figures[f"{name}: ours (ms)"] = round(mine * 1000, 3)
        figures[f"{name}: loop (ms)"] = round(slow * 1000, 1)
        figures[f"{name}: loop / ours"] = round(ratio, 1)
    return figures


def of_both_ways() -> dict[str, Any]:
    """Milliseconds of the compiled code and of the waves that stand in for it."""
    figures: dict[str, Any] = {}
    for n, channels, side in ((1, 3, 112), (64, 3, 112), (64, 1, 224)):
        images = torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(1))
        seeds, size = torch.arange(n), (side, side)
        count = int(FRACTION * side * side)
        ways: dict[str, Callable[[], Any]] = {
            "purifier": lambda: IWMF(FRACTION, WINDOW)(images, seeds=seeds),  # noqa: B023
            "purifier, one sequence": lambda: IWMF(FRACTION, WINDOW, True)(images, seeds=seeds),  # noqa: B023
            "waves": lambda: iwmf_waves.replaced(
                images,  # noqa: B023
                draw(seeds, count, size, WINDOW),  # noqa: B023
                WINDOW,
            ),
            "waves, one sequence": lambda: iwmf_waves.replaced(
                images,  # noqa: B023
                draw(seeds[:1], count, size, WINDOW),  # noqa: B023
                WINDOW,
            ),
        }
        for name, way in ways.items():
            way()
            spent = statistics.median(seconds(way, 1) for _ in range(5))
            figures[f"{n} x {channels} x {side} x {side}, {name} (ms an image)"] = round(
                spent / n * 1000, 3
            )
    return figures
