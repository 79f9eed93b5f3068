"""Which images and attacks the figures and pictures of a report are about."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.columns import Columns, Split
from tasks.nodes import Node
from tasks.survey import Survey


def counted(columns: Columns) -> NDArray[np.bool_]:
    """Images that figures are of, bool (n,): all but those that only set thresholds."""
    split = Split.of(columns.table("ingest"), columns.state.bench.spec.calibration)
    return np.asarray(split.counted, dtype=bool)


def attacks(state: Survey) -> list[Node]:
    """The attacks of a run, without harmless changes, which are there to try detectors on."""
    return [node for node in state.plan if node.kind == "attack" and not harmless(state, node)]


def harmless(state: Survey, node: Node) -> bool:
    """Whether what a stage works on is no attack but a change that no one means harm by."""
    if node.attack == "none":
        return False
    position = state.plan.nodes[f"attack/{node.attack}"].position
    return str(state.bench.attacks[position].threat) == "none"
