"""One chunk of one stage: skip if the ledger vouches for it, read, compute, write, mark."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import torch

from storage.chunks import ChunkRef, chunk_key
from storage.files import Written
from storage.images import content_digest, write_images
from storage.ledger import Mark, digest_of
from storage.scores import write_rows
from tasks.chunk import Chunk, Input, Made
from tasks.nodes import Node
from tasks.stages import STAGES
from tasks.telemetry import Measured, making
from tasks.workbench import Workbench


def inputs_digest(
    bench: Workbench, node: Node, index: int, inputs: dict[str, Input]
) -> dict[str, str]:
    """Content digest of everything a chunk is made from, by role."""
    if node.kind == "ingest":
        return {"items": bench.dataset.chunk_key(index)}
    digests = {role: given.content for role, given in inputs.items()}
    if node.kind == "target" and (pool := bench.targets[node.position]) is not None:
        digests["pictures"] = pool.digest(index)
    if node.kind == "fit" and (images := bench.fit_sets[node.position]) is not None:
        digests["items"] = digest_of([images.chunk_key(i) for i in range(images.chunk_count)])
    if node.kind == "attack" and hasattr(bench.attacks[node.position], "files_digest"):
        attack = bench.attacks[node.position]
        digests["files"] = attack.files_digest(bench.dataset, index)
    return digests


def vouched(bench: Workbench, node: Node, index: int, inputs: dict[str, Input]) -> Mark | None:
    """The mark of a chunk, if the ledger vouches for it; None where it has to be made."""
    digests = inputs_digest(bench, node, index, inputs)
    return bench.store.ledger(node.fingerprint).vouches(chunk_key(digests), digests)


def compute_chunk(
    bench: Workbench,
    node: Node,
    index: int,
    inputs: dict[str, Input],
    source: Input | None,
) -> Mark:
    """Make one chunk, unless the ledger already vouches for it.

    Killed anywhere, run twice or retried, the stored bytes are the same in the end.

    Returns:
        The mark that vouches for it.

    Raises:
        StorageError: where inputs are damaged or the store cannot be written.
    """
    digests = inputs_digest(bench, node, index, inputs)
    key = chunk_key(digests)
    ledger = bench.store.ledger(node.fingerprint)
    if (mark := ledger.vouches(key, digests)) is not None:
        return mark
    on_gpu = bench.device.type == "cuda"
    with making(bench.spec.name, node.name, index, gpu=on_gpu) as measured:
        ledger.withdraw(key)
        chunk = Chunk(bench, node, index, inputs, source)
        empty = source is not None and source.images == 0
        made = Made() if empty else STAGES[node.kind](chunk)
        mark = _store(bench, node, key, digests, made, chunk, measured)
        ledger.write(mark)
    return mark


def _store(
    bench: Workbench,
    node: Node,
    key: str,
    digests: dict[str, str],
    made: Made,
    chunk: Chunk,
    measured: Measured,
) -> Mark:
    ref = ChunkRef(node.fingerprint, key)
    files: dict[str, Written] = {}
    meaning: list[str] = []
    if made.images:
        arrays = write_images(bench.store.images(ref), made.images)
        files |= {f"images/{key}/{name}": written for name, written in arrays.items()}
        ids = chunk.ids if made.rows is None else made.rows["id"].to_pylist()
        meaning.append(content_digest(ids, made.images))
    for table, path in (
        (made.rows, bench.store.rows(ref)),
        (made.rejected, bench.store.rows(ref).with_suffix(".rejected.parquet")),
    ):
        if table is not None and (table.num_rows or path.name.endswith(f"{key}.parquet")):
            files[f"rows/{path.name}"] = write_rows(path, table)
            if table is made.rows:
                meaning.append(_table_digest(table))
    count = len(made.images) if made.images is not None else 0
    if made.images is None and made.rows is not None:
        count = made.rows.num_rows
    size = sum(written.size for written in files.values())
    return Mark(
        key=key,
        inputs=digests,
        files={name: written.sha256 for name, written in sorted(files.items())},
        content=digest_of(meaning),
        images=count,
        receipt={**_receipt(node, chunk.index), **measured.receipt(size), **made.receipt},
    )


def _table_digest(table: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()


def _receipt(node: Node, index: int) -> dict[str, Any]:
    return {
        "stage": node.name,
        "chunk": index,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "torch": torch.__version__,
    }
