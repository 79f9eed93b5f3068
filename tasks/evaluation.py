"""What a classifier gets right, class by class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from defender.metrics.balanced import balanced_accuracy
from defender.metrics.rates import wilson
from tasks.batches import BatchRule, batches
from tasks.training_data import TrainingData

EVALUATION = BatchRule(256)
"""Compute batches of looks at held-out images."""


@dataclass(frozen=True)
class Tally:
    """Images of each class, and how many of them were predicted as what they are."""

    correct: tuple[int, ...]
    images: tuple[int, ...]

    @property
    def right(self) -> int:
        """Images that were predicted as what they are."""
        return sum(self.correct)

    @property
    def n(self) -> int:
        """All images."""
        return sum(self.images)

    def accuracy(self) -> dict[str, Any]:
        """Share of right images, with its Wilson interval."""
        low, high = wilson(self.right, self.n)
        shown = {"correct": self.right, "n": self.n}
        return {"value": self.right / self.n, "ci_low": low, "ci_high": high, **shown}

    def balanced_accuracy(self) -> dict[str, Any]:
        """Mean of the classes' recalls, with its interval and the recalls by class."""
        value, low, high = balanced_accuracy(self.correct, self.images)
        classes = enumerate(zip(self.correct, self.images, strict=True))
        recalls = {str(label): right / n for label, (right, n) in classes if n}
        return {"value": value, "ci_low": low, "ci_high": high, "recalls": recalls}


def evaluate(model: nn.Module, data: TrainingData, device: torch.device) -> Tally:
    """Ask a model about every image of a data set.

    Args:
        model: maps images in [0, 1] to logits; it is left in evaluation mode.
        data: the images, ingested.
        device: where the model expects its images.
    """
    model.eval()
    hits: list[Tensor] = []
    for index in range(data.chunk_count):
        images = data.chunk(index)
        start = sum(map(len, hits))
        labels = data.labels[start : start + len(images)]
        found = torch.zeros(len(images), dtype=torch.bool)
        for batch in batches(images, EVALUATION):
            with torch.inference_mode():
                predicted = model(batch.stack(images, device)).argmax(1).cpu()
            real = len(batch.index)
            found[batch.index] = predicted[:real] == labels[batch.index]
        hits.append(found)
    totals = torch.bincount(data.labels)
    correct = torch.bincount(data.labels[torch.cat(hits)], minlength=len(totals))
    return Tally(tuple(correct.tolist()), tuple(totals.tolist()))
