"""The training of quality metrics: what is particular to it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from defender.distortions import LEVELS
from defender.metrics.quality import srcc
from defender.models.linearity import Linearity
from defender.quality_labels import least_squares_line
from defender.quality_training import QualityTraining
from defender.training import Batches, TrainingState
from defender.training_parts import autocast
from tasks.distorted_data import DistortedData
from tasks.errors import ModelError, SpecError
from tasks.models import freeze, load_state
from tasks.quality_evaluation import judge, scores_of
from tasks.quality_models import QUALITY_MODELS, linearity_metadata, load_metric
from tasks.subject_specs import MetricSpec
from tasks.train_specs import QualityTrainSpec
from tasks.training_tasks import Card, computed, portable

LABELS = 1
"""Version of the definition of labels."""

TAILS = (0.01, 0.99)
"""Shares of the training images whose scores are the ends of the range."""


class TrainedMetric(nn.Module):
    """A metric that takes images from the CPU and gives the outputs of its heads back there.

    On a GPU its own forward pass runs under the precision of the recipe; on the CPU the recipe
    sees to that itself.

    Args:
        network: the metric.
        precision: ``fp32`` or ``bf16``.
    """

    def __init__(self, network: Linearity, precision: str) -> None:
        super().__init__()
        self.network = network
        self.precision = precision

    def heads(self, images: Tensor) -> tuple[Tensor, ...]:
        """Outputs (n,) of level 6, of level 7 and of both together, for images in [0, 1]."""
        device = self.network.mean.device
        return computed(self.network.heads, images, device=device, precision=self.precision)

    def forward(self, images: Tensor) -> Tensor:
        """The output (n,) of the final head."""
        return self.heads(images)[2]


class QualityTask:
    """Photographs, their distorted versions, a metric, and how well it ranks them.

    Args:
        spec: the validated specification.
        folder: folder against which the paths in it are resolved.
        store: URL of the store.
    """

    kind = "quality"
    figure = "srocc"

    def __init__(self, spec: QualityTrainSpec, folder: Path, store: str) -> None:
        self.spec = spec
        self.folder = folder
        self.data = DistortedData(spec.dataset, folder, store, "dataset", spec.distortions)
        kinds = (*spec.distortions, *spec.unseen)
        self.held_out = DistortedData(
            spec.held_out, folder, store, "held_out", kinds, scale_of=self.data
        )
        self.recipe: QualityTraining = spec.training.recipe()

    @property
    def name(self) -> str:
        """The metric."""
        return self.spec.model

    def network(self) -> Linearity:
        """The metric with its first weights, the same every time.

        Raises:
            ModelError: where the specification names none.
        """
        shipped = QUALITY_MODELS.get(self.name)
        if shipped is None:
            known = ", ".join(QUALITY_MODELS)
            raise ModelError(f"model: expected one of {known}, got {self.name!r}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.spec.seed)
            return Linearity(shipped.arch)

    def model(self, device: torch.device) -> TrainedMetric:
        """The metric as it is trained, on the device."""
        model = TrainedMetric(self.network(), self.recipe.precision)
        model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    def check_images(self, device: torch.device) -> None:
        """Check that the images can be compared with their versions and suit the recipe.

        Raises:
            SpecError: naming the field and what was expected.
        """
        for data in (self.data, self.held_out):
            _ = data.shape, data.rows
        height, width = self.data.shape[1:]
        if self.recipe.crop > min(height, width):
            raise SpecError(
                f"training.crop: expected at most {min(height, width)}, the size of the images, "
                f"got {self.recipe.crop}"
            )

    def config(self) -> dict[str, Any]:
        """What labels mean; the distortions are in the digest of the images."""
        return {"task": self.kind, "labels": LABELS}

    def fit(
        self, batches: Batches, model: nn.Module, steps: int, state: TrainingState | None
    ) -> Iterator[TrainingState]:
        """The states of the training, one an epoch, from the one given on."""
        return self.recipe.fit(
            batches, model, steps_per_epoch=steps, seed=self.spec.seed, state=state
        )

    def look(self, model: nn.Module, device: torch.device) -> dict[str, Any]:
        """How well a model ranks held-out images under the trained distortions."""
        model.eval()
        with autocast(self.recipe.precision):
            scores = scores_of(model, self.held_out, torch.device("cpu"), self.spec.distortions)
        chosen = self.held_out.of_kinds(self.spec.distortions)
        labels = self.held_out.labels.view_as(scores)
        value = srcc(scores[:, chosen].flatten().numpy(), labels[:, chosen].flatten().numpy())
        # a model that says the same of every image ranks nothing
        return {
            "srocc": value if math.isfinite(value) else 0.0,
            "n": int(chosen.sum()) * len(scores),
        }

    def seen(self, look: dict[str, Any]) -> float:
        """Spearman's rank correlation."""
        return float(look["srocc"])

    def weights(
        self, average: dict[str, Tensor], device: torch.device
    ) -> tuple[dict[str, Tensor], dict[str, str] | None]:
        """The averaged weights, and k, b and range as the training images settle them."""
        tensors = portable(average, half=self.spec.half)
        network = self.network()
        load_state(network, tensors, "average")
        freeze(network, device)
        raw = scores_of(network.raw, self.data, device).flatten()
        k, b = least_squares_line(raw, self.data.labels)
        scores = k * raw.double() + b
        low, high = torch.quantile(scores, torch.tensor(TAILS, dtype=torch.float64)).tolist()
        return tensors, linearity_metadata(k, b, (round(low, 2), round(high, 2)))

    def judged(self, path: Path, device: torch.device) -> Card:
        """How well the exported file ranks the held-out images."""
        source = MetricSpec(name=self.name, weights=str(path.resolve()))
        loaded = load_metric(source, self.folder, device)
        metric = loaded.metric
        if not isinstance(metric, Linearity):
            raise ModelError(f"model: expected a Linearity metric, got {metric!r}")
        scores = scores_of(loaded, self.held_out, device)
        return {
            "digest": loaded.digest,
            "calibration": {"k": metric.k, "b": metric.b, "score_range": list(loaded.score_range)},
            **judge(scores, self.held_out, self.spec.distortions, self.spec.unseen),
            "recipe": {
                **self.spec.training.model_dump(),
                "distortions": ", ".join(self.spec.distortions),
                "levels": len(LEVELS),
            },
        }
