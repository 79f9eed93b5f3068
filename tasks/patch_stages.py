"""Stages about patches: pasting, heat maps, certificates, and what other models say."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import torch
from torch import Tensor, nn

from defender.boxes import bounding_boxes, box_iou
from defender.explain import gradcams, seen_region
from defender.metrics import maps
from defender.norms import from_uint8, to_uint8
from storage.images import Pixels
from storage.scores import read_rows
from tasks.batches import Batch, batches, map_columns
from tasks.chunk import Chunk, Made
from tasks.goals import check_labels

SIDES = ("top", "left", "height", "width")
"""Columns of the rectangle that a patch was painted on."""
CLASSES = ("predicted", "true")
"""Classes of which heat maps are made, in the order in which they are stored."""


def paste(chunk: Chunk, algorithm: Any) -> Made:
    """Put a patch on the images of a chunk, and note where.

    Args:
        chunk: whose role ``images`` is attacked.
        algorithm: an attack whose budget is a patch, fitted if it has to be.
    """
    clean, seeds = chunk.images("images"), chunk.seeds()
    results: list[Pixels | None] = [None] * len(clean)
    found = torch.zeros(len(clean), 4, dtype=torch.int64)
    for batch in batches(clean, chunk.bench.rule):
        images = batch.stack(clean, chunk.bench.device)
        attacked, boxes = algorithm.apply(images, seeds=batch.pick(seeds))
        pixels = to_uint8(attacked).cpu().contiguous().numpy()
        for position, image, box in zip(batch.index, pixels, boxes.cpu(), strict=False):
            results[position], found[position] = image.copy(), box
    columns = dict(zip(SIDES, found.unbind(1), strict=True))
    rows = {"id": pa.array(chunk.ids, pa.string())}
    rows |= {name: pa.array(values.tolist(), pa.int64()) for name, values in columns.items()}
    return Made([image for image in results if image is not None], pa.table(rows))


def boxes_of(chunk: Chunk, role: str) -> Tensor | None:
    """Where the patches of an input are, int64 (n, 4), or None where it has none."""
    if role not in chunk.inputs:
        return None
    path = chunk.bench.store.rows(chunk.inputs[role].ref)
    table = read_rows(path) if path.is_file() else None
    if table is None or not set(SIDES) <= set(table.schema.names):
        return None
    columns = [torch.from_numpy(table[name].to_numpy().copy()) for name in SIDES]
    return torch.stack(columns, dim=1).to(chunk.bench.device)


def located(mask: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """How well the box around a detector's map fits the patch.

    Args:
        mask: bool (n, c, h, w).
        truth: int64 (n, 4), where the patch is.
    """
    return {"box_iou": box_iou(bounding_boxes(mask), truth.to(mask.device))}


def answer(chunk: Chunk) -> Made:
    """What another model says of the images."""
    bench = chunk.bench
    model, labels = bench.others[chunk.node.subject], chunk.labels()

    def run(images: Tensor, batch: Batch) -> dict[str, Tensor]:
        return answers(model, images, batch.pick(labels))

    columns = map_columns(chunk.images("images"), bench.rule, bench.device, run)
    return Made(rows=chunk.table(columns))


@torch.no_grad()
def answers(model: nn.Module, images: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """What a classifier says: predicted class, confidence in it, loss of the true label."""
    logits = model(images)
    check_labels(truth, logits.shape[1], repr(model))
    confidence, prediction = logits.softmax(1).max(1)
    loss = nn.functional.cross_entropy(logits, truth.clamp(min=0), reduction="none")
    return {
        "prediction": prediction,
        "confidence": confidence,
        "loss": torch.where(truth < 0, torch.full_like(loss, torch.nan), loss),
    }


def certify(chunk: Chunk) -> Made:
    """The labels of a certified defence, and whether any patch could change them."""
    bench = chunk.bench
    certifier, labels = bench.certifiers[chunk.node.position], chunk.labels()

    def run(images: Tensor, batch: Batch) -> dict[str, Tensor]:
        # the defence fills up its batches itself
        count = len(batch.index)
        columns: dict[str, Tensor] = certifier.judge(images[:count], batch.pick(labels)[:count])
        return {name: values.double() for name, values in columns.items()}

    columns = map_columns(chunk.images("images"), bench.rule, bench.device, run)
    return Made(rows=chunk.table(columns))


def explain(chunk: Chunk) -> Made:
    """Heat maps of the predicted and the true class, and how they differ from the clean image's.

    The maps are stored with 8 bits a value, uint8 (2, h, w), and compared as they are stored.
    """
    bench, wanted = chunk.bench, chunk.bench.spec.explain
    images, labels = chunk.images("images"), chunk.labels()
    before = chunk.images("map") if "map" in chunk.inputs else None
    places = boxes_of(chunk, "boxes")
    results: list[Pixels | None] = [None] * len(images)
    layer, share = (None, 0.15) if wanted is None else (wanted.layer, wanted.share)

    def run(batch_images: Tensor, batch: Batch) -> dict[str, Tensor]:
        truth = batch.pick(labels)
        if bool((truth < 0).any()):
            # where a label is missing, the predicted class stands in for the true one
            with torch.no_grad():
                truth = torch.where(truth < 0, bench.model(batch_images).argmax(1), truth)
        region = seen_region(bench.model, (batch_images.shape[2], batch_images.shape[3]))
        made = gradcams(bench.model, batch_images, [None, truth], layer, region=region)
        stored = to_uint8(made.transpose(0, 1).contiguous())
        for position, pixels in zip(batch.index, stored.cpu().numpy(), strict=False):
            results[position] = pixels.copy()
        columns: dict[str, Tensor] = {}
        heat = from_uint8(stored)
        for index, name in enumerate(CLASSES):
            mine = heat[:, index]
            if before is not None and all(
                before[i].shape[1:] == images[i].shape[1:] for i in batch.index
            ):
                theirs = batch.stack(before, bench.device)[:, index]
                columns |= {
                    f"{name}_pearson": maps.pearson(mine, theirs),
                    f"{name}_spearman": maps.spearman(mine, theirs),
                    f"{name}_top_iou": maps.top_iou(mine, theirs, share),
                    f"{name}_centroid_shift": maps.centroid_shift(mine, theirs),
                }
            if places is not None and heat.shape[2:] == batch_images.shape[2:]:
                box = batch.pick(places)
                columns[f"{name}_energy"] = maps.energy_in_boxes(mine, box)
                columns[f"{name}_energy_ratio"] = maps.energy_ratio(mine, box)
        return columns

    columns = map_columns(images, bench.rule, bench.device, run)
    return Made([heat for heat in results if heat is not None], chunk.table(columns))
