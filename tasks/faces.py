"""What a face encoder says of stored images, and who is on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from defender.models.face_encoder import similarity
from storage.images import Pixels
from storage.scores import read_rows
from tasks.batches import batches
from tasks.chunk import Chunk
from tasks.encoders import probe
from tasks.targets import person_in
from tasks.workbench import Workbench


@torch.no_grad()
def embeddings(
    bench: Workbench, images: Sequence[Pixels], without: frozenset[int] = frozenset()
) -> Tensor:
    """Embeddings of images of any sizes, computed in the run's batches.

    Args:
        bench: the run.
        images: uint8 (c, h, w) each, at least one.
        without: positions of images that are no pictures; theirs are zero.

    Returns:
        float32 (n, d) of length 1, on the run's device.
    """
    found: dict[int, Tensor] = {}
    for batch in batches(images, bench.rule, without):
        made = bench.encoder(batch.stack(images, bench.device))
        found |= dict(zip(batch.index, made, strict=False))
    width = len(next(iter(found.values()))) if found else probe(bench.encoder, repr(bench.encoder))
    nothing = torch.zeros(width, device=bench.device)
    return torch.stack([found.get(place, nothing) for place in range(len(images))])


def enrolled_for(chunk: Chunk, clean: Sequence[Pixels]) -> Tensor | None:
    """What an attack on each image of a chunk is compared with by the system, (n, d).

    It is the picture of the person to be impersonated, or else the image itself as it was before.
    """
    if not clean:
        return None
    if "target" in chunk.inputs:
        return impersonated(chunk)
    return embeddings(chunk.bench, clean)


def with_embeddings(rows: pa.Table, found: Tensor, name: str = "embedding") -> pa.Table:
    """Rows and the embedding (n, d) of each as a column of lists."""
    values = found.float().cpu().numpy()
    flat = pa.array(np.ascontiguousarray(values).reshape(-1), pa.float32())
    column = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return rows.append_column(name, column)


def impersonated(chunk: Chunk) -> Tensor:
    """Stored embeddings of the pictures of those whom an attack impersonates, (n, d)."""
    rows = read_rows(chunk.bench.store.rows(chunk.inputs["target"].ref))
    flat = rows.column("embedding").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    width = rows.schema.field("embedding").type.list_size
    return torch.from_numpy(flat.reshape(-1, width).copy()).to(chunk.bench.device)


def recognised(
    chunk: Chunk, columns: dict[str, list[float]], failed: frozenset[int] = frozenset()
) -> pa.Table:
    """Rows of a chunk with the embedding of each image, and its similarity to the victim's.

    Args:
        chunk: with the images in question under ``images``, and those of victims, where there are
            any, under ``target``.
        columns: what else is known of the images.
        failed: positions where a defence gave no picture: those pass as nobody.
    """
    images = chunk.images("images")
    if not images:
        return chunk.table(columns)
    found = embeddings(chunk.bench, images, failed)
    if "target" in chunk.inputs:
        similar = similarity(found, impersonated(chunk)).tolist()
        similar = [0.0 if i in failed else value for i, value in enumerate(similar)]
        columns = {**columns, "similarity": similar}
    return with_embeddings(chunk.table(columns), found)


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
