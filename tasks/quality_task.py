"""The training of quality metrics: what is particular to it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from defender.models.linearity import (
    Linearity,
    convolutional,
    torchvision_architectures,
    torchvision_classifier,
)
from defender.quality_labels import least_squares_line
from defender.quality_training import QualityTraining
from defender.training import Batches, TrainingState
from defender.training_parts import autocast
from tasks.errors import ModelError, SpecError
from tasks.models import digest_state, freeze, load_state, read_state
from tasks.names import suggestion
from tasks.quality_evaluation import all_scores
from tasks.quality_labels import DistortionLabels, OpinionLabels
from tasks.quality_models import QUALITY_MODELS, linearity_metadata, load_metric
from tasks.subject_specs import MetricSpec
from tasks.train_specs import QualityTrainSpec
from tasks.training_tasks import Card, computed, portable

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
    """Images and labels of their quality, a metric, and how well it ranks them.

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
        self.labels: DistortionLabels | OpinionLabels
        if spec.opinions is None:
            self.labels = DistortionLabels(spec, folder, store)
        else:
            self.labels = OpinionLabels(spec, spec.opinions, folder, store)
        self.data, self.held_out = self.labels.data, self.labels.held_out
        self.recipe: QualityTraining = spec.training.recipe()

    @property
    def name(self) -> str:
        """The metric."""
        return self.spec.model

    def network(self) -> Linearity:
        """The metric with its first weights, the same every time.

        Raises:
            ModelError: where the specification names none, or first weights that do not fit.
        """
        arch = architecture(self.name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.spec.seed)
            network = Linearity(arch)
        if self.spec.initial is not None:
            start = initial_features(arch, self.folder / self.spec.initial)
            network.features.load_state_dict(start)
        return network

    def model(self, device: torch.device) -> TrainedMetric:
        """The metric as it is trained, on the device."""
        model = TrainedMetric(self.network(), self.recipe.precision)
        model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    def check_images(self, device: torch.device) -> None:
        """Check that the images have labels and suit the recipe.

        Raises:
            SpecError: naming the field and what was expected.
        """
        for data in (self.data, self.held_out):
            _ = data.shape
        self.labels.check_images()
        height, width = self.data.shape[1:]
        if self.recipe.crop > min(height, width):
            raise SpecError(
                f"training.crop: expected at most {min(height, width)}, the size of the images, "
                f"got {self.recipe.crop}"
            )

    def config(self) -> dict[str, Any]:
        """What labels mean, and the weights that the training starts from."""
        start = {}
        if self.spec.initial is not None:
            start = {"start": digest_state(self.network().features.state_dict())}
        return {"task": self.kind, **self.labels.config(), **start}

    def fit(
        self, batches: Batches, model: nn.Module, steps: int, state: TrainingState | None
    ) -> Iterator[TrainingState]:
        """The states of the training, one an epoch, from the one given on."""
        return self.recipe.fit(
            batches, model, steps_per_epoch=steps, seed=self.spec.seed, state=state
        )

    def look(self, model: nn.Module, device: torch.device) -> dict[str, Any]:
        """How well a model ranks held-out images."""
        model.eval()
        with autocast(self.recipe.precision):
            return self.labels.look(model)

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
        raw = all_scores(network.raw, self.data, device)
        k, b = least_squares_line(raw, self.data.labels)
        scores = k * raw.double() + b
        low, high = torch.quantile(scores, torch.tensor(TAILS, dtype=torch.float64)).tolist()
        # two decimals of scores from 0 to 100, more where the scale is shorter than 1
        digits = max(2, 2 - math.floor(math.log10(high - low))) if high > low else 2
        return tensors, linearity_metadata(k, b, (round(low, digits), round(high, digits)))

    def judged(self, path: Path, device: torch.device) -> Card:
        """How well the exported file does on the held-out images."""
        source = MetricSpec(name=self.name, weights=str(path.resolve()))
        loaded = load_metric(source, self.folder, device)
        metric = loaded.metric
        if not isinstance(metric, Linearity):
            raise ModelError(f"model: expected a Linearity metric, got {metric!r}")
        return {
            "digest": loaded.digest,
            "calibration": {"k": metric.k, "b": metric.b, "score_range": list(loaded.score_range)},
            **self.labels.judged(loaded, device),
            "recipe": {
                **self.spec.training.model_dump(),
                **self.labels.recipe(),
                **({} if self.spec.initial is None else {"start": self.spec.initial}),
            },
        }


def architecture(name: str) -> str:
    """The architecture of a metric that can be trained, as :class:`Linearity` names it.

    Raises:
        ModelError: listing the metrics, for any other name.
    """
    shipped = QUALITY_MODELS.get(name)
    if shipped is not None:
        return shipped.arch
    kind, _, arch = name.partition(":")
    if kind == "linearity" and arch == "small":
        return arch
    try:
        known = torchvision_architectures()
    except ImportError as error:
        raise ModelError(f"model: {name} needs the package torchvision: {error}") from None
    if kind != "linearity" or arch not in known:
        names = [*QUALITY_MODELS, *(f"linearity:{one}" for one in known)]
        raise ModelError(
            f"model: expected one of {', '.join(names)}, got {name!r}{suggestion(name, names)}"
        )
    return arch


def initial_features(arch: str, path: Path) -> dict[str, Tensor]:
    """The weights of a backbone, from the public file of its classifier.

    Args:
        arch: architecture of the metric.
        path: state dict of torchvision's classifier of that name, its last layer included.

    Raises:
        ModelError: where the file is absent, holds more than tensors, or is of another network;
            the text names the first tensor that does not fit.
    """
    if arch == "small":
        raise ModelError("initial: expected none beside linearity-small, which torchvision lacks")
    with torch.random.fork_rng(devices=[]):
        classifier = torchvision_classifier(arch)
    load_state(classifier, read_state(path, "initial"), str(path), "initial")
    return convolutional(classifier).state_dict()
