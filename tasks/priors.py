"""Diffusion models: their networks, those that ship, and weights from files or hubs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from defender.diffusion.prior import Prior
from defender.diffusion.schedule import NoiseSchedule
from defender.models.unet import ddpm_celeba_hq, ddpm_cifar10, small_prior
from tasks.diffusers_priors import DIFFUSERS, diffusers_prior
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

PYTHON = "python:"


@dataclass(frozen=True)
class Architecture:
    """A network that predicts noise, and the size of the images that it is for."""

    factory: Callable[[], nn.Module]
    size: tuple[int, int]
    doc: str


ARCHITECTURES: dict[str, Architecture] = {
    "small-prior": Architecture(small_prior, (32, 32), "1.5 M parameters, 32 x 32 colour"),
    "ddpm-cifar10": Architecture(ddpm_cifar10, (32, 32), "Ho et al., 35.7 M parameters, 32 x 32"),
    "ddpm-celeba-hq": Architecture(
        ddpm_celeba_hq, (256, 256), "Ho et al., 113.7 M parameters, 256 x 256"
    ),
}
"""Networks by name; their weights are given as a file."""


@dataclass(frozen=True)
class ShippedPrior:
    """A prior that comes with the package."""

    architecture: str
    weights: str
    doc: str


PRIORS: dict[str, ShippedPrior] = {
    "prior-cifar10": ShippedPrior(
        "small-prior",
        "prior-cifar10.safetensors",
        "32 x 32 colour, trained on CIFAR-10, 1.5 M parameters",
    ),
}
"""The priors that ship, by name."""


def new_network(name: str, folder: Path, field: str) -> nn.Module:
    """A network with the weights that its architecture or factory gives it.

    Args:
        name: an architecture, or ``python:<module>:<factory>``.
        folder: where the module of a factory may lie.
        field: the field of the specification that states the name.

    Raises:
        ModelError: naming the field, where there is no such network.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name].factory()
    if name.startswith(PYTHON):
        return user_network(name, folder, field)
    raise _unknown(name, list(ARCHITECTURES), field)


def load_prior(
    name: str,
    weights: str | None,
    folder: Path,
    device: torch.device,
    where: str,
    size: tuple[int, int] | None = None,
    schedule: NoiseSchedule | None = None,
    *,
    weights_where: str = "",
) -> Prior:
    """Make the prior that a specification names, ready to be asked.

    Args:
        name: a prior that ships, an architecture, ``python:<module>:<factory>``, or
            ``diffusers:<folder or name on the hub>``.
        weights: file of its state dict; none for a prior that ships or comes with diffusers, or
            that its factory gives its weights.
        folder: folder of the specification, against which paths and modules are resolved.
        device: where it runs.
        where: field of the specification that states the name, for error messages.
        size: height and width of the images it is for; none: as the architecture or diffusers say.
        schedule: noise levels; none: as diffusers say, or a thousand, along the usual line.
        weights_where: field that states the file, if another.

    Returns:
        A prior in evaluation mode; its ``repr`` is ``name@digest``.

    Raises:
        ModelError: naming the field, the file and what was expected.
    """
    network: nn.Module
    if name.startswith(DIFFUSERS):
        if weights is not None:
            raise ModelError(f"{weights_where or where}: {name} brings its own, got {weights}")
        network, known, levels = diffusers_prior(name, folder, where)
    else:
        network = _network(name, weights, folder, where, weights_where or where)
        architecture = PRIORS[name].architecture if name in PRIORS else name
        known = ARCHITECTURES[architecture].size if architecture in ARCHITECTURES else None
        levels = NoiseSchedule()
    size, schedule = size or known, schedule or levels
    if size is None:
        raise ModelError(f"{where}: expected the size of the images {name} is for, got none")
    made_of = [digest_state(network.state_dict()), str(network), str((size, schedule))]
    if name.startswith(PYTHON):
        attribute = attribute_of(name.removeprefix(PYTHON), folder, where)
        made_of.append(digest_bytes(source_of(attribute)))
    digest = digest_bytes("\n".join(made_of).encode())
    # a folder may be moved: the digest says what is in it
    named = Path(name.removeprefix(DIFFUSERS)).name
    label = DIFFUSERS + named if name.startswith(DIFFUSERS) else name
    prior = Prior(network, size, schedule, name=label, digest=digest)
    freeze(prior, device)
    return prior


def _network(
    name: str, weights: str | None, folder: Path, where: str, file_where: str
) -> nn.Module:
    """A network of our own or of the user's, with its weights."""
    source, architecture = weights or "", name
    state: dict[str, Tensor] | None = None
    if name in PRIORS:
        if weights is not None:
            raise ModelError(f"{file_where}: {name} brings its own weights, got {weights}")
        architecture, source = PRIORS[name].architecture, PRIORS[name].weights
        state = read_safetensors(packaged_weights(source, where), source, file_where)
    elif name not in ARCHITECTURES and not name.startswith(PYTHON):
        raise _unknown(name, [*PRIORS, *ARCHITECTURES], where, f"{DIFFUSERS}<folder or name>")
    elif weights is not None:
        state = read_state(folder / weights, file_where)
    elif name in ARCHITECTURES:
        raise ModelError(f"{file_where}: expected the weights of {name}, got nothing")
    network = new_network(architecture, folder, where)
    if state is not None:
        load_state(network, state, source, file_where)
    return network


def _unknown(name: str, known: list[str], field: str, *others: str) -> ModelError:
    options = ", ".join([*known, "python:<module>:<factory>", *others])
    return ModelError(f"{field}: expected one of {options}, got {name!r}{suggestion(name, known)}")
