"""Our image-scaling attack against the two-stage form with a general solver, image for image."""

from __future__ import annotations

import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from defender.attacks import ImageScaling
from defender.norms import to_uint8
from defender.objectives import ScaleTo
from defender.scaling import Scaler
from storage.errors import DatasetNotFound
from storage.sources.paths import resolve

SMALL, ROUNDS = (112, 112), 9
ALGORITHMS = ("nearest", "linear", "cubic")
SIDES = (
    ("opencv", "nearest"),
    ("opencv", "linear"),
    ("opencv", "cubic"),
    ("opencv", "lanczos"),
    ("opencv", "area"),
    ("pillow", "linear"),
)


def run(_images: int) -> dict[str, Any]:
    """Seconds are CPU time of one thread, which other programs change least."""
    try:
        folder = resolve("chest_xray_442x302", None, os.environ)
    except DatasetNotFound:
        return {"not measured": "no chest_xray_442x302 in the folder of datasets"}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        source = picture(Image.open(folder / "chest1.jpeg"))
        cat = Image.open(folder / "target_cat.jpg")
        figures = speed(source, cat)
        if find_spec("cvxpy") is None:
            return {**figures, "against two stages": "not measured: pip install cvxpy"}
        for algorithm in ALGORITHMS:
            size = (source.shape[2], source.shape[3])
            scaler = Scaler("opencv", algorithm, source=size, target=SMALL)
            figures |= against_two_stages(scaler, source, small(cat, SMALL))
        return figures
    finally:
        torch.set_num_threads(threads)


def picture(image: Image.Image) -> Tensor:
    """A grey image (1, 1, h, w) in [0, 1]."""
    pixels = np.array(image.convert("L"))
    return torch.from_numpy(pixels)[None, None].float() / 255


def small(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """A grey target of a size."""
    return picture(image.convert("L").resize(size[::-1], Image.Resampling.LANCZOS))


def cpu_seconds(action: Callable[[], Any]) -> float:
    """CPU time of one call."""
    begun = time.process_time()
    action()
    return time.process_time() - begun


def attack(scaler: Scaler, source: Tensor, target: Tensor, levels: float) -> Tensor:
    """Our attack with an epsilon in grey levels."""
    seeds = torch.zeros(len(source), dtype=torch.int64)
    return ImageScaling(levels / 255)(source, ScaleTo(scaler, target), seeds=seeds)


def worst(scaler: Scaler, attacked: Tensor, target: Tensor) -> int:
    """What the real 8-bit resize misses the target by, in grey levels."""
    return int((scaler(to_uint8(attacked)).int() - to_uint8(target).int()).abs().max())


def against_two_stages(scaler: Scaler, source: Tensor, target: Tensor) -> dict[str, Any]:
    """Both at one grey level; then ours at whatever largest miss the two stages came to."""
    begun = time.process_time()
    with nothing_printed():
        theirs = two_stages(scaler, source, target, 1.0)
    spent = time.process_time() - begun
    reached = worst(scaler, theirs, target)
    strict = attack(scaler, source, target, 1.0)
    ours = attack(scaler, source, target, reached)
    if worst(scaler, ours, target) > reached:
        raise AssertionError(f"expected a miss of {reached} levels at most from {scaler!r}")
    taken = statistics.median(
        cpu_seconds(lambda: attack(scaler, source, target, reached)) for _ in range(ROUNDS)
    )
    ratio = float((ours - source).norm() / (theirs - source).norm())
    name = scaler.algorithm
    return {
        f"{name}: largest miss, two stages at epsilon 1 (levels)": reached,
        f"{name}: largest miss, ours at epsilon 1 (levels)": worst(scaler, strict, target),
        f"{name}: ||A - S||, ours / two stages, same largest miss": round(ratio, 5),
        f"{name}: two stages (s)": round(spent, 2),
        f"{name}: ours (s)": round(taken, 4),
        f"{name}: two stages / ours, seconds": round(spent / taken, 1),
    }


@contextmanager
def nothing_printed() -> Iterator[None]:
    """OSQP writes to the process's output past Python, a line a problem."""
    sys.stdout.flush()
    kept = os.dup(1)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def two_stages(scaler: Scaler, source: Tensor, target: Tensor, epsilon: float) -> Tensor:
    """As first published: vertical, then horizontal, a problem a column or row, each rounded."""
    left, right = (matrix.numpy() for matrix in scaler.matrices(torch.float64))
    levels, goal = 255 * source[0, 0].double().numpy(), 255 * target[0, 0].double().numpy()
    narrow = (levels @ right).round().clip(0, 255)
    tall = [column(narrow[:, j], left, goal[:, j], epsilon) for j in range(goal.shape[1])]
    between = np.stack(tall, 1).round().clip(0, 255)
    rows = [column(levels[i], right.T, between[i], epsilon) for i in range(len(levels))]
    attacked = np.stack(rows).round().clip(0, 255)
    return torch.from_numpy(attacked / 255).float()[None, None]


def column(start: Any, matrix: Any, goal: Any, epsilon: float) -> Any:
    """One column: ``min ||d||^2`` with ``|M (s + d) - t| <= epsilon`` and ``0 <= s + d <= 255``."""
    import cvxpy

    change = cvxpy.Variable(len(start))
    changed = start + change
    limits = [changed >= 0, changed <= 255, cvxpy.abs(matrix @ changed - goal) <= epsilon]
    problem = cvxpy.Problem(cvxpy.Minimize(0.5 * cvxpy.sum_squares(change)), limits)
    best = None
    for solver in (cvxpy.OSQP, cvxpy.CLARABEL):
        with suppress(cvxpy.SolverError), warnings.catch_warnings(action="ignore"):
            problem.solve(solver=solver)
            best = best if change.value is None else change.value
            if problem.status == cvxpy.OPTIMAL:
                break
    if best is None:
        raise RuntimeError(f"expected a solution, got {problem.status}")
    return start + best


def speed(source: Tensor, cat: Image.Image) -> dict[str, Any]:
    """Milliseconds an image at 224 x 224 to 64 x 64, rounding and repair included."""
    grey = Image.fromarray(to_uint8(source)[0, 0].numpy()).resize((224, 224))
    large, target = picture(grey).repeat(8, 1, 1, 1), small(cat, (64, 64)).repeat(8, 1, 1, 1)
    figures: dict[str, Any] = {}
    for library, algorithm in SIDES:
        scaler = Scaler(library, algorithm, source=(224, 224), target=(64, 64))
        attack(scaler, large, target, 1.0)
        times = [cpu_seconds(lambda: attack(scaler, large, target, 1.0)) for _ in range(ROUNDS)]  # noqa: B023
        figures[f"224x224 to 64x64, {library} {algorithm} (ms an image)"] = round(
            statistics.median(times) / len(large) * 1000, 2
        )
    return figures
