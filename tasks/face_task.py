"""The training of face encoders: what is particular to it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from defender.arcface import ArcFaceHead, FaceTraining
from defender.metrics.verification import auc
from defender.models.face_encoder import FaceEncoder
from defender.training import Batches, TrainingState
from defender.training_parts import autocast
from tasks.encoders import load_encoder, make_encoder, probe
from tasks.errors import ModelError, SpecError
from tasks.face_evaluation import compared, embeddings_of, verification
from tasks.models import digest_state, freeze
from tasks.train_specs import FaceTrainSpec
from tasks.training_data import Batch, TrainingData
from tasks.training_tasks import Card, computed, portable

_NETWORK = "encoder.network."


class TrainedEncoder(nn.Module):
    """An encoder and its head; images come from the CPU and cosines go back there.

    Args:
        encoder: maps images in [0, 1] to embeddings.
        head: maps embeddings to cosines.
        precision: ``fp32`` or ``bf16``.
    """

    def __init__(self, encoder: FaceEncoder, head: ArcFaceHead, precision: str) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.precision = precision

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, c, h, w) in [0, 1] to cosines (n, people)."""

        def cosines(given: Tensor) -> Tensor:
            found: Tensor = self.head(self.encoder(given))
            return found

        return computed(cosines, images, device=self.head.weight.device, precision=self.precision)


class FaceTask:
    """Pictures of people, an encoder, and how well it tells others apart.

    Args:
        spec: the validated specification.
        folder: folder against which the paths in it are resolved.
        store: URL of the store.
    """

    kind = "face"
    figure = "roc_auc"

    def __init__(self, spec: FaceTrainSpec, folder: Path, store: str) -> None:
        self.spec = spec
        self.folder = folder
        self.data = TrainingData(spec.dataset, folder, store, "dataset")
        self.held_out = TrainingData(spec.held_out, folder, store, "held_out")
        self.recipe: FaceTraining = spec.training.recipe()

    @property
    def name(self) -> str:
        """The encoder."""
        return self.spec.model.name

    @property
    def people(self) -> Tensor:
        """Labels of the people that are learned, ascending."""
        people: Tensor = torch.unique(self.data.labels)
        return people

    def encoder(self) -> FaceEncoder:
        """The encoder with its first weights, the same every time, as it is trained.

        Raises:
            ModelError: where the specification names none, or weights that do not fit.
        """
        # the embedding of the mirror image would double the work; augmentation mirrors
        alone = self.spec.model.model_copy(update={"flip": False})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.spec.seed)
            return make_encoder(alone, self.folder, "model")

    def network(self) -> nn.Module:
        """The network of the encoder with its first weights."""
        return self.encoder().network

    def model(self, device: torch.device) -> TrainedEncoder:
        """The encoder with a head for all people, on the device."""
        encoder = self.encoder()
        width = probe(encoder.eval(), self.name, "model")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.spec.seed)
            head = ArcFaceHead(len(self.people), width)
        model = TrainedEncoder(encoder, head, self.recipe.precision)
        model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    def check_images(self, device: torch.device) -> None:
        """Check that there are people to learn, and others to tell apart.

        Raises:
            SpecError, ModelError: naming the field and what was expected.
        """
        for data in (self.data, self.held_out):
            if data.shape[0] not in (1, 3):
                raise SpecError(
                    f"{data.field}.colour: expected 1 or 3 channels, got {data.shape[0]}"
                )
            pictures = torch.bincount(data.labels)
            if int((pictures > 0).sum()) < 2 or int(pictures.max()) < 2:
                raise SpecError(
                    f"{data.field}: expected two people or more and several pictures of one, got "
                    f"{len(data.labels)} pictures of {int((pictures > 0).sum())}"
                )
        self._check_people()
        probe(self.encoder().eval(), self.name, "model")

    def _check_people(self) -> None:
        """Refuse people of one source on both sides; elsewhere labels mean other people."""
        one, other = self.spec.dataset, self.spec.held_out
        if (one.kind, one.options) != (other.kind, other.options):
            return
        known = set(self.data.labels.tolist()) & set(self.held_out.labels.tolist())
        if known:
            raise SpecError(
                "held_out: expected people who are not in dataset, got "
                f"{len(known)} of them, labels {', '.join(map(str, sorted(known)[:5]))}"
            )

    def config(self) -> dict[str, Any]:
        """How images are prepared, and the weights that the training starts from."""
        model, start = self.spec.model, None
        if model.weights is not None:
            start = digest_state(self.network().state_dict())
        return {
            "task": self.kind,
            "prepared": self._prepared(self.encoder()),
            "people": len(self.people),
            "start": start,
        }

    def fit(
        self, batches: Batches, model: nn.Module, steps: int, state: TrainingState | None
    ) -> Iterator[TrainingState]:
        """The states of the training, one an epoch, from the one given on."""
        people = self.people

        def counted(epoch: int) -> Iterator[Batch]:
            for pixels, labels in batches(epoch):
                yield pixels, torch.searchsorted(people, labels)

        return self.recipe.fit(
            counted, model, steps_per_epoch=steps, seed=self.spec.seed, state=state
        )

    def look(self, model: nn.Module, device: torch.device) -> dict[str, Any]:
        """How well a model tells held-out people apart."""
        if not isinstance(model, TrainedEncoder):
            raise ModelError(f"model: expected an encoder with a head, got {model!r}")
        with autocast(self.recipe.precision if device.type == "cpu" else "fp32"):
            embeddings = embeddings_of(model.eval().encoder, self.held_out, device)
        pairs = compared(embeddings, self.held_out.labels)
        return {"roc_auc": auc(pairs), "n": len(pairs.similarity)}

    def seen(self, look: dict[str, Any]) -> float:
        """The area under the ROC curve."""
        return float(look["roc_auc"])

    def weights(
        self, average: dict[str, Tensor], device: torch.device
    ) -> tuple[dict[str, Tensor], dict[str, str] | None]:
        """The averaged weights of the encoder's network alone, without the head."""
        own = {k.removeprefix(_NETWORK): v for k, v in average.items() if k.startswith(_NETWORK)}
        return portable(own, half=self.spec.half), None

    def judged(self, path: Path, device: torch.device) -> Card:
        """How well the exported file tells held-out people apart."""
        source = self.spec.model.model_copy(update={"weights": str(path.resolve())})
        encoder = load_encoder(source, self.folder, device, "model")
        first = self.encoder()
        freeze(first, device)
        figures = verification(encoder, first, self.held_out, device)
        area = figures["roc_auc"]
        figures["roc_auc"] = {k: v if math.isfinite(v) else None for k, v in area.items()}
        return {
            "digest": encoder.digest,
            "people": len(self.people),
            "input": self._prepared(encoder),
            "verification": figures,
            "recipe": {
                **self.spec.training.model_dump(),
                "start": self.spec.model.weights or "fresh weights",
            },
        }

    def _prepared(self, encoder: FaceEncoder) -> str:
        height, width = encoder.input_size
        return (
            f"{height} x {width}, normalisation {encoder.normalisation}, fit {encoder.fit}, "
            f"scale {encoder.scale:g}{', mirror image added' if encoder.flip else ''}"
        )
