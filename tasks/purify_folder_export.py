"""The stage that writes the purified images of a chunk as files, outside of the store."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
from torch import Tensor

from defender import metrics
from storage.files import sweep, write_atomic
from storage.ledger import sha256_file
from tasks.batches import Batch, map_columns
from tasks.chunk import Chunk, Made
from tasks.result_files import encoded, result_name

MEASURED = ("psnr", "linf")
"""Distances of a purified image from what it was made of."""


def export(chunk: Chunk) -> Made:
    """Write the purified images of a chunk as files, and say in its rows which files they are.

    A file that holds the right bytes already is left alone. An image that a purifier could not
    purify has no file, and its row says why.

    Returns:
        Rows of ``id``, ``file`` (relative to the folder of all results), ``sha256`` of the file,
        ``psnr``, ``linf`` (none where the size differs) and ``failure``.

    Raises:
        StoreError: where a file cannot be written.
    """
    config = chunk.node.config
    folder, shared = Path(config["folder"]), frozenset(config["shared"])
    purified, clean = chunk.images("images"), chunk.images("clean")
    failures = chunk.failures("images")
    files: list[str | None] = []
    digests: list[str | None] = []
    for name, image, failure in zip(
        chunk.rows["name"].to_pylist(), purified, failures, strict=True
    ):
        if failure is not None:
            files.append(None)
            digests.append(None)
            continue
        file = config["inside"] + result_name(name, config["suffix"], shared)
        data = encoded(image, config["suffix"])
        files.append(file)
        digests.append(_place(folder / file, data))
    apart = frozenset(
        i
        for i, (one, other) in enumerate(zip(purified, clean, strict=True))
        if failures[i] is not None or one.shape != other.shape
    )

    def measure(images: Tensor, batch: Batch) -> dict[str, Tensor]:
        before = batch.stack(clean, chunk.bench.device)
        return {name: getattr(metrics, name)(before, images) for name in MEASURED}

    bench = chunk.bench
    columns = map_columns(purified, bench.rule, bench.device, measure, apart)
    unknown = [float("nan")] * len(purified)
    measured = {
        name: pa.array(columns.get(name, unknown), pa.float64(), from_pandas=True)
        for name in MEASURED
    }
    arrays = {
        "id": pa.array(chunk.ids, pa.string()),
        "file": pa.array(files, pa.string()),
        "sha256": pa.array(digests, pa.string()),
        **measured,
        "failure": pa.array(failures, pa.string()),
    }
    return Made(rows=pa.table(arrays))


def _place(path: Path, data: bytes) -> str:
    """Write a file unless it is there, and return its digest."""
    digest = hashlib.sha256(data).hexdigest()
    if not path.is_file() or sha256_file(path) != digest:
        sweep(path.parent, path.name)
        write_atomic(path, data)
    return digest
