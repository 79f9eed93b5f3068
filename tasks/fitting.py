"""What must be found on many images before an attack can start: a perturbation, a strength."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from defender import metrics
from defender.attacks.grid_patch import GridPatch
from defender.norms import from_uint8
from defender.patch_training import Patch
from defender.strength import OutOfReach, calibrate, strength_name, with_strength
from defender.universal import Perturbation, UniversalTraining
from storage.images import Pixels
from storage.scores import read_rows
from tasks.batches import Batch, batches
from tasks.chunk import Chunk, Made
from tasks.errors import SpecError
from tasks.goals import goal, stored
from tasks.listening import tell
from tasks.universal import ShuffledImages, fit_patch, fit_perturbation

LEAST, LARGEST = 1e-3, 1e3
"""Strengths that are tried, as multiples of the wanted change."""


def gathered(chunk: Chunk, role: str) -> Iterator[Chunk]:
    """The chunks that a gathering stage is made of, in order, each as a chunk of its own."""
    bench, node = chunk.bench, chunk.node
    for number in range(node.gathers):
        given = chunk.inputs[f"{role} {number}"]
        yield Chunk(bench, node, number, {"images": given}, given)


def fit(chunk: Chunk) -> Made:
    """Fit the perturbation or patch of an attack; killed, it goes on after the last epoch."""
    bench, position = chunk.bench, chunk.node.position
    limit = bench.spec.attacks[position].fit_images
    images: list[Pixels] = []
    labels, seeds = list[Tensor](), list[Tensor]()
    for pixels, truth, key in _to_fit_on(chunk):
        if limit is not None and len(images) >= limit:
            break
        images += pixels
        labels.append(truth)
        seeds.append(key)
    images = images[:limit]
    if not images:
        raise SpecError(f"attacks[{position}]: expected images to fit it on, found none usable")
    known, keys = torch.cat(labels), torch.cat(seeds)

    def goals(batch: Tensor, places: Tensor) -> Any:
        return goal(bench, position, batch, known[places], keys[places])

    name = chunk.node.name
    given: dict[str, Any] = {
        "listener": lambda _, done, total: tell(name, done, total),
        "batches": ShuffledImages(images, bench.rule, bench.device, bench.spec.seed),
        "objective_factory": goals,
        "made_from": {
            "config": chunk.node.config,
            "images": {role: given.content for role, given in sorted(chunk.inputs.items())},
        },
    }
    algorithm, more = bench.attacks[position], dict[str, Any]()
    if isinstance(algorithm, GridPatch):
        state = fit_patch(bench, algorithm, seeds=keys, **given)
        perturbation: Perturbation = state.patch
        more = {
            "history": json.dumps(state.history),
            "snapshot_epochs": list(state.snapshot_epochs),
            "snapshots": [theta.numpy().tobytes() for theta in state.snapshots],
        }
    else:
        recipe = UniversalTraining(channels=images[0].shape[0])
        perturbation = fit_perturbation(bench, recipe, **given)
    values = perturbation.values
    row = {
        "perturbation": repr(perturbation),
        "shape": list(values.shape),
        "values": values.numpy().tobytes(),
        "images": len(images),
    }
    return Made(rows=pa.Table.from_pylist([row | more]))


def _to_fit_on(chunk: Chunk) -> Iterator[tuple[list[Pixels], Tensor, Tensor]]:
    """Images, labels and seeds, chunk by chunk."""
    dataset = chunk.bench.fit_sets[chunk.node.position]
    if dataset is None:
        for part in gathered(chunk, "images"):
            yield part.images("images"), part.labels(), part.seeds()
        return
    for index in range(dataset.chunk_count):
        found = dataset.ingest(dataset.items(index))
        if found.images:
            ids = found.rows["id"].to_pylist()
            yield list(found.images), chunk.labels_of(found.rows), chunk.seeds_of(ids)


def artefact(table: pa.Table) -> Perturbation:
    """What the row of a fitting holds: a perturbation or a patch."""
    (row,) = table.to_pylist()
    values = np.frombuffer(row["values"], np.float32).reshape(row["shape"])
    kind = Patch if row["perturbation"].startswith("patch@") else Perturbation
    return kind(torch.from_numpy(values.copy()))


def strength(chunk: Chunk) -> Made:
    """Find the strength at which an attack changes images as much as the specification wants.

    The change is the mean over images of the largest change of a value, after rounding to 8 bits.

    Raises:
        SpecError: where no strength does that.
    """
    bench, position = chunk.bench, chunk.node.position
    spec, algorithm = bench.spec.attacks[position], settled(chunk, bench.attacks[position])
    wanted = spec.strength
    if wanted is None:
        raise SpecError(f"attacks[{position}].strength: expected one, got nothing")
    work = list(_batches(chunk, wanted.images))

    def measure(value: float) -> float:
        changed: list[Tensor] = []
        attack = with_strength(algorithm, value)
        for images, labels, seeds, count in work:
            objective = goal(bench, position, images, labels, seeds)
            result = from_uint8(stored(attack, images, objective, seeds))
            changed.append(metrics.linf(images, result)[:count])
        return float(torch.cat(changed).mean())

    name = strength_name(algorithm)
    low, high = _interval(algorithm, name, wanted.linf)
    try:
        found = calibrate(measure, wanted.linf, low, high)
    except OutOfReach as error:
        raise SpecError(f"attacks[{position}].strength.linf: {error}") from None
    tries = [{"value": value, "reached": reached} for value, reached in found.tries]
    row = {
        "attack": repr(algorithm),
        "parameter": name,
        "value": found.value,
        "wanted": wanted.linf,
        "reached": found.reached,
        "images": sum(count for *_, count in work),
        "tries": tries,
    }
    return Made(rows=pa.Table.from_pylist([row]))


def _interval(algorithm: Any, name: str, wanted: float) -> tuple[float, float]:
    """Strengths to look at, within the range of the parameter."""
    meta = type(algorithm).__dataclass_fields__[name].metadata
    high = wanted * LARGEST
    if meta.get("high") is not None:
        high = min(high, float(meta["high"]))
    return wanted * LEAST, high


def _batches(chunk: Chunk, wanted: int) -> Iterator[tuple[Tensor, Tensor, Tensor, int]]:
    """Images, labels, seeds and the number of real images of each batch, up to so many images."""
    bench, left = chunk.bench, wanted
    for part in gathered(chunk, "images"):
        if left <= 0:
            return
        images = part.images("images")[:left]
        left -= len(images)
        labels, seeds = part.labels(), part.seeds()
        for batch in batches(images, bench.rule):
            yield _batch(batch, images, labels, seeds, bench.device)


def _batch(
    batch: Batch, images: list[Any], labels: Tensor, seeds: Tensor, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, int]:
    pixels = batch.stack(images, device)
    return pixels, batch.pick(labels), batch.pick(seeds), len(batch.index)


def settled(chunk: Chunk, algorithm: Any) -> Any:
    """The attack with what was fitted for it, and the strength that was found for it, if any."""
    store = chunk.bench.store
    if "fit" in chunk.inputs:
        found = artefact(read_rows(store.rows(chunk.inputs["fit"].ref)))
        algorithm = dataclasses.replace(algorithm, perturbation=found)
    if "strength" in chunk.inputs:
        rows = read_rows(store.rows(chunk.inputs["strength"].ref))
        algorithm = with_strength(algorithm, float(rows["value"][0].as_py()))
    return algorithm
