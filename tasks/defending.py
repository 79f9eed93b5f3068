"""The stage that puts a chunk through a user's own defence."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from defender.norms import to_uint8
from storage.images import Pixels
from tasks.batches import BatchRule, batches
from tasks.chunk import Chunk, Made
from tasks.defences import DefenceFile
from tasks.errors import DefenseError

BATCH = 8
"""Images that a defence is given at a time."""
PATIENCE = 3
"""Batches that may pass their time in one process before the defence is not tried again."""
LATE = ("no answer within", "could not be loaded: was not ready within")
"""How failures begin that took all the time there was."""

_late: dict[str, int] = {}
_lock = threading.Lock()


def defend(chunk: Chunk, purifier: DefenceFile) -> Made:
    """Put the images of a chunk through a defence, in a process that no other chunk has used.

    An image that comes to nothing is stored as one black pixel, and its row says why. After a
    failure, be it of loading the file, the rest of the chunk is not tried.

    Raises:
        DefenseError: where the file is no longer there, or no longer what the run was planned with.
        SandboxError: on a system on which no process can be locked up.
    """
    _check_unchanged(chunk, purifier)
    images, seeds = chunk.images("images"), chunk.seeds()
    made: list[Pixels] = [np.zeros((image.shape[0], 1, 1), np.uint8) for image in images]
    failures: list[str | None] = [None] * len(images)
    seconds, peak, notes = 0.0, 0, dict[str, None]()
    known = purifier.digest
    failure = _given_up(known)
    with purifier.sandbox() as box:
        for index, batch in _pieces(images):
            if failure is None:
                answer = box.apply(batch, seed=int(seeds[index[0]]))
                seconds, peak = seconds + answer.seconds, max(peak, answer.peak_memory)
                notes |= dict.fromkeys(answer.notes)
                failure = _noted(known, answer.failure)
                if answer.images is not None:
                    pixels = to_uint8(answer.images).numpy()
                    for position, image in zip(index, pixels, strict=True):
                        made[position] = image.copy()
                    continue
            for position in index:
                failures[position] = failure
    _check_unchanged(chunk, purifier)
    rows = pa.table(
        {"id": pa.array(chunk.ids, pa.string()), "failure": pa.array(failures, pa.string())}
    )
    told: dict[str, Any] = {"seconds": round(seconds, 4), "peak_memory": peak, "notes": list(notes)}
    return Made(made, rows, receipt={"defence": told})


def _pieces(images: Sequence[Pixels]) -> Iterator[tuple[list[int], Tensor]]:
    """Small batches of one shape, without padding: positions and images in [0, 1]."""
    for batch in batches(images, BatchRule(BATCH, 1 << 40)):
        pixels = torch.from_numpy(np.stack([images[i] for i in batch.index]))
        yield batch.index, pixels.float().div_(255)


def _check_unchanged(chunk: Chunk, purifier: DefenceFile) -> None:
    """Make sure that what is stored under a fingerprint is what that stands for."""
    if repr(purifier) != chunk.node.config["algorithm"]:
        raise DefenseError(
            f"{purifier.file}: it, or something that it can read, changed after the run was begun; "
            "begin it again"
        )


def _noted(digest: str, failure: str | None) -> str | None:
    if failure is not None and failure.startswith(LATE):
        with _lock:
            _late[digest] = _late.get(digest, 0) + 1
    return failure


def _given_up(digest: str) -> str | None:
    with _lock:
        late = _late.get(digest, 0)
    return f"not tried: {late} batches before took too long" if late >= PATIENCE else None
