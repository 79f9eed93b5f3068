"""The training of classifiers: what is particular to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from defender.models.classifiers import Normalised
from defender.models.scaled import Scaled
from defender.training import Batches, ClassifierTraining, TrainingState
from tasks.errors import ModelError, SpecError
from tasks.evaluation import Tally, evaluate
from tasks.models import MODELS, OTHER_MODELS, load_model, user_network
from tasks.subject_specs import ModelSpec
from tasks.train_specs import TrainSpec
from tasks.training_data import TrainingData
from tasks.training_tasks import Card, computed, portable


class TrainedNetwork(Normalised):
    """A network that takes images from the CPU and gives logits back there."""

    precision = "fp32"

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, c, h, w) in [0, 1] to logits (n, classes)."""
        device = self.mean.device
        return computed(super().forward, images, device=device, precision=self.precision)


class ClassifierTask:
    """Labelled images, a network that tells classes apart, and its accuracy.

    Args:
        spec: the validated specification.
        folder: folder against which the paths in it are resolved.
        store: URL of the store.
    """

    kind = "classify"
    figure = "held_out"

    def __init__(self, spec: TrainSpec, folder: Path, store: str) -> None:
        self.spec = spec
        self.folder = folder
        self.data = TrainingData(spec.dataset, folder, store, "dataset")
        self.held_out = TrainingData(spec.held_out, folder, store, "held_out")
        self.recipe: ClassifierTraining = spec.training.recipe()

    @property
    def name(self) -> str:
        """The architecture."""
        return self.spec.model.name

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation of the channels that the model subtracts and divides by."""
        model = self.spec.model
        shipped = MODELS.get(model.name)
        mean = model.mean or (shipped.mean if shipped else (0.0,))
        std = model.std or (shipped.std if shipped else (1.0,))
        return mean, std

    def network(self) -> nn.Module:
        """The architecture with its first weights, the same every time.

        Raises:
            ModelError: where the specification names none.
        """
        name = self.name
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.spec.seed)
            if name in MODELS:
                return MODELS[name].factory()
            if name.startswith("python:"):
                return user_network(name, self.folder)
        known = ", ".join([*MODELS, *(other for other in OTHER_MODELS if "python" in other)])
        raise ModelError(f"model.name: expected one of {known}, got {name!r}")

    def model(self, device: torch.device) -> TrainedNetwork:
        """The network behind its normalisation, on the device."""
        model = TrainedNetwork(self.network(), *self.normalisation, name=self.name)
        model.precision = self.recipe.precision
        model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    def check_images(self, device: torch.device) -> None:
        """Check that the images suit the model and each other.

        Raises:
            SpecError, ModelError: naming the field and what was expected.
        """
        if self.held_out.shape[0] != self.data.shape[0]:
            raise SpecError(
                f"held_out.colour: expected {self.data.shape[0]} channels as in dataset, "
                f"got {self.held_out.shape[0]}"
            )
        model, name = self.model(device).eval(), self.name
        shape = (self.data.shape[0], *self.size_seen)
        try:
            with torch.inference_mode():
                logits = model(torch.zeros(1, *shape))
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ModelError(f"model.name: {name} cannot take images {shape}: {reason}") from None
        if logits.ndim != 2:
            raise ModelError(f"model.name: expected logits (n, classes), got {tuple(logits.shape)}")
        for data in (self.data, self.held_out):
            largest = int(data.labels.max())
            if largest >= logits.shape[1]:
                raise ModelError(
                    f"model.name: {name} has {logits.shape[1]} outputs, but {data.field} holds "
                    f"label {largest}"
                )

    @property
    def size_seen(self) -> tuple[int, int]:
        """Height and width of what the model sees in training."""
        pipelines = self.spec.pipelines
        return pipelines[0].target if pipelines else self.data.shape[1:]

    @property
    def resizes(self) -> list[str]:
        """The resizes in front of the model, in words."""
        return [repr(pipeline) for pipeline in self.spec.pipelines]

    def config(self) -> dict[str, Any]:
        """Normalisation and resizes."""
        # resizes are named only where there are any, so that trainings without keep their names
        resizes = {"pipelines": self.resizes} if self.resizes else {}
        return {"normalisation": [list(part) for part in self.normalisation], **resizes}

    def fit(
        self, batches: Batches, model: nn.Module, steps: int, state: TrainingState | None
    ) -> Iterator[TrainingState]:
        """The states of the training, one an epoch, from the one given on."""
        return self.recipe.fit(
            batches,
            model,
            steps_per_epoch=steps,
            seed=self.spec.seed,
            state=state,
            class_counts=torch.bincount(self.data.labels).tolist(),
            pipelines=self.spec.pipelines,
        )

    def look(self, model: nn.Module, device: torch.device) -> dict[str, Any]:
        """How many held-out images a model gets right, behind the first resize."""
        seen = self.evaluate(model, device)[0]
        return {"correct": seen.right, "n": seen.n}

    def seen(self, look: dict[str, Any]) -> float:
        """The share of right images."""
        return float(look["correct"] / look["n"])

    def evaluate(self, model: nn.Module, device: torch.device) -> list[Tally]:
        """What a model gets right of the held-out images, behind each pipeline in turn.

        Args:
            model: maps images in [0, 1] to logits; it is left in evaluation mode.
            device: where it is.

        Returns:
            One tally a pipeline; a single one where there is none.
        """
        target = torch.device("cpu") if isinstance(model, TrainedNetwork) else device
        behind: list[nn.Module] = [Scaled(model, pipeline) for pipeline in self.spec.pipelines]
        return [evaluate(each, self.held_out, target) for each in behind or [model]]

    def weights(
        self, average: dict[str, Tensor], device: torch.device
    ) -> tuple[dict[str, Tensor], dict[str, str] | None]:
        """The averaged weights of the network alone."""
        return portable(average, half=self.spec.half), None

    def judged(self, path: Path, device: torch.device) -> Card:
        """The accuracy of the exported file behind each resize."""
        mean, std = self.normalisation
        source = ModelSpec(name=self.name, weights=str(path.resolve()), mean=mean, std=std)
        model = load_model(source, self.folder, device)
        shown: list[str | None] = [*self.resizes] or [None]
        behind = [
            {
                "pipeline": resize,
                "accuracy": tally.accuracy(),
                "balanced_accuracy": tally.balanced_accuracy(),
            }
            for resize, tally in zip(shown, self.evaluate(model, device), strict=True)
        ]
        resizes = {"pipelines": ", ".join(self.resizes)} if self.resizes else {}
        return {
            "digest": getattr(model, "digest", ""),
            "normalisation": {"mean": list(mean), "std": list(std)},
            "held_out_accuracy": behind[0]["accuracy"],
            "held_out_behind": behind,
            "recipe": {**self.spec.training.model_dump(), **resizes},
        }
