"""Whether what a defence makes of an image depends on anything but the image."""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.sandbox.defence import Answer, SandboxedDefense

TOLERANCE = 1e-4


def check_consistency(defense: SandboxedDefense, images: Tensor, *, batch: int = 8) -> list[str]:
    """Put the same images through a defence in several ways and say what differs.

    The batch, the batch again in the same process, in another order, one image at a time, and in a
    fresh process. Differences up to `TOLERANCE` count as none: kernels choose their arithmetic by
    the size of a batch. A defence that draws random numbers differs; that is a note, no failure.

    Args:
        defense: the defence; its process is restarted twice.
        images: float32 (n, c, h, w) in [0, 1]; the first ``batch`` are used.
        batch: images in a batch.

    Returns:
        One sentence for each way that differs, none where all agree.

    Raises:
        DefenseError, SandboxError: where nothing of the file could be run.
        ValueError: for other images.
    """
    if batch < 1:
        raise ValueError(f"batch: expected at least 1, got {batch}")
    images = images[:batch]
    count = len(images)
    defense.close()
    first = defense.apply(images)
    if first.images is None:
        return [f"a batch of {count}: {first.failure}"]
    again = defense.apply(images)
    turned = defense.apply(images.flip(0))
    alone = [defense.apply(image[None]) for image in images] if count > 1 else []
    defense.close()
    fresh = defense.apply(images)
    ways = [
        ("the same batch again (it draws random numbers or keeps state)", [again], first.images),
        ("the batch in another order", [turned], first.images.flip(0)),
        (f"one image at a time instead of {count}", alone, first.images),
        ("the same batch in a fresh process", [fresh], first.images),
    ]
    found = [f"{way}: {text}" for way, got, wanted in ways if (text := _difference(got, wanted))]
    return [*dict.fromkeys(note for a in (first, *alone) for note in a.notes), *found]


def _difference(answers: list[Answer], expected: Tensor) -> str:
    """How far answers, joined, are from what was expected; empty where they agree."""
    parts: list[Tensor] = []
    for answer in answers:
        if answer.images is None:
            return str(answer.failure)
        if answer.images.shape[1:] != expected.shape[1:]:
            got, wanted = (" x ".join(map(str, t.shape[2:])) for t in (answer.images, expected))
            return f"answers with {got} instead of {wanted} pixels"
        parts.append(answer.images)
    if not parts:
        return ""
    apart = (torch.cat(parts) - expected).abs().flatten(1).amax(1)
    largest = float(apart.max())
    if largest <= TOLERANCE:
        return ""
    changed = int((apart > TOLERANCE).sum())
    return f"values differ by up to {largest:.2g} in {changed} of {len(expected)} images"
