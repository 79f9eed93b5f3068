"""What is particular to one kind of training; everything else all trainings share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from defender.training import Batches, TrainingState
from tasks.training_data import TrainingData

Card = dict[str, Any]
Made = TypeVar("Made", Tensor, tuple[Tensor, ...])


class Recipe(Protocol):
    """The algorithm of a training, a frozen dataclass; its ``repr`` names what it makes."""

    @property
    def epochs(self) -> int:
        """Passes over the data."""
        ...


class TrainingTask(Protocol):
    """Data, network, recipe, judgement and card of one kind of training."""

    kind: str
    """Name of the kind in specifications and cards."""

    figure: str
    """What the one number is called that looks at held-out images give."""

    @property
    def data(self) -> TrainingData:
        """What is learned from."""
        ...

    @property
    def held_out(self) -> TrainingData:
        """What the weights are judged by."""
        ...

    @property
    def name(self) -> str:
        """What is trained, as the specification names it."""
        ...

    @property
    def recipe(self) -> Recipe:
        """The algorithm with the parameters of the specification."""
        ...

    def network(self) -> nn.Module:
        """The network with its first weights, the same every time."""
        ...

    def model(self, device: torch.device) -> nn.Module:
        """The network as it is trained, on the device."""
        ...

    def check_images(self, device: torch.device) -> None:
        """Check that images, labels and model suit each other; the data must be ingested."""
        ...

    def config(self) -> dict[str, Any]:
        """What the weights depend on beside what every training has."""
        ...

    def fit(
        self, batches: Batches, model: nn.Module, steps: int, state: TrainingState | None
    ) -> Iterator[TrainingState]:
        """The states of the training, one an epoch, from the one given on."""
        ...

    def look(self, model: nn.Module, device: torch.device) -> dict[str, Any]:
        """What a model, as it is trained, does on the held-out images; plain numbers."""
        ...

    def seen(self, look: dict[str, Any]) -> float:
        """The one number of a look."""
        ...

    def weights(
        self, average: dict[str, Tensor], device: torch.device
    ) -> tuple[dict[str, Tensor], dict[str, str] | None]:
        """Tensors and metadata of the file that is exported."""
        ...

    def judged(self, path: Path, device: torch.device) -> Card:
        """What the exported file, read back, does: a part of the card.

        It has ``digest`` and ``recipe`` beside the figures.
        """
        ...


@runtime_checkable
class Pictured(Protocol):
    """A training whose outputs have pictures too."""

    def pictures(self, path: Path, device: torch.device) -> dict[str, bytes]:
        """What the exported file makes, as files for the card, by name."""
        ...


def computed(
    function: Callable[..., Made], *inputs: Tensor, device: torch.device, precision: str
) -> Made:
    """What a network under training makes of inputs that come from the CPU, back on the CPU.

    On a GPU it runs under the precision of the recipe; on the CPU the recipe sees to that itself.

    Args:
        function: the forward pass; it gives a tensor or several.
        inputs: its arguments.
        device: where its weights are.
        precision: ``fp32`` or ``bf16``.
    """
    if device.type == "cpu":
        return function(*inputs)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        made = function(*(part.to(device) for part in inputs))
    if isinstance(made, Tensor):
        return made.float().cpu()
    return tuple(part.float().cpu() for part in made)


def portable(average: dict[str, Tensor], *, half: bool) -> dict[str, Tensor]:
    """The weights of the network alone, as its own state dict names them.

    Args:
        average: averaged weights of the network as it is trained, under the name ``network``.
        half: round floating-point weights to 16 bits.
    """
    result = {}
    for name, value in average.items():
        kind = torch.float16 if half and value.is_floating_point() else value.dtype
        result[name.removeprefix("network.")] = value.detach().to(kind).cpu().contiguous()
    return result
