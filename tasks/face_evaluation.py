"""How well embeddings tell people apart: every picture against every other one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from defender.metrics.verification import Pairs, auc, by_identity, tpr_at_far
from defender.models.face_encoder import FaceEncoder
from tasks.batches import BatchRule, batches
from tasks.training_data import TrainingData
from tasks.verify_figures import told

EVALUATION = BatchRule(64)
"""Compute batches of looks at held-out images."""

MOST_IMAGES = 1500
"""Images that are compared with each other; of more, as many are taken at equal distances."""

DRAWS = 500
"""Bootstrap samples of an interval."""

FARS = (1e-2, 1e-3, 1e-4)
"""False accept rates of the card, where there are impostor pairs enough to tell them."""

THUMBNAIL = 32
"""Side of the pictures whose bare pixels are compared."""


@torch.inference_mode()
def embeddings_of(
    embed: Callable[[Tensor], Tensor], data: TrainingData, device: torch.device
) -> Tensor:
    """Embeddings of all images of a data set, float32 (n, d).

    Args:
        embed: maps images (n, c, h, w) in [0, 1] to embeddings (n, d).
        data: the images, ingested.
        device: where it expects its images.
    """
    parts: list[Tensor] = []
    for index in range(data.chunk_count):
        images = data.chunk(index)
        for batch in batches(images, EVALUATION):
            found = embed(batch.stack(images, device)).float().cpu()
            parts.append(found[: len(batch.index)])
    return torch.cat(parts)


def bare_pixels(images: Tensor) -> Tensor:
    """Embeddings without any network: small grey pictures, standardised, of length one."""
    grey = images.mean(dim=1, keepdim=True)
    size = (THUMBNAIL, THUMBNAIL)
    small = functional.interpolate(grey, size, mode="bilinear", antialias=True).flatten(1)
    return functional.normalize(small - small.mean(dim=1, keepdim=True))


def compared(embeddings: Tensor, people: Tensor) -> Pairs:
    """Every picture of a set with every other one, each two once.

    Args:
        embeddings: (n, d); of more than :data:`MOST_IMAGES`, as many at equal distances.
        people: int64 (n,), whom each image shows.
    """
    if len(people) > MOST_IMAGES:
        chosen = torch.linspace(0, len(people) - 1, MOST_IMAGES).round().long()
        embeddings, people = embeddings[chosen], people[chosen]
    return Pairs.among(embeddings.numpy(), people.numpy())


def figures(pairs: Pairs, images: int) -> dict[str, Any]:
    """Area under the ROC curve with its interval, accept rates, and what was compared.

    Args:
        pairs: those of :func:`compared`.
        images: how many pictures there were; at most :data:`MOST_IMAGES` of them were compared.
    """
    low, high = by_identity(pairs, auc, draws=DRAWS)
    impostors = len(pairs.impostor)
    return {
        "roc_auc": {"value": auc(pairs), "ci_low": low, "ci_high": high},
        "tar": {f"{far:g}": tpr_at_far(pairs, far)[0] for far in told(FARS, impostors)},
        "people": len(np.union1d(pairs.first, pairs.second)),
        "images": min(images, MOST_IMAGES),
        "genuine": len(pairs.genuine),
        "impostor": impostors,
    }


def verification(
    encoder: FaceEncoder, first: FaceEncoder, data: TrainingData, device: torch.device
) -> dict[str, Any]:
    """The figures of an encoder on held-out people.

    Args:
        encoder: what is judged.
        first: the same before the training.
        data: the images, ingested.
        device: where both are.

    Returns:
        :func:`figures`, and the areas of the first weights (``first``) and of bare pixels
        (``pixels``).
    """
    others: dict[str, Callable[[Tensor], Tensor]] = {"first": first, "pixels": bare_pixels}
    areas = {
        name: auc(compared(embeddings_of(embed, data, device), data.labels))
        for name, embed in others.items()
    }
    pairs = compared(embeddings_of(encoder, data, device), data.labels)
    return {**figures(pairs, len(data.labels)), **areas}
