"""How well embeddings tell people apart: every picture against every other one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from defender.metrics.rates import roc_auc, tpr_at_fpr
from defender.models.face_encoder import FaceEncoder
from tasks.batches import BatchRule, batches
from tasks.training_data import TrainingData

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


class Pairs:
    """All pairs of images, none with itself, and how similar the embeddings are.

    Args:
        embeddings: (n, d) of length one.
        people: int64 (n,), whom each image shows.
    """

    def __init__(self, embeddings: Tensor, people: Tensor) -> None:
        if len(people) > MOST_IMAGES:
            chosen = torch.linspace(0, len(people) - 1, MOST_IMAGES).round().long()
            embeddings, people = embeddings[chosen], people[chosen]
        known, places = torch.unique(people, return_inverse=True)
        first, second = torch.triu_indices(len(people), len(people), 1)
        self.people, self.images = len(known), len(people)
        self.scores: NDArray[np.float64] = (
            (embeddings @ embeddings.T)[first, second] + 1
        ).double().numpy() / 2
        self.first = places[first].numpy()
        self.second = places[second].numpy()
        self.same = self.first == self.second

    @property
    def genuine(self) -> NDArray[np.float64]:
        """Similarities of pairs that show one person."""
        scores: NDArray[np.float64] = self.scores[self.same]
        return scores

    @property
    def impostor(self) -> NDArray[np.float64]:
        """Similarities of pairs that show two people."""
        scores: NDArray[np.float64] = self.scores[~self.same]
        return scores

    def auc(self) -> float:
        """Share of pairs of pairs in which the genuine one is the more similar; ties half."""
        return roc_auc(self.impostor, self.genuine)

    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of the area over people; NaN where there are too few."""
        levels, places = np.unique(self.scores, return_inverse=True)
        generator = np.random.default_rng(0)
        areas = []
        for _ in range(DRAWS):
            drawn = np.bincount(
                generator.integers(0, self.people, self.people), minlength=self.people
            ).astype(float)
            weights = np.where(self.same, drawn[self.first], drawn[self.first] * drawn[self.second])
            genuine, impostor = (
                np.bincount(places[mask], weights[mask], len(levels))
                for mask in (self.same, ~self.same)
            )
            pairs = genuine.sum() * impostor.sum()
            if pairs:
                below = np.cumsum(impostor) - impostor / 2
                areas.append(float(genuine @ below / pairs))
        if not areas:
            return math.nan, math.nan
        low, high = np.quantile(areas, [0.025, 0.975])
        return float(low), float(high)

    def figures(self) -> dict[str, Any]:
        """Area under the ROC curve with its interval, accept rates, and what was compared."""
        low, high = self.interval()
        enough = [far for far in FARS if far * len(self.impostor) >= 1]
        return {
            "roc_auc": {"value": self.auc(), "ci_low": low, "ci_high": high},
            "tar": {f"{far:g}": tpr_at_fpr(self.impostor, self.genuine, far) for far in enough},
            "people": self.people,
            "images": self.images,
            "genuine": len(self.genuine),
            "impostor": len(self.impostor),
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
        :meth:`Pairs.figures`, and the areas of the first weights (``first``) and of bare pixels
        (``pixels``).
    """
    others: dict[str, Callable[[Tensor], Tensor]] = {"first": first, "pixels": bare_pixels}
    areas = {
        name: Pairs(embeddings_of(embed, data, device), data.labels).auc()
        for name, embed in others.items()
    }
    return {**Pairs(embeddings_of(encoder, data, device), data.labels).figures(), **areas}
