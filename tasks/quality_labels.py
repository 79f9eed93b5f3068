"""Where the labels of a quality metric come from: known distortions, or people's opinions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from defender.distortions import LEVELS
from defender.metrics.quality import srcc
from tasks.distorted_data import DistortedData
from tasks.errors import SpecError
from tasks.quality_evaluation import Ask, all_scores, judge, judge_opinions, scores_of
from tasks.quality_specs import OpinionsSpec
from tasks.rated_data import RatedData, read_opinions
from tasks.train_specs import QualityTrainSpec
from tasks.training_tasks import Card

CPU = torch.device("cpu")
"""Where a metric under training takes its images from."""


class DistortionLabels:
    """Photographs are distorted; a label says how much of the photograph a version has kept.

    Args:
        spec: the validated specification.
        folder: folder against which the paths in it are resolved.
        store: URL of the store.
    """

    VERSION = 1
    """Version of the definition of labels."""

    def __init__(self, spec: QualityTrainSpec, folder: Path, store: str) -> None:
        self.spec = spec
        self.data = DistortedData(spec.dataset, folder, store, "dataset", spec.distortions)
        kinds = (*spec.distortions, *spec.unseen)
        self.held_out = DistortedData(
            spec.held_out, folder, store, "held_out", kinds, scale_of=self.data
        )

    def check_images(self) -> None:
        """Check that the images can be compared with their versions.

        Raises:
            SpecError: naming the field and what was expected.
        """
        for data in (self.data, self.held_out):
            _ = data.rows

    def config(self) -> dict[str, Any]:
        """What labels mean; the distortions are in the digest of the images."""
        return {"labels": self.VERSION}

    def look(self, model: nn.Module) -> dict[str, Any]:
        """How well a model ranks held-out images under the trained distortions."""
        scores = scores_of(model, self.held_out, CPU, self.spec.distortions)
        chosen = self.held_out.of_kinds(self.spec.distortions)
        labels = self.held_out.labels.view_as(scores)
        return ranked(scores[:, chosen], labels[:, chosen])

    def judged(self, ask: Ask, device: torch.device) -> Card:
        """How well a metric ranks the held-out images."""
        scores = scores_of(ask, self.held_out, device)
        return judge(scores, self.held_out, self.spec.distortions, self.spec.unseen)

    def recipe(self) -> dict[str, Any]:
        """What the card says of the labels."""
        return {"distortions": ", ".join(self.spec.distortions), "levels": len(LEVELS)}


class OpinionLabels:
    """People have scored the images.

    Args:
        spec: the validated specification.
        rules: what it says of the scores.
        folder: folder against which the paths in it are resolved.
        store: URL of the store.

    Raises:
        SpecError, StorageError: where the table cannot be used, or a data set not be listed.
    """

    VERSION = 1
    """Version of the definition of labels."""

    def __init__(
        self, spec: QualityTrainSpec, rules: OpinionsSpec, folder: Path, store: str
    ) -> None:
        self.rules = rules
        table = read_opinions(rules, folder)
        self.data = RatedData(spec.dataset, folder, store, "dataset", table, rules)
        self.held_out = RatedData(
            spec.held_out, folder, store, "held_out", table, rules, apart_from=self.data
        )

    def check_images(self) -> None:
        """Check that there are scores to tell apart after all images have been decoded.

        Raises:
            SpecError: naming the field and what was expected.
        """
        for data in (self.data, self.held_out):
            if len(set(data.labels.tolist())) < 2:
                raise SpecError(
                    f"{data.field}: expected usable images with scores that differ, got "
                    f"{data.count}, with {data.rejected} rejected"
                )

    def config(self) -> dict[str, Any]:
        """What labels mean; the scores are in the digest of the images."""
        return {"opinions": self.VERSION}

    def look(self, model: nn.Module) -> dict[str, Any]:
        """How well a model ranks held-out images."""
        return ranked(all_scores(model, self.held_out, CPU), self.held_out.labels)

    def judged(self, ask: Ask, device: torch.device) -> Card:
        """How well a metric agrees with people on the held-out images, and what was passed over."""
        scores = all_scores(ask, self.held_out, device)
        labels = self.data.labels
        table = self.data.opinions
        both = (self.data, self.held_out)
        return {
            "opinions": {
                "table": table.path.name,
                "column": self.rules.score,
                "rows": len(table.names),
                "scale": [float(labels.min()), float(labels.max())],
                "unrated": len({name for data in both for name in data.unrated}),
                "unknown": len(self.held_out.unknown),
            },
            **judge_opinions(scores, self.held_out.labels),
        }

    def recipe(self) -> dict[str, Any]:
        """What the card says of the labels."""
        return {"labels": f"{self.rules.score} of {self.data.opinions.path.name}"}


def ranked(scores: Tensor, labels: Tensor) -> dict[str, Any]:
    """Spearman's rank correlation, and of how many; a model that says one thing ranks nothing."""
    value = srcc(scores.flatten().numpy(), labels.flatten().numpy())
    return {"srocc": value if math.isfinite(value) else 0.0, "n": scores.numel()}
