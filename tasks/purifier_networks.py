"""Networks that purify: their architectures, those that ship, and weights from files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from defender.models.classifiers import Normalised
from defender.models.denoiser import denoiser
from defender.models.fcn import fcn, residual_fcn
from tasks.models import freeze, load_state, user_network
from tasks.named_networks import PYTHON, ShippedNetwork, digest_of_network, found, unknown

ARCHITECTURES: dict[str, Callable[[int], nn.Module]] = {
    "fcn": fcn,
    "residual-fcn": residual_fcn,
    "denoiser": denoiser,
}
"""What makes a network with random weights for images of so many channels."""

_FIRST = "layers.0.weight"
"""The weights whose second side is the number of channels that the first layer sees."""


NETWORKS: dict[str, ShippedNetwork] = {
    "denoiser-linearity": ShippedNetwork(
        "denoiser",
        "denoiser-linearity.safetensors",
        "takes attacks on image-quality metrics off photographs, 0.18 M parameters",
    ),
    "fcn-linearity": ShippedNetwork(
        "residual-fcn",
        "fcn-linearity.safetensors",
        "takes more of such attacks off, and more of clean photographs too, 11,459 parameters",
    ),
}
"""The networks that ship, by name."""


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
    raise unknown(name, list(ARCHITECTURES), field)


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
    field, named_by = f"{where}.weights", f"{where}.network"
    named = found(name, weights, NETWORKS, ARCHITECTURES, folder, where=named_by, file_where=field)
    channels = _channels(named.state, named.architecture)
    network = new_network(named.architecture, channels, folder, named_by)
    if named.state is not None:
        load_state(network, named.state, named.source, field)
    digest = digest_of_network(network, name, folder, named_by)
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
