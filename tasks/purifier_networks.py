"""Networks that purify: their architectures, those that ship, and weights from files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from defender.models.classifiers import Normalised
from defender.models.denoiser import denoiser
from defender.models.fcn import fcn, residual_fcn
from tasks.errors import ModelError
from tasks.models import (
    attribute_of,
    digest_bytes,
    digest_state,
    freeze,
    load_state,
    packaged_weights,
    read_safetensors,
    read_state,
    source_of,
    user_network,
)
from tasks.names import suggestion

ARCHITECTURES: dict[str, Callable[[int], nn.Module]] = {
    "fcn": fcn,
    "residual-fcn": residual_fcn,
    "denoiser": denoiser,
}
"""What makes a network with random weights for images of so many channels."""

_FIRST = "layers.0.weight"
"""The weights whose second side is the number of channels that the first layer sees."""


@dataclass(frozen=True)
class ShippedNetwork:
    """A network that comes with the package."""

    architecture: str
    weights: str
    doc: str


NETWORKS: dict[str, ShippedNetwork] = {
    "denoiser-linearity": ShippedNetwork(
        "denoiser",
        "denoiser-linearity.safetensors",
        "takes attacks on image-quality metrics off photographs, 0.18 M parameters",
    ),
}
"""The networks that ship, by name."""

PYTHON = "python:"


def new_network(name: str, channels: int, folder: Path, field: str) -> nn.Module:
    """A network with the weights that its architecture or factory gives it.

    Args:
        name: an architecture, or ``python:<module>:<factory>``.
        channels: of the images; a factory is not told.
        folder: where the module of a factory may lie.
        field: the field of the specification that states the name.

    Raises:
        ModelError: naming the field, where there is no such network.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name](channels)
    if name.startswith(PYTHON):
        return user_network(name, folder, field)
    raise _unknown(name, list(ARCHITECTURES), field)


def load_network(
    name: str, weights: str | None, folder: Path, device: torch.device, where: str
) -> Normalised:
    """Make the network that a specification names, ready to purify.

    Args:
        name: a network that ships, an architecture, or ``python:<module>:<factory>``.
        weights: file of its state dict; none for a network that ships, or that its factory
            gives its weights.
        folder: folder of the specification, against which paths and modules are resolved.
        device: where it runs.
        where: path of the purifier in the specification, for error messages.

    Returns:
        A module in evaluation mode that maps images in [0, 1] to such images; its ``repr`` is
        ``name@digest``.

    Raises:
        ModelError: naming the field, the file and what was expected.
    """
    field, source = f"{where}.weights", weights or ""
    state: dict[str, Tensor] | None = None
    architecture = name
    if name in NETWORKS:
        if weights is not None:
            raise ModelError(f"{field}: {name} brings its own weights, got {weights}")
        architecture, source = NETWORKS[name].architecture, NETWORKS[name].weights
        state = read_safetensors(packaged_weights(source, f"{where}.network"), source, field)
    elif name not in ARCHITECTURES and not name.startswith(PYTHON):
        raise _unknown(name, [*NETWORKS, *ARCHITECTURES], f"{where}.network")
    elif weights is not None:
        state = read_state(folder / weights, field)
    elif name in ARCHITECTURES:
        raise ModelError(f"{field}: expected the weights of {name}, got nothing")
    network = new_network(architecture, _channels(state, architecture), folder, f"{where}.network")
    if state is not None:
        load_state(network, state, source, field)
    made_of = [digest_state(network.state_dict()), str(network)]
    if name.startswith(PYTHON):
        attribute = attribute_of(name.removeprefix(PYTHON), folder, f"{where}.network")
        made_of.append(digest_bytes(source_of(attribute)))
    digest = digest_bytes("\n".join(made_of).encode())
    loaded = Normalised(network, name=name, digest=digest)
    freeze(loaded, device)
    return loaded


def _channels(state: dict[str, Tensor] | None, architecture: str) -> int:
    """Channels of the images that weights were trained on."""
    first = None if state is None else state.get(_FIRST)
    if first is None or first.ndim != 4:
        return 3
    # a denoiser sees blocks of 2 x 2 pixels with their details
    return int(first.shape[1]) // (8 if architecture == "denoiser" else 1)


def _unknown(name: str, known: list[str], field: str) -> ModelError:
    options = ", ".join([*known, "python:<module>:<factory>"])
    return ModelError(f"{field}: expected one of {options}, got {name!r}{suggestion(name, known)}")
