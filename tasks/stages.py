"""What each kind of stage does with a chunk."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from defender import metrics
from defender.norms import to_uint8
from defender.objectives import ScaleTo
from tasks.batches import Batch, map_columns, map_images
from tasks.chunk import Chunk, Made, StageFunction
from tasks.defences import DefenceFile
from tasks.defending import defend
from tasks.distorting import distort
from tasks.errors import SpecError
from tasks.face_threshold import calibrate, threshold_for
from tasks.faces import embeddings, enrolled_for, recognised, with_embeddings
from tasks.fitting import fit, settled, strength
from tasks.goals import goal, stored
from tasks.nodes import CALM
from tasks.patch_stages import answer, answers, boxes_of, certify, explain, located, paste
from tasks.precomputed import Precomputed
from tasks.purify_folder_export import export
from tasks.quality_scores import LIKENESSES, opinion
from tasks.redraws import redraw
from tasks.scaled_scores import ScaledScores
from tasks.targets import like

ANSWERS = ("prediction", "confidence", "loss")
"""Columns of a classifier's answers."""
OPINIONS = ("score", *LIKENESSES.values())
"""Columns of a quality metric's answers."""


def ingest(chunk: Chunk) -> Made:
    """Decode the source files of a chunk; what cannot be used is listed with the reason."""
    dataset = chunk.bench.dataset
    result = dataset.ingest(dataset.items(chunk.index))
    return Made(result.images, result.rows, result.rejected)


def attack(chunk: Chunk) -> Made:
    """Attack the images of a chunk, quantised so that the stored files keep the budget."""
    bench, node = chunk.bench, chunk.node
    algorithm = bench.attacks[node.position]
    clean = chunk.images("images")
    if isinstance(algorithm, Precomputed):
        return Made(algorithm.read(bench.dataset, chunk.index, chunk.rows, clean))
    algorithm = settled(chunk, algorithm)
    if algorithm.budget == "patch":
        return paste(chunk, algorithm)
    labels, seeds = chunk.labels(), chunk.seeds()
    enrolled = enrolled_for(chunk, clean) if bench.has_encoder else None
    limit = threshold_for(chunk)
    pictures = chunk.images("target") if "target" in chunk.inputs else None
    known = bench.spec.attacks[node.position].randomness == "known"
    drawn = chunk.seeds_of(chunk.ids, "purify") if known else None

    def run(images: Tensor, batch: Batch) -> Tensor:
        if pictures is not None and bench.pipeline is not None:
            wanted = batch.stack(pictures, bench.device)
            objective: Any = ScaleTo(bench.pipeline.of(images), wanted)
        elif algorithm.threat in CALM:
            objective = None
        else:
            about = None if enrolled is None else batch.pick(enrolled)
            given = batch.pick(labels), batch.pick(seeds), about, limit
            own = None if drawn is None else batch.pick(drawn)
            objective = goal(bench, node.position, images, *given, drawn=own)
        return stored(algorithm, images, objective, batch.pick(seeds))

    return Made(map_images(clean, bench.rule, bench.device, run))


def target(chunk: Chunk) -> Made:
    """Choose the picture that an attack on each image is about.

    One that is to be hidden is kept at the size that the model will see, a face as it is.
    """
    bench = chunk.bench
    pool, pipeline = bench.targets[chunk.node.position], bench.pipeline
    if pool is None or (pipeline is None and not bench.has_encoder):
        raise SpecError(f"{chunk.node.name}: expected pictures to hide and a pipeline")
    found, rows = pool.read(chunk.index, chunk.rows["name"].to_pylist())
    made = []
    for picture, image in zip(found, chunk.images("images"), strict=True):
        pixels = torch.tensor(like(picture, image.shape[0]))[None]
        if pipeline is None:
            made.append(pixels[0].contiguous().numpy())
            continue
        made.append(pipeline.of(pixels)(pixels)[0].contiguous().numpy())
    rows = rows.add_column(0, "id", pa.array(chunk.ids, pa.string()))
    if bench.has_encoder and made:
        rows = with_embeddings(rows, embeddings(bench, made))
    return Made(made, rows)


