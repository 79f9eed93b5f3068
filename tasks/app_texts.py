"""What texts that were typed or chosen on the app's page may name.

It is what comes with the package, by its name in the registries, or files below the data folder.
Whatever is not known here is refused: code, other folders, models on hubs, addresses.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from defender.purifiers.composition import averaged, parse_composition
from defender.spelling import parse_number
from tasks import priors, purifier_networks
from tasks.app_choices import COMPOSITION, NONE, REGISTRIES, families
from tasks.building import parameter_fields
from tasks.diffusers_priors import DIFFUSERS
from tasks.encoders import ENCODERS
from tasks.errors import SpecError
from tasks.models import MODELS
from tasks.quality_models import QUALITY_MODELS

TORCHVISION = "torchvision:"
SUBJECTS: dict[str, Mapping[str, Any]] = {
    "model": MODELS,
    "metric": QUALITY_MODELS,
    "encoder": ENCODERS,
}
"""Names that come with the package, by the part of a specification that states them."""
DATASETS = ("builtin:shapes", "builtin:photos", "folder", "zip", "parquet", "cifar10")
"""Kinds of data sets; those that lie in files have a path."""
BUILT_IN = "builtin:"
STATED = {"label", "fpr", "targets"}
"""What the app itself says of an algorithm, beside its parameters."""
NUMBERS = ("int", "float", "bool", "tuple[int", "tuple[float")
"""How the types begin that hold no text."""
_PART = re.compile(r"\w+(\.\w+)*")


def below(path: str, data: Path, where: str, *, file: bool = False) -> str:
    """A typed path, checked to be of something below the data folder, links resolved.

    Something has to be there: what is not would be looked for in other folders too.

    Args:
        path: as it was typed.
        data: the folder.
        where: what it was typed for, for the message.
        file: a file is expected, no folder.

    Raises:
        SpecError: naming the path and what was expected.
    """
    what = "a file" if file else "a path"
    refused = SpecError(f"{where}: expected {what} below the data folder, {data}; got {path!r}")
    try:
        found = (data / path).resolve()
        if path != path.strip() or not path or path.startswith("~"):
            raise refused
        if not found.is_relative_to(data.resolve()):
            raise refused
        if not (found.is_file() if file else found.exists()):
            raise refused
    except (OSError, RuntimeError, ValueError):
        raise refused from None
    return path


def check_texts(content: Mapping[str, Any], data: Path) -> None:
    """Refuse a specification that names anything but what the app may use.

    Args:
        content: the specification.
        data: folder below which paths lie.

    Raises:
        SpecError: naming the field and what was expected.
    """
    _check_dataset(content["dataset"], data)
    for part in SUBJECTS:
        if part in content:
            _check_subject(part, content[part], data)
    for what in REGISTRIES:
        for stated in content.get(what, ()):
            _check_algorithm(what, stated, data)


def is_text(field: dataclasses.Field[Any]) -> bool:
    """Whether a parameter may hold a text that is not one of its own words."""
    return not field.metadata["choices"] and not str(field.type).startswith(NUMBERS)


def offered(what: str) -> frozenset[str]:
    """The registered names of a kind of algorithm that the page offers."""
    names = (name for family in families().values() for name in getattr(family, what))
    return frozenset(names) - {NONE, COMPOSITION}


def _check_dataset(stated: Mapping[str, Any], data: Path) -> None:
    kind = stated["kind"]
    if kind not in DATASETS:
        raise SpecError(f"dataset: expected one of {', '.join(DATASETS)}, got {kind!r}")
    if not kind.startswith(BUILT_IN):
        below(str(stated.get("path", "")), data, "dataset")


def _check_subject(part: str, stated: str | Mapping[str, Any], data: Path) -> None:
    if isinstance(stated, str):
        stated = {"name": stated}
    name, weights = stated["name"], stated.get("weights")
    if weights is not None:
        below(weights, data, "weights", file=True)
    if part == "model" and name.startswith(TORCHVISION):
        if weights is None:
            raise SpecError(
                f"weights: expected a file below the data folder, {data}, for {name}: "
                "the app fetches none; got nothing"
            )
    elif name not in SUBJECTS[part]:
        expected = ", ".join(SUBJECTS[part])
        raise SpecError(f"{part}: expected one of {expected}, got {name!r}")


def _check_algorithm(what: str, stated: Mapping[str, Any], data: Path) -> None:
    given = {name: value for name, value in stated.items() if name not in STATED | {"name"}}
    if stated.get("targets", "other-image") != "other-image":
        raise SpecError(f"targets: expected other-image, got {stated['targets']!r}")
    for name, parameters, where in _steps(what, stated["name"], given):
        if name not in offered(what):
            known = ", ".join(sorted(offered(what)))
            raise SpecError(f"{where or f'{what}: '}expected one of {known}, got {name!r}")
        fields = parameter_fields(REGISTRIES[what][name])
        for parameter, value in parameters.items():
            if parameter not in fields:
                raise SpecError(f"{where}{parameter}: {name} has no such parameter")
            _check_value(fields[parameter], value, data, f"{where}{parameter}")


def _steps(
    what: str, name: str, given: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Name and parameters of an algorithm, or of each step of a line, and where they stand."""
    if what != "purifiers" or name in REGISTRIES[what]:
        yield name, given, ""
        return
    try:
        for part in averaged(name):
            for step, parameters in parse_composition(part, REGISTRIES[what], parameter_fields):
                yield step, parameters, "line: "
    except ValueError as error:
        raise SpecError(f"line: {error}") from None


def _check_value(field: dataclasses.Field[Any], value: Any, data: Path, where: str) -> None:
    if value is None:
        return
    if not is_text(field):
        words = field.metadata["choices"]
        if isinstance(value, str) and value not in words:
            expected = " | ".join(words) or "a number"
            raise SpecError(f"{where}: expected {expected}, got {value!r}")
        return
    if not isinstance(parse_number(value), str):
        raise SpecError(f"{where}: expected a word, got {value!r}")
    check = TEXTS.get(field.name)
    if check is None:
        raise SpecError(f"{where}: expected nothing, it cannot be set here; got {value!r}")
    check(value, data, where)


def _file(value: str, data: Path, where: str) -> None:
    below(value, data, where, file=True)


def _network(value: str, data: Path, where: str) -> None:
    known = [*purifier_networks.NETWORKS, *purifier_networks.ARCHITECTURES]
    if value not in known:
        raise SpecError(f"{where}: expected one of {', '.join(known)}, got {value!r}")


def _prior(value: str, data: Path, where: str) -> None:
    known = [*priors.PRIORS, *priors.ARCHITECTURES]
    if value.startswith(DIFFUSERS):
        folder = below(value.removeprefix(DIFFUSERS), data, where)
        if (data / folder).is_dir():
            return
    if value not in known:
        expected = f"{', '.join(known)}, or {DIFFUSERS}<folder below the data folder>"
        raise SpecError(f"{where}: expected one of {expected}, got {value!r}")


def _module(value: str, data: Path, where: str) -> None:
    if not _PART.fullmatch(value):
        raise SpecError(f"{where}: expected the name of a part of the model, got {value!r}")


TEXTS: dict[str, Callable[[str, Path, str], None]] = {
    "layer": _module,
    "network": _network,
    "prior": _prior,
    "weights": _file,
}
"""What checks each text parameter, by its name; those that are not here cannot be set."""
