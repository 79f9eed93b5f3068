"""The images that a report shows: read from their chunks, with what a purifier makes on the way.

A purifier's masks and layers are computed anew for these few images, at the run's compute batch
and with the seeds of their chunk, so that they belong to the stored result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from defender.norms import from_uint8, to_uint8
from storage.images import Pixels, read_images
from tasks.batches import batches
from tasks.chunk import Chunk
from tasks.encoding import change_of
from tasks.nodes import Node
from tasks.survey import Survey
from tasks.workbench import Workbench


@dataclass
class Example:
    """An image to be shown.

    Args:
        rank: ``"best"``, ``"median"``, ``"worst"`` or its place between them.
        place: its rank among all images, from 1.
        index: its position in the dataset.
        chunk: number of its chunk.
        position: its position there.
        clean: as ingested.
        before: as attacked.
        after: as purified; as attacked where nothing was purified.
        seed: of the stage that is shown.
        parts: masks, layers and result of the purifier by name, uint8.
        masks: names of those that are masks.
        said: class and confidence that the model has for layers.
        hidden: the picture that the attack hid, at the size the model sees, if it hid one.
    """

    rank: str
    place: int
    index: int
    chunk: int
    position: int
    clean: Pixels = field(repr=False)
    before: Pixels = field(repr=False)
    after: Pixels = field(repr=False)
    seed: torch.Tensor = field(repr=False)
    parts: dict[str, NDArray[Any]] = field(default_factory=dict, repr=False)
    masks: set[str] = field(default_factory=set)
    said: dict[str, tuple[int, float]] = field(default_factory=dict)
    hidden: Pixels | None = field(default=None, repr=False)


def locate(state: Survey, index: int) -> tuple[int, int]:
    """Number of the chunk that holds an image, and its position there."""
    for chunk in range(state.chunks):
        images = state.done[("ingest", chunk)].images
        if index < images:
            return chunk, index
        index -= images
    raise IndexError(f"expected an image of the dataset, got {index} beyond its end")


def read_example(state: Survey, node: Node, place: int, index: int) -> Example:
    """Read an image from its chunks.

    Args:
        state: a finished run.
        node: of kind ``attack`` or ``purify``.
        place: rank of the image, from 0.
        index: its position in the dataset.
    """
    chunk, position = locate(state, index)
    store = state.bench.store

    def stored(name: str) -> Pixels:
        return read_images(store.images(state.done[(name, chunk)].ref))[position]

    # what was made of many chunks at once is chunk 0
    inputs = {
        role: state.done[(name, 0 if state.plan.nodes[name].gathers else chunk)]
        for role, name in node.inputs.items()
    }
    whole = Chunk(state.bench, node, chunk, inputs, state.done[("ingest", chunk)])
    before = stored(f"attack/{node.attack}")
    target = state.plan.nodes[f"attack/{node.attack}"].inputs.get("target")
    return Example(
        rank="",
        place=place + 1,
        index=index,
        chunk=chunk,
        position=position,
        clean=stored("ingest"),
        before=before,
        after=stored(node.name) if node.kind == "purify" else before,
        seed=whole.seeds()[position],
        hidden=None if target is None else stored(target),
    )


def seen_by_model(bench: Workbench, pixels: Pixels) -> Pixels:
    """What the model is shown of a stored image: what the pipeline's own library makes of it.

    Args:
        bench: of the run.
        pixels: uint8 (c, h, w); one that has the model's size is shown as it is.
    """
    pipeline = bench.pipeline
    if pipeline is None or pixels.shape[1:] == pipeline.target:
        return pixels
    image = torch.tensor(pixels)[None]
    made: Pixels = pipeline.of(image)(image)[0].contiguous().numpy()
    return made


def compute_parts(state: Survey, node: Node, examples: Sequence[Example]) -> None:
    """Masks and layers of the examples, padded to the compute batch they were stored with."""
    bench = state.bench
    purifier = bench.purifiers[node.position]
    seeds = torch.stack([example.seed for example in examples])
    clean = [example.clean for example in examples]
    for batch in batches([example.before for example in examples], bench.rule):
        images = batch.stack([example.before for example in examples], bench.device)
        reference = batch.stack(clean, bench.device) if "reference" in node.inputs else None
        parts = purifier.parts(images, seeds=batch.pick(seeds), reference=reference)
        for name, values in parts.items():
            masked = values.dtype == torch.bool
            pixels = values.to(torch.uint8) * 255 if masked else to_uint8(values)
            for position, array in zip(batch.index, pixels.cpu().numpy(), strict=False):
                examples[position].parts[name] = array
                if masked:
                    examples[position].masks.add(name)
            silent = masked or not bench.has_model or bench.pipeline is not None
            if silent or name == "purified" or values.shape != images.shape:
                continue
            with torch.no_grad():
                confidence, prediction = bench.model(from_uint8(pixels)).softmax(1).max(1)
            for at, position in enumerate(batch.index):
                said = int(prediction[at]), float(confidence[at])
                examples[position].said[name] = said


def drift(example: Example) -> int:
    """Largest deviation, in 255ths, of what was computed anew from what is stored."""
    computed = example.parts.get("purified")
    if computed is None:
        return 0
    if computed.shape != example.after.shape:
        return 255
    return int(np.abs(change_of(computed, example.after)).max(initial=0))