def purify(chunk: Chunk) -> Made:
    """Purify the images of a chunk."""
    bench = chunk.bench
    purifier = bench.purifiers[chunk.node.position]
    if isinstance(purifier, DefenceFile):
        return defend(chunk, purifier)
    seeds = chunk.seeds()
    reference = chunk.images("reference") if "reference" in chunk.inputs else None

    def run(images: Tensor, batch: Batch) -> Tensor:
        given = None if reference is None else batch.stack(reference, bench.device)
        return to_uint8(purifier(images, seeds=batch.pick(seeds), reference=given))

    return Made(map_images(chunk.images("images"), bench.rule, bench.device, run))


def detect(chunk: Chunk) -> Made:
    """Score how suspicious the images are, and the detector's map against the real change."""
    bench = chunk.bench
    detector = bench.detectors[chunk.node.position]
    seeds, clean = chunk.seeds(), chunk.images("clean")
    images = chunk.images("images")
    told = detector.knowledge == "reference"
    places = boxes_of(chunk, "images")

    def run(batch_images: Tensor, batch: Batch) -> dict[str, Tensor]:
        original = batch.stack(clean, bench.device)
        given = {"seeds": batch.pick(seeds), "reference": original if told else None}
        columns = {"score": detector(batch_images, **given)}
        mask = detector.map(batch_images, **given)
        if mask is not None:
            difference = (batch_images - original).abs()
            top = metrics.top_mask(difference, mask.flatten(1).sum(1))
            columns |= {
                "mask_share": mask.flatten(1).float().mean(1),
                "mask_precision": metrics.mask_precision(mask, difference > 0),
                "mask_recall": metrics.mask_recall(mask, difference > 0),
                "mask_precision_top": metrics.mask_precision(mask, top),
            }
            if places is not None:
                columns |= located(mask, batch.pick(places))
        return columns

    return Made(rows=chunk.table(map_columns(images, bench.rule, bench.device, run)))


def score(chunk: Chunk) -> Made:
    """Ask the model about the stored images and measure how far they are from the clean ones."""
    bench = chunk.bench
    current, clean, before = (chunk.images(role) for role in ("images", "clean", "before"))
    labels, wanted = chunk.labels(), bench.distortions
    scaled = ScaledScores(chunk, clean)

    def run(images: Tensor, batch: Batch) -> dict[str, Tensor]:
        columns = answers(bench.model, images, batch.pick(labels)) if bench.has_model else {}
        if bench.has_metric:
            columns |= opinion(bench, images, batch.stack(clean, bench.device))
        if all(clean[i].shape == current[i].shape for i in batch.index):
            original = batch.stack(clean, bench.device)
            columns |= {name: getattr(metrics, name)(original, images) for name in wanted}
            earlier = batch.stack(before, bench.device)
            columns["l2_moved"] = metrics.l2(earlier, images)
            columns["linf_moved"] = metrics.linf(earlier, images)
        if bench.pipeline is not None:
            columns |= scaled.columns(batch, images)
        return columns

    failures = chunk.failures("images")
    failed = frozenset(i for i, reason in enumerate(failures) if reason is not None)
    columns = map_columns(current, bench.rule, bench.device, run, failed)
    if failed:
        asked = ANSWERS if bench.has_model else OPINIONS if bench.has_metric else ()
        for name in (*asked, *wanted):
            columns.setdefault(name, [math.nan] * len(current))
    if bench.has_encoder:
        return Made(rows=recognised(chunk, columns, failed))
    return Made(rows=chunk.table(columns))


STAGES: dict[str, StageFunction] = {
    "ingest": ingest,
    "target": target,
    "fit": fit,
    "strength": strength,
    "calibrate": calibrate,
    "attack": attack,
    "detect": detect,
    "purify": purify,
    "score": score,
    "distort": distort,
    "answer": answer,
    "certify": certify,
    "explain": explain,
    "redraw": redraw,
    "export": export,
}
