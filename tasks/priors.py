"""Diffusion models: their networks, those that ship, and weights from files or hubs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from defender.diffusion.prior import Prior
from defender.diffusion.schedule import NoiseSchedule
from defender.models.guided_unet import guided_imagenet256
from defender.models.unet import ddpm_celeba_hq, ddpm_cifar10, small_prior
from tasks.diffusers_priors import DIFFUSERS, diffusers_prior
from tasks.errors import ModelError
from tasks.models import freeze, load_state, user_network
from tasks.named_networks import PYTHON, ShippedNetwork, digest_of_network, found, unknown


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
    "guided-imagenet256": Architecture(
        guided_imagenet256,
        (256, 256),
        "Dhariwal, Nichol, ImageNet without classes, 552.8 M parameters, 256 x 256",
    ),
}
"""Networks by name; their weights are given as a file."""


PRIORS: dict[str, ShippedNetwork] = {
    "prior-cifar10": ShippedNetwork(
        "small-prior",
        "prior-cifar10.safetensors",
        "32 x 32 colour, trained on CIFAR-10, 1.5 M parameters",
    ),
}
"""The priors that ship, by name."""

OTHER_PRIORS = {
    f"{DIFFUSERS}<folder or name>": "a UNet of diffusers with its scheduler, from a folder or the "
    "hub",
    f"{PYTHON}<module>:<factory>": "your own network that tells noise; prior_side is the side of "
    "the images it is for",
}


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
    raise unknown(name, list(ARCHITECTURES), field)


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
        file_where = weights_where or where
        named = found(
            name,
            weights,
            PRIORS,
            ARCHITECTURES,
            folder,
            where=where,
            file_where=file_where,
            others=(f"{DIFFUSERS}<folder or name>",),
        )
        network = new_network(named.architecture, folder, where)
        if named.state is not None:
            load_state(network, named.state, named.source, file_where)
        own = ARCHITECTURES.get(named.architecture)
        known, levels = None if own is None else own.size, NoiseSchedule()
    size, schedule = size or known, schedule or levels
    if size is None:
        raise ModelError(f"{where}: expected the size of the images {name} is for, got none")
    digest = digest_of_network(network, name, folder, where, str((size, schedule)))
    # a folder may be moved: the digest says what is in it
    last = Path(name.removeprefix(DIFFUSERS)).name
    label = DIFFUSERS + last if name.startswith(DIFFUSERS) else name
    prior = Prior(network, size, schedule, name=label, digest=digest)
    freeze(prior, device)
    return prior
