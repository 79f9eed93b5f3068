"""Networks that a specification names: those that ship, architectures, and the user's own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from tasks.errors import ModelError
from tasks.models import (
    attribute_of,
    digest_bytes,
    digest_state,
    packaged_weights,
    read_safetensors,
    read_state,
    source_of,
)
from tasks.names import suggestion

PYTHON = "python:"


@dataclass(frozen=True)
class ShippedNetwork:
    """A network that comes with the package."""

    architecture: str
    weights: str
    doc: str


@dataclass(frozen=True)
class Found:
    """What a name stands for.

    Args:
        architecture: an architecture, or ``python:<module>:<factory>``.
        source: what its weights are called in messages.
        state: the weights; None where the factory gives them.
    """

    architecture: str
    source: str
    state: dict[str, Tensor] | None


def found(
    name: str,
    weights: str | None,
    shipped: Mapping[str, ShippedNetwork],
    architectures: Collection[str],
    folder: Path,
    *,
    where: str,
    file_where: str,
    others: tuple[str, ...] = (),
) -> Found:
    """Look up a network and read its weights.

    Args:
        name: a network that ships, an architecture, or ``python:<module>:<factory>``.
        weights: file of its state dict; none for a network that ships, or that its factory gives
            its weights.
        shipped: networks that ship, by name.
        architectures: those whose weights have to be given.
        folder: folder of the specification, against which paths are resolved.
        where: field that states the name, for messages.
        file_where: field that states the file.
        others: what else could have been named, for messages.

    Raises:
        ModelError: naming the field, the file and what was expected.
    """
    if name in shipped:
        if weights is not None:
            raise ModelError(f"{file_where}: {name} brings its own weights, got {weights}")
        one = shipped[name]
        state = read_safetensors(packaged_weights(one.weights, where), one.weights, file_where)
        return Found(one.architecture, one.weights, state)
    if name not in architectures and not name.startswith(PYTHON):
        raise unknown(name, [*shipped, *architectures], where, *others)
    if weights is not None:
        return Found(name, weights, read_state(folder / weights, file_where))
    if name in architectures:
        raise ModelError(f"{file_where}: expected the weights of {name}, got nothing")
    return Found(name, "", None)


def digest_of_network(network: nn.Module, name: str, folder: Path, where: str, *more: str) -> str:
    """SHA-256 of weights, layers, whatever else counts, and the source of a user's factory.

    Args:
        network: with its weights.
        name: as the specification states it.
        folder: where the module of a factory may lie.
        where: field that states the name, for messages.
        more: further text that results depend on.
    """
    made_of = [digest_state(network.state_dict()), str(network), *more]
    if name.startswith(PYTHON):
        attribute = attribute_of(name.removeprefix(PYTHON), folder, where)
        made_of.append(digest_bytes(source_of(attribute)))
    return digest_bytes("\n".join(made_of).encode())


def unknown(name: str, known: Collection[str], field: str, *others: str) -> ModelError:
    """What to raise for a name that nothing goes by."""
    options = ", ".join([*known, "python:<module>:<factory>", *others])
    return ModelError(f"{field}: expected one of {options}, got {name!r}{suggestion(name, known)}")
