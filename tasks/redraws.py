"""Further draws of randomised defences: a single one says little of any of them."""

from __future__ import annotations

import torch
from torch import Tensor

from defender.models.face_encoder import similarity
from defender.noise import derive_seeds
from defender.norms import from_uint8, to_uint8
from tasks.batches import Batch, map_columns
from tasks.chunk import Chunk, Made
from tasks.faces import impersonated
from tasks.quality_scores import opinion


def redraw(chunk: Chunk) -> Made:
    """Purify images again and again, each time with other random numbers, and ask about each.

    What is asked about is rounded to 8 bits as if it had been stored.
    """
    bench, seeds = chunk.bench, chunk.seeds()
    purifier = bench.purifiers[chunk.node.position]
    draws = bench.spec.purifiers[chunk.node.position].draws
    clean = chunk.images("clean")
    wanted = None
    if bench.has_encoder and "target" in chunk.inputs and clean:
        wanted = impersonated(chunk)

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
                elif wanted is not None:
                    columns[f"similarity_{draw}"] = similarity(
                        bench.encoder(made), batch.pick(wanted)
                    )
        return columns

    found = map_columns(chunk.images("images"), bench.rule, bench.device, run)
    return Made(rows=chunk.table(found))
