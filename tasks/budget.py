"""Memory and disk that a run will need against what there is, before anything starts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch

from storage.files import free_bytes
from tasks.devices import default_workers
from tasks.errors import BudgetError
from tasks.sizes import size_in_words
from tasks.survey import Survey
from tasks.workbench import Workbench

BASE = 700 << 20
"""Bytes of an idle process with torch and Prefect loaded."""

COLUMN_BYTES = 200
"""Bytes an image takes in the columns of one score or detect stage while a run is summed up."""


DIFFERENTIATING = ("strength", "attack", "purify", "detect")
"""Stages that may keep what a backward pass needs."""


@dataclass(frozen=True)
class Projection:
    """What a run is expected to need.

    Args:
        memory: bytes of memory at the peak.
        disk: bytes to be written.
        worst: the stage that needs the most memory.
    """

    memory: int
    disk: int
    worst: str


def project(bench: Workbench, state: Survey) -> Projection:
    """Estimate what the chunks that are left will need."""
    workers = bench.spec.compute.workers or default_workers(bench.device)
    pixels = bench.dataset.largest or bench.spec.dataset.chunk_bytes
    count = max(1, len(bench.dataset.items(0)))
    side = int((pixels / count / 3) ** 0.5) or 32
    batch = min(count, bench.rule.size(side, side))
    activations = batch * activation_bytes(bench, side)
    images = {
        "ingest": 2,
        "target": 2,
        "strength": 3,
        "attack": 3,
        "purify": 4,
        "detect": 3,
        "score": 4,
    }
    needs = {
        node.kind: images.get(node.kind, 3) * pixels
        + (activations if node.kind in DIFFERENTIATING else activations // 4)
        for node in state.plan
        if node.kind != "ingest"
    } or {"ingest": 2 * pixels}
    worst = max(needs, key=lambda kind: needs[kind])
    stored = sum(node.kind in ("ingest", "attack", "purify") for node in state.plan)
    share = state.left / max(1, state.total)
    total = sum(item.size_hint for chunk in bench.dataset.chunks for item in chunk.items)
    tables = sum(node.kind in ("detect", "score") for node in state.plan)
    columns = bench.dataset.count * tables * COLUMN_BYTES
    memory = BASE + max(workers * needs[worst], columns)
    return Projection(memory, int(total * stored * share), worst)


def activation_bytes(bench: Workbench, side: int) -> int:
    """Bytes that one image of a size keeps alive between the forward and the backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    if bench.subject is None:
        return 16 * side * side * 4
    subject: Any = bench.subject
    channels = 1 if bench.spec.dataset.colour == "grey" else 3
    image = torch.zeros(1, channels, side, side, device=bench.device, requires_grad=True)
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            if getattr(subject, "needs_reference", False):
                subject(image, image.detach())
            else:
                subject(image)
    except RuntimeError:
        return 64 * side * side * 4
    return 2 * sum(kept.values()) + 16 * side * side * 4


def available_memory() -> int:
    """Bytes of memory that this process may still use, control groups included."""
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        with open("/proc/meminfo") as stream:
            lines = dict(line.split(":", 1) for line in stream)
        pages = int(lines["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError):
        pass
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(name) as stream:
                pages = min(pages, int(stream.read()))
        except (OSError, ValueError):
            continue
    return pages


def check_budget(bench: Workbench, state: Survey) -> Projection:
    """Refuse a run that would not fit.

    Raises:
        BudgetError: naming what is too large and what to change.
    """
    needed = project(bench, state)
    allowed = bench.spec.compute.memory or available_memory()
    if needed.memory > allowed:
        raise BudgetError(
            f"memory: the {needed.worst} stage would need about {size_in_words(needed.memory)}, "
            f"{size_in_words(allowed)} are allowed; lower compute.batch, compute.workers or "
            "dataset.chunk_size"
        )
    free = free_bytes(bench.store.root)
    if free is not None and needed.disk > free:
        raise BudgetError(
            f"disk: the run would write about {size_in_words(needed.disk)}, "
            f"{size_in_words(free)} are free at {bench.store.root}"
        )
    return needed
