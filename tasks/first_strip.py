"""The first pictures of a run's report, alone: what a dashboard shows of it."""

from __future__ import annotations

import base64
import io

from PIL import Image

from tasks.columns import Columns
from tasks.counted import attacks
from tasks.encoding import Picture
from tasks.pictures import Strip, example_grid
from tasks.survey import Survey

SIDE = 128
"""Pixels a side of a picture, about."""


def first_strip(state: Survey) -> Strip | None:
    """The first row of pictures of a run's report, enlarged where they are very small.

    Args:
        state: a finished run.

    Returns:
        None where the run has no attacks or shows no examples.
    """
    found = attacks(state)
    if not found or not state.bench.spec.examples:
        return None
    purified = [n for n in state.plan if n.kind == "purify" and n.attack == found[0].attack]
    node = (purified or found)[0]
    count = min(2, state.bench.spec.examples)
    return example_grid(state, node, Columns(state), count, side=SIDE).strips[0]


def enlarged(shown: Picture) -> str:
    """A picture as a data URI, its pixels multiplied so that they can be seen."""
    times = SIDE // max(shown.width, shown.height)
    if times <= 1:
        return shown.uri
    coded = base64.b64decode(shown.uri.partition(",")[2])
    sink = io.BytesIO()
    with Image.open(io.BytesIO(coded)) as picture:
        size = (picture.width * times, picture.height * times)
        picture.resize(size, Image.Resampling.NEAREST).save(sink, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(sink.getvalue()).decode()}"
