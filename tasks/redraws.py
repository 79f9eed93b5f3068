"""Further draws of randomised defences: a single one says little of any of them."""

from __future__ import annotations

import pyarrow as pa
import torch
from torch import Tensor

from defender.models.face_encoder import similarity
from defender.noise import derive_seeds
from defender.norms import from_uint8, to_uint8
from storage.images import Pixels
from tasks.batches import Batch, map_columns, map_images
from tasks.chunk import Chunk, Made
from tasks.defences import DefenceFile
from tasks.defending import defend
from tasks.faces import embeddings, impersonated, with_embeddings
from tasks.quality_scores import opinion


def redraw(chunk: Chunk) -> Made:
    """Purify images again and again, each time with other random numbers, and ask about each.

    What is asked about is rounded to 8 bits as if it had been stored.
    """
    bench, seeds = chunk.bench, chunk.seeds()
    if bench.has_encoder:
        return Made(rows=_recognised(chunk))
    purifier = bench.purifiers[chunk.node.position]
    draws = bench.spec.purifiers[chunk.node.position].draws
    clean = chunk.images("clean")

    def run(images: Tensor, batch: Batch) -> dict[str, Tensor]:
        columns: dict[str, Tensor] = {}
        original = batch.stack(clean, bench.device)
        for draw in range(2, draws + 1):
            keys = derive_seeds(batch.pick(seeds), f"draw {draw}")
            made = from_uint8(to_uint8(purifier(images, seeds=keys)))
            with torch.no_grad():
                if bench.has_model:
                    columns[f"prediction_{draw}"] = bench.model(made).argmax(1)
                elif bench.has_metric:
                    columns[f"score_{draw}"] = opinion(bench, made, original)["score"]
        return columns

    found = map_columns(chunk.images("images"), bench.rule, bench.device, run)
    return Made(rows=chunk.table(found))


def _recognised(chunk: Chunk) -> pa.Table:
    """Rows with ``embedding_<draw>``, and ``similarity_<draw>`` where somebody is impersonated."""
    bench, images = chunk.bench, chunk.images("images")
    rows = chunk.table({})
    if not images:
        return rows
    wanted = impersonated(chunk) if "target" in chunk.inputs else None
    draws = bench.spec.purifiers[chunk.node.position].draws
    for draw in range(int(chunk.node.config["first"]), draws + 1):
        made, failed = _drawn(chunk, images, draw)
        found = embeddings(bench, made, failed)
        rows = with_embeddings(rows, found, f"embedding_{draw}")
        if wanted is not None:
            column = pa.array(similarity(found, wanted).tolist(), pa.float64())
            rows = rows.append_column(f"similarity_{draw}", column)
    return rows


def _drawn(chunk: Chunk, images: list[Pixels], draw: int) -> tuple[list[Pixels], frozenset[int]]:
    """Images purified with the random numbers of a draw, and places where that failed."""
    bench, seeds = chunk.bench, chunk.seeds()
    purifier = bench.purifiers[chunk.node.position]
    if isinstance(purifier, DefenceFile):
        made = defend(chunk, purifier)
        reasons = [] if made.rows is None else made.rows["failure"].to_pylist()
        return made.images or [], frozenset(i for i, why in enumerate(reasons) if why is not None)
    told = chunk.images("clean") if purifier.knowledge == "reference" else None

    def run(batch_images: Tensor, batch: Batch) -> Tensor:
        keys = derive_seeds(batch.pick(seeds), f"draw {draw}")
        reference = None if told is None else batch.stack(told, bench.device)
        return to_uint8(purifier(batch_images, seeds=keys, reference=reference))

    return map_images(images, bench.rule, bench.device, run), frozenset()
