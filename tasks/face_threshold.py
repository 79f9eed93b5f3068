"""The threshold that attacks which stop at a boundary go to: that of the bare system."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch

from defender.metrics.verification import Pairs, threshold_at
from storage.scores import concatenate, read_rows
from tasks.chunk import Chunk, Made
from tasks.errors import SpecError
from tasks.faces import embeddings, people
from tasks.fitting import gathered


def calibrate(chunk: Chunk) -> Made:
    """The similarity from which the bare system accepts, from all clean images of the run.

    Raises:
        SpecError: where they do not show two people.
    """
    # the columns of a finished run know all stages
    from tasks.columns import Split

    bench = chunk.bench
    parts = [(part, part.images("images")) for part in gathered(chunk, "images")]
    there = [(part.rows, embeddings(bench, images)) for part, images in parts if images]
    if not there:
        raise SpecError("dataset: expected images to calibrate faces.threshold on, got none")
    rows = concatenate([table for table, _ in there], there[0][0].schema)
    whose = people(bench, rows)
    among = Split.of(rows, bench.spec.calibration).counted & (whose >= 0)
    found = torch.cat([one for _, one in there]).cpu().numpy()[among]
    if len(np.unique(whose[among])) < 2:
        raise SpecError("faces.identity: expected pictures of two people or more to calibrate on")
    pairs = Pairs.across(found, found, whose[among])
    limit = threshold_at(pairs, bench.spec.faces.far)
    return Made(rows=pa.table({"threshold": pa.array([limit], pa.float64())}))


def threshold_for(chunk: Chunk) -> float | None:
    """The threshold that an attack goes to: calibrated, or as the specification fixes it."""
    if "threshold" not in chunk.inputs:
        return chunk.bench.spec.faces.threshold
    rows = read_rows(chunk.bench.store.rows(chunk.inputs["threshold"].ref))
    return float(rows.column("threshold")[0].as_py())
