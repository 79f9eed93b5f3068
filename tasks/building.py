"""Algorithms made from what a specification says about them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from defender.purifiers.average import Average
from defender.purifiers.composition import averaged, declared, is_composition, parse_composition
from defender.purifiers.sequence import Sequence
from defender.purifiers.several import Several
from defender.spelling import parse_number
from tasks.errors import SpecError
from tasks.fitted_parts import PARTS, Part
from tasks.names import find, suggestion
from tasks.specs import AlgorithmSpec


def parameter_fields(kind: type) -> dict[str, dataclasses.Field[Any]]:
    """The parameters that a specification may give an algorithm, by name.

    They are those that it declares, and those that say where a fitted part of it is, which come
    first where it cannot do without: words by position are given in this order.
    """
    part = PARTS.get(kind)
    named = {} if part is None else declared(part)
    needed = {n: field for n, field in named.items() if field.default is dataclasses.MISSING}
    return needed | declared(kind) | named


def build(registry: Mapping[str, type], spec: AlgorithmSpec, where: str, **given: Any) -> Any:
    """Make the algorithm that a specification names, or the composition it writes out.

    Args:
        registry: the registered algorithms of the kind.
        spec: name and parameters; the name may hold them, as in ``median(3) > unsharp(1)``.
        where: path of the field, for error messages.
        given: what the pipeline supplies, such as ``model``; used where the algorithm has such
            a field. Files are looked for in ``home``, a folder, and what is read from them goes
            to ``device``.

    Raises:
        SpecError: for an unknown name or parameter, or a value out of range.
        ModelError: for a file that does not hold what it should.
    """
    if is_composition(spec.name):
        return _composed(registry, spec, where, **given)
    registered = find(registry, spec.name)
    if registered is None:
        names = sorted(registry)
        raise SpecError(
            f"{where}.name: expected one of {', '.join(names)}, "
            f"got {spec.name!r}{suggestion(spec.name, names)}"
        )
    kind = registry[registered]
    known = parameter_fields(kind)
    for name in spec.parameters:
        if name not in known:
            options = [*known, *type(spec).model_fields]
            raise SpecError(
                f"{where}.{name}: unknown parameter of {spec.name}"
                f"{suggestion(name, options)}; expected one of {', '.join(options)}"
            )
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for name, field in known.items():
        if field.default is dataclasses.MISSING and name not in spec.parameters:
            raise SpecError(
                f"{where}.{name}: expected a value for {registered}, got nothing; it is "
                f"{field.metadata['doc']}"
            )
    values = {name: parse_number(value) for name, value in spec.parameters.items()}
    if issubclass(kind, Several) and "steps" in values:
        values["steps"] = _steps(registry, values["steps"], where, **given)
    supplied = {name: value for name, value in given.items() if name in fields}
    needs = "model" in fields and fields["model"].default is dataclasses.MISSING
    if needs and given.get("model") is None:
        raise SpecError(f"{where}: {registered} works on a model; expected the field model")
    if "pipeline" in fields and given.get("pipeline") is None:
        raise SpecError(
            f"{where}: {registered} needs to know how the model's pipeline resizes; expected the "
            "field pipeline in the specification, such as {target: 64x64}"
        )
    part = PARTS.get(kind)
    if part is not None:
        values, found = _with_part(part, values, where, given)
        supplied |= found
    for field in dataclasses.fields(kind):
        unset = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if unset and field.name not in {**supplied, **values}:
            raise SpecError(f"{where}: {registered} expected its {field.name}, got nothing")
    try:
        return kind(**supplied, **values)
    except (TypeError, ValueError) as error:
        raise SpecError(f"{where}.{error}" if ":" in str(error) else f"{where}: {error}") from None


def _steps(registry: Mapping[str, type], stated: Any, where: str, **given: Any) -> tuple[Any, ...]:
    """The purifiers that a specification lists within another."""
    if not isinstance(stated, list | tuple):
        raise SpecError(f"{where}.steps: expected a list of purifiers, got {stated!r}")
    try:
        specs = [AlgorithmSpec.model_validate(step) for step in stated]
    except ValidationError as error:
        raise SpecError(f"{where}.steps: {error.errors()[0]['msg']}") from None
    return tuple(
        build(registry, step, f"{where}.steps[{index}]", **given)
        for index, step in enumerate(specs)
    )


def _with_part(
    part: type[Part], values: dict[str, Any], where: str, given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values that are the algorithm's own, and the part that the others name."""
    named = {name: value for name, value in values.items() if name in declared(part)}
    home, device = given.get("home", Path()), given.get("device", torch.device("cpu"))
    own = {name: value for name, value in values.items() if name not in named}
    return own, {part.fills: part(**named).load(home, device, where)}


def _composed(registry: Mapping[str, type], spec: AlgorithmSpec, where: str, **given: Any) -> Any:
    """The algorithm whose parameters are written within its name, or several in one line."""
    if spec.parameters:
        raise SpecError(
            f"{where}: expected parameters within {spec.name!r} only, "
            f"got {', '.join(spec.parameters)} beside it"
        )
    chains = [_chain(registry, part, where, **given) for part in averaged(spec.name)]
    if len(chains) == 1:
        return chains[0]
    if Average not in registry.values():
        raise SpecError(f"{where}: expected one algorithm, got {len(chains)} in {spec.name!r}")
    return Average(tuple(chains))


def _chain(registry: Mapping[str, type], text: str, where: str, **given: Any) -> Any:
    """One algorithm, or several in sequence."""
    try:
        steps = parse_composition(text, registry, parameter_fields)
    except ValueError as error:
        raise SpecError(f"{where}: {error}") from None
    if len(steps) > 1 and Sequence not in registry.values():
        raise SpecError(f"{where}: expected one algorithm, got {len(steps)} in {text!r}")
    made = [
        build(registry, AlgorithmSpec(name=name, **parameters), where, **given)
        for name, parameters in steps
    ]
    return made[0] if len(made) == 1 else Sequence(tuple(made))
