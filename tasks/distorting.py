"""The stage that distorts images at known severities and measures how like they stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import torch

from defender.distortions import DISTORTIONS, LEVELS
from defender.norms import to_uint8
from defender.quality_labels import likeness
from tasks.chunk import Chunk, Made
from tasks.nodes import Node

RULES = 1
"""Version of what this module itself does; raising it distorts images anew."""

PRISTINE = "pristine"
"""Kind of the version that is the image itself, at level 0."""

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("distortion", pa.string(), nullable=False),
        pa.field("level", pa.int64(), nullable=False),
        pa.field("channels", pa.int64(), nullable=False),
        pa.field("height", pa.int64(), nullable=False),
        pa.field("width", pa.int64(), nullable=False),
        pa.field("ms_ssim", pa.float64(), nullable=False),
        pa.field("vif", pa.float64(), nullable=False),
    ]
)
"""One row a version: the image it was made from, how, and how like that image it is."""


def distort_node(names: Sequence[str]) -> Node:
    """The stage that makes the pristine version and five levels of some distortions.

    Args:
        names: keys of :data:`defender.distortions.DISTORTIONS`, in the order of the versions.
    """
    config = {
        "kind": "distort",
        "rules": RULES,
        "distortions": [[repr(DISTORTIONS[name]), DISTORTIONS[name].version] for name in names],
        "names": list(names),
    }
    return Node("distort", "distort", {"images": "ingest"}, config=config)


def distort(chunk: Chunk) -> Made:
    """Distort each image of a chunk, image by image, so that no other image plays a part."""
    names = chunk.node.config["names"]
    versions = [(name, level) for name in names for level in LEVELS]
    made, rows = [], []
    known = zip(chunk.images("images"), chunk.ids, chunk.rows["name"].to_pylist(), strict=True)
    for (pixels, source, name), seed in zip(known, chunk.seeds(), strict=True):
        image = torch.from_numpy(pixels).float().div(255)[None]
        seeds = seed.cpu()[None]
        distorted = [DISTORTIONS[kind](image, level, seeds=seeds) for kind, level in versions]
        made.append(pixels)
        rows.append(_row(source, name, PRISTINE, 0, pixels.shape, 1.0, 1.0))
        if not versions:
            continue
        ms_ssim, vif = likeness(image, torch.cat(distorted))
        made += [to_uint8(version)[0].numpy() for version in distorted]
        rows += [
            _row(source, name, kind, level, pixels.shape, *values)
            for (kind, level), values in zip(
                versions, torch.stack([ms_ssim, vif], 1).tolist(), strict=True
            )
        ]
    return Made(made, pa.Table.from_pylist(rows, SCHEMA))


def _row(
    source: str, name: str, kind: str, level: int, shape: tuple[int, ...], *values: float
) -> dict[str, Any]:
    content = [f"{source}-{kind}-{level}", source, name, kind, level, *shape, *values]
    return dict(zip(SCHEMA.names, content, strict=True))
