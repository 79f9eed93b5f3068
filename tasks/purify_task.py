"""The training of networks that purify: what is particular to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from defender.metrics.structural import WINDOW
from defender.purifier_training import PurifierTraining
from defender.purifiers import Learned
from defender.training import Batches, TrainingState
from defender.training_parts import autocast
from tasks.attacked_data import AttackedData
from tasks.classifier_task import TrainedNetwork
from tasks.errors import ModelError, SpecError
from tasks.purifier_networks import new_network
from tasks.purify_evaluation import judge, likeness_of
from tasks.train_specs import PurifyTrainSpec
from tasks.training_tasks import Card, portable


class PurifyTask:
    """Attacked images, a network that makes them clean again, and how clean they become.

    Args:
        spec: the validated specification.
        folder: folder against which the paths in it are resolved.
        store: URL of the store.
    """

    kind = "purify"
    figure = "ssim"

    def __init__(self, spec: PurifyTrainSpec, folder: Path, store: str) -> None:
        self.spec = spec
        self.folder = folder
        self.store = store
        self.data = AttackedData(spec, spec.dataset, folder, store, "dataset")
        self.held_out = AttackedData(spec, spec.held_out, folder, store, "held_out")
        self.recipe: PurifierTraining = spec.training.recipe()

    @property
    def name(self) -> str:
        """The network."""
        return self.spec.model

    @property
    def channels(self) -> int:
        """Channels of the images that the network takes."""
        return 1 if self.spec.dataset.colour == "grey" else 3

    def network(self) -> nn.Module:
        """The network with its first weights, the same every time.

        Raises:
            ModelError: where the specification names none.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.spec.seed)
            return new_network(self.name, self.channels, self.folder, "model")

    def model(self, device: torch.device) -> TrainedNetwork:
        """The network as it is trained, on the device."""
        model = TrainedNetwork(self.network(), name=self.name)
        model.precision = self.recipe.precision
        model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    def check_images(self, device: torch.device) -> None:
        """Check that the images suit the network and the recipe.

        Raises:
            SpecError, ModelError: naming the field and what was expected.
        """
        for data in (self.data, self.held_out):
            if data.shape[0] != self.channels:
                raise SpecError(
                    f"{data.field}.colour: expected images of {self.channels} channels, "
                    f"got {data.shape[0]}"
                )
        smallest, crop = min(self.data.shape[1:]), self.recipe.crop
        if crop > smallest:
            raise SpecError(
                f"training.crop: expected at most {smallest}, the size of the images, got {crop}"
            )
        if self.recipe.ssim_weight and (crop or smallest) < WINDOW:
            raise SpecError(
                f"training.ssim_weight: expected 0 for images of {crop or smallest} pixels, which "
                f"the window of {WINDOW} does not fit, got {self.recipe.ssim_weight}"
            )
        purifier = Learned(self.model(device).eval())
        try:
            purifier(torch.zeros(1, *self.data.shape), seeds=torch.zeros(1, dtype=torch.int64))
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ModelError(
                f"model: {self.name} cannot purify images {self.data.shape}: {reason}"
            ) from None

    def config(self) -> dict[str, Any]:
        """The task; what the attacks made is in the digest of the images."""
        return {"task": self.kind}

    def fit(
        self, batches: Batches, model: nn.Module, steps: int, state: TrainingState | None
    ) -> Iterator[TrainingState]:
        """The states of the training, one an epoch, from the one given on."""
        metric: Any = self.data.bench.metric if self.spec.metric is not None else None
        return self.recipe.fit(
            batches, model, steps_per_epoch=steps, seed=self.spec.seed, state=state, metric=metric
        )

    def look(self, model: nn.Module, device: torch.device) -> dict[str, Any]:
        """How like purified held-out images are to the clean ones, over all attacks."""
        with autocast(self.recipe.precision):
            value, n = likeness_of(Learned(model.eval()), self.held_out)
        return {"ssim": value, "n": n}

    def seen(self, look: dict[str, Any]) -> float:
        """The mean SSIM."""
        return float(look["ssim"])

    def weights(
        self, average: dict[str, Tensor], device: torch.device
    ) -> tuple[dict[str, Tensor], dict[str, str] | None]:
        """The averaged weights of the network alone."""
        return portable(average, half=self.spec.half), None

    def judged(self, path: Path, device: torch.device) -> Card:
        """What the exported file makes of the held-out images."""
        figures = judge(self.spec, self.folder, self.store, path.resolve())
        return {
            "digest": figures.pop("digest"),
            "figures": figures,
            "recipe": {
                **self.spec.training.model_dump(),
                "attacks": ", ".join(self.data.attacks),
                "attacked": figures["subject"],
            },
        }
