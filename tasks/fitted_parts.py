"""Parts of algorithms that were fitted beforehand, and how a specification says where they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch

from defender.attacks import UAP
from defender.diffusion.prior import Prior
from defender.models.classifiers import Normalised
from defender.purifiers import DDRM, DiffPure, IWMFDiff, Learned, OneStepDenoise
from defender.types import check_parameters, parameter
from defender.universal import Perturbation
from tasks.perturbation_files import load_perturbation
from tasks.priors import ARCHITECTURES, PRIORS, load_prior
from tasks.purifier_networks import ARCHITECTURES as FORMS
from tasks.purifier_networks import NETWORKS, load_network


class Part(Protocol):
    """Where a fitted part is: a frozen dataclass of declared parameters.

    A specification gives them beside the algorithm's own.
    """

    fills: ClassVar[str]
    """The field of the algorithm that takes the part."""

    def __init__(self, **stated: Any) -> None: ...

    def load(self, home: Path, device: torch.device, where: str) -> Any:
        """The part itself.

        Args:
            home: folder against which paths and modules are resolved.
            device: where it is wanted.
            where: path of the algorithm in the specification, for error messages.

        Raises:
            ModelError: naming the field, the file and what was expected.
        """
        ...


@dataclass(frozen=True)
class PerturbationFile:
    """The universal perturbation of an attack."""

    fills: ClassVar[str] = "perturbation"

    weights: str | None = parameter(
        None, doc="safetensors with a perturbation that was fitted before; none: it is fitted"
    )

    def load(self, home: Path, device: torch.device, where: str) -> Perturbation | None:
        """The perturbation, or None where it is yet to be fitted."""
        if self.weights is None:
            return None
        return load_perturbation(home / str(self.weights), f"{where}.weights")


@dataclass(frozen=True)
class NetworkFile:
    """The network of a learned purifier."""

    fills: ClassVar[str] = "network"

    network: str = parameter(
        doc=f"one that ships ({', '.join(NETWORKS)}), or {', '.join(FORMS)} or "
        "python:<module>:<factory> with its weights"
    )
    weights: str | None = parameter(
        None, doc="state dict, .safetensors or .pt, relative to the specification"
    )

    def load(self, home: Path, device: torch.device, where: str) -> Normalised:
        """The network, ready to purify."""
        weights = None if self.weights is None else str(self.weights)
        return load_network(str(self.network), weights, home, device, where)


@dataclass(frozen=True)
class PriorFile:
    """The diffusion model of a purifier that diffuses."""

    fills: ClassVar[str] = "prior"

    prior: str = parameter(
        doc=f"one that ships ({', '.join(PRIORS)}); {', '.join(ARCHITECTURES)} or "
        "python:<module>:<factory> with its weights; or diffusers:<folder or name on the hub>"
    )
    weights: str | None = parameter(
        None, doc="state dict, .safetensors or .pt, relative to the specification"
    )
    prior_side: int | None = parameter(
        None, doc="side of the images it is for; none: as the prior says", low=1, unit="pixels"
    )

    def __post_init__(self) -> None:
        check_parameters(self)

    def load(self, home: Path, device: torch.device, where: str) -> Prior:
        """The prior, ready to be asked."""
        size = None if self.prior_side is None else (self.prior_side, self.prior_side)
        return load_prior(
            str(self.prior),
            None if self.weights is None else str(self.weights),
            home,
            device,
            f"{where}.prior",
            size,
            weights_where=f"{where}.weights",
        )


PARTS: dict[type, type[Part]] = {
    UAP: PerturbationFile,
    Learned: NetworkFile,
    DDRM: PriorFile,
    DiffPure: PriorFile,
    OneStepDenoise: PriorFile,
    IWMFDiff: PriorFile,
}
"""The fitted parts of algorithms."""
