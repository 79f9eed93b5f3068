"""The training of diffusion models: what is particular to it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from defender.diffusion.prior import Prior
from defender.prior_training import PriorTraining
from defender.training import Batches, TrainingState
from defender.training_parts import autocast
from tasks.errors import ModelError, SpecError
from tasks.prior_evaluation import SIGMAS, compare, denoising_psnr, sample_grid
from tasks.priors import load_prior, new_network
from tasks.train_specs import PriorTrainSpec
from tasks.training_data import TrainingData
from tasks.training_tasks import Card, computed, portable


class TrainedPrior(nn.Module):
    """A network that takes noisy images from the CPU and gives the noise back there.

    Args:
        network: maps noisy images and their steps to the noise.
        precision: ``fp32`` or ``bf16``.
    """

    def __init__(self, network: nn.Module, precision: str) -> None:
        super().__init__()
        self.network = network
        self.precision = precision

    def forward(self, noisy: Tensor, steps: Tensor) -> Tensor:
        """The noise (n, c, h, w) in images (n, c, h, w) at steps int64 (n,)."""
        device = next(self.network.parameters()).device
        noise: Tensor = computed(
            self.network, noisy, steps, device=device, precision=self.precision
        )
        return noise


class Unlabelled(TrainingData):
    """Images whose labels nobody asks for."""

    @cached_property
    def labels(self) -> Tensor:
        """A zero for every image."""
        return torch.zeros(self.count, dtype=torch.int64)


class PriorTask:
    """Images, a network that predicts noise, and how well it takes noise out of others.

    Args:
        spec: the validated specification.
        folder: folder against which the paths in it are resolved.
        store: URL of the store.
    """

    kind = "prior"
    figure = "psnr"

    def __init__(self, spec: PriorTrainSpec, folder: Path, store: str) -> None:
        self.spec = spec
        self.folder = folder
        self.data = Unlabelled(spec.dataset, folder, store, "dataset")
        self.held_out = Unlabelled(spec.held_out, folder, store, "held_out")
        self.recipe: PriorTraining = spec.training.recipe()

    @property
    def name(self) -> str:
        """The network."""
        return self.spec.model

    def network(self) -> nn.Module:
        """The network with its first weights, the same every time.

        Raises:
            ModelError: where the specification names none.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.spec.seed)
            return new_network(self.name, self.folder, "model")

    def model(self, device: torch.device) -> TrainedPrior:
        """The network as it is trained, on the device."""
        model = TrainedPrior(self.network(), self.recipe.precision)
        model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    def check_images(self, device: torch.device) -> None:
        """Check that the images suit the network and the recipe.

        Raises:
            SpecError, ModelError: naming the field and what was expected.
        """
        steps = self.spec.schedule.schedule().steps
        if self.recipe.low_steps > steps:
            raise SpecError(
                f"training.low_steps: expected at most {steps}, the steps of the schedule, "
                f"got {self.recipe.low_steps}"
            )
        model = self.model(device).eval()
        for data in (self.data, self.held_out):
            try:
                with torch.inference_mode():
                    model(torch.zeros(1, *data.shape), torch.zeros(1, dtype=torch.int64))
            except (RuntimeError, ValueError) as error:
                reason = " ".join(str(error).split())
                raise ModelError(
                    f"model: {self.name} cannot take images {data.shape} of {data.field}: {reason}"
                ) from None

    def config(self) -> dict[str, Any]:
        """The noise levels that the network learns."""
        return {"task": self.kind, "schedule": repr(self.spec.schedule.schedule())}

    def fit(
        self, batches: Batches, model: nn.Module, steps: int, state: TrainingState | None
    ) -> Iterator[TrainingState]:
        """The states of the training, one an epoch, from the one given on."""
        return self.recipe.fit(
            batches,
            model,
            self.spec.schedule.schedule(),
            steps_per_epoch=steps,
            seed=self.spec.seed,
            state=state,
        )

    def prior(self, network: nn.Module) -> Prior:
        """A network as a prior of images of the size that it was trained on."""
        height, width = self.data.shape[1:]
        return Prior(network, (height, width), self.spec.schedule.schedule(), self.name)

    def look(self, model: nn.Module, device: torch.device) -> dict[str, Any]:
        """PSNR of held-out images after noise of the largest level was taken out in one step."""
        with autocast(self.recipe.precision):
            values = denoising_psnr(self.prior(model.eval()), self.held_out, SIGMAS[-1])
        return {"psnr": float(values.mean()), "n": len(values)}

    def seen(self, look: dict[str, Any]) -> float:
        """The mean PSNR in dB."""
        return float(look["psnr"])

    def weights(
        self, average: dict[str, Tensor], device: torch.device
    ) -> tuple[dict[str, Tensor], dict[str, str] | None]:
        """The averaged weights of the network alone."""
        return portable(average, half=self.spec.half), None

    def judged(self, path: Path, device: torch.device) -> Card:
        """How well the exported file takes noise out of held-out images, beside filters."""
        prior = self._read(path, device)
        schedule = repr(prior.schedule)
        return {
            "digest": prior.digest,
            "denoising": compare(prior, self.held_out, device=device),
            "size": list(prior.size),
            "schedule": schedule,
            "recipe": {**self.spec.training.model_dump(), "noise": schedule},
        }

    def pictures(self, path: Path, device: torch.device) -> dict[str, bytes]:
        """Images that the exported file makes out of noise."""
        return {"samples.png": sample_grid(self._read(path, device), device)}

    def _read(self, path: Path, device: torch.device) -> Prior:
        height, width = self.data.shape[1:]
        schedule = self.spec.schedule.schedule()
        return load_prior(
            self.name, str(path.resolve()), self.folder, device, "model", (height, width), schedule
        )
