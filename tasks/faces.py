"""What a face encoder says of stored images, and who is on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from defender.models.face_encoder import similarity
from storage.images import Pixels
from tasks.batches import batches
from tasks.chunk import Chunk
from tasks.targets import person_in
from tasks.workbench import Workbench


@torch.no_grad()
def embeddings(bench: Workbench, images: Sequence[Pixels]) -> Tensor:
    """Embeddings of images of any sizes, computed in the run's batches.

    Args:
        bench: the run.
        images: uint8 (c, h, w) each, at least one.

    Returns:
        float32 (n, d) of length 1, on the run's device.
    """
    found: dict[int, Tensor] = {}
    for batch in batches(images, bench.rule):
        made = bench.encoder(batch.stack(images, bench.device))
        found |= dict(zip(batch.index, made, strict=False))
    return torch.stack([found[place] for place in range(len(images))])


def enrolled_for(chunk: Chunk, clean: Sequence[Pixels]) -> Tensor | None:
    """What an attack on each image of a chunk is compared with by the system, (n, d).

    It is the picture of the person to be impersonated, or else the image itself as it was before.
    """
    if not clean:
        return None
    pictures = chunk.images("target") if "target" in chunk.inputs else clean
    return embeddings(chunk.bench, pictures)


def recognised(chunk: Chunk, columns: dict[str, list[float]]) -> pa.Table:
    """Rows of a chunk with the embedding of each image, and its similarity to the victim's.

    Args:
        chunk: with the images in question under ``images``, and those of victims, where there are
            any, under ``target``.
        columns: what else is known of the images.
    """
    images = chunk.images("images")
    if not images:
        return chunk.table(columns)
    found = embeddings(chunk.bench, images)
    if "target" in chunk.inputs:
        wanted = embeddings(chunk.bench, chunk.images("target"))
        columns = {**columns, "similarity": similarity(found, wanted).tolist()}
    values = found.float().cpu().numpy()
    flat = pa.array(np.ascontiguousarray(values).reshape(-1), pa.float32())
    column = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return chunk.table(columns).append_column("embedding", column)


def people(bench: Workbench, rows: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Who is on each image: whole numbers (n,), -1 where nobody is known.

    Args:
        bench: the run.
        rows: ingested rows, with ``name`` and ``label``.
    """
    pattern = bench.spec.faces.identity
    if pattern is None:
        labels = rows.column("label").to_pylist()
        return np.array([-1 if label is None else label for label in labels], dtype=np.int64)
    names = [person_in(pattern, name) for name in rows.column("name").to_pylist()]
    known = {name: place for place, name in enumerate(sorted({n for n in names if n is not None}))}
    return np.array([-1 if name is None else known[name] for name in names], dtype=np.int64)
