"""Specification files: read, changed from the command line, and explained where they are wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import isclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from tasks.errors import SpecError
from tasks.names import suggestion
from tasks.specs import Spec

AnySpec = TypeVar("AnySpec", bound=BaseModel)


def _path_text(location: Sequence[str | int]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _known_fields(kind: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    here = kind
    for part in location[:-1]:
        field = None if isinstance(part, int) else here.model_fields.get(part)
        if field is not None:
            inside = (field.annotation, *get_args(field.annotation))
            here = next((k for k in inside if isclass(k) and issubclass(k, BaseModel)), here)
    return list(here.model_fields)


def _explain(kind: type[BaseModel], error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        where = _path_text(item["loc"])
        if item["type"] == "extra_forbidden":
            known = _known_fields(kind, item["loc"])
            text = f"unknown field{suggestion(str(item['loc'][-1]), known)}"
            text += f"; expected one of {', '.join(known)}"
        elif item["type"] == "missing":
            text = "expected a value, got nothing"
        else:
            text = item["msg"].removeprefix("Value error, ")
            if "got" not in text:
                text = f"{text[:1].lower()}{text[1:]}, got {item['input']!r}"
        lines.append(f"{where}: {text}")
    return "; ".join(lines)


def parse(kind: type[AnySpec], content: Any, source: str) -> AnySpec:
    """Validate the content of a specification of any kind.

    Args:
        kind: the model that the content must fit.
        content: what the YAML file holds.
        source: name used in error messages.

    Raises:
        SpecError: naming each wrong field and what was expected.
    """
    if not isinstance(content, Mapping):
        raise SpecError(f"{source}: expected a mapping of fields, got {type(content).__name__}")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise SpecError(f"{source}: {_explain(kind, error)}") from None


def parse_spec(content: Any, source: str = "spec") -> Spec:
    """Validate the content of a specification of a run; see :func:`parse`."""
    return parse(Spec, content, source)


def read_content(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        SpecError: where it is absent or not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(f"{path}: expected a specification file, found none") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read: {error}") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(f"{path}: expected YAML: {' '.join(str(error).split())}") from None


def override(content: Any, assignments: Sequence[str]) -> Any:
    """Apply ``key=value`` assignments; keys are dotted, list items are numbers.

    Raises:
        SpecError: for an assignment without ``=`` or a key that leads nowhere.
    """
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise SpecError(f"--set {assignment}: expected key=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise SpecError(f"--set {key}: expected a YAML value, got {text!r}") from None
        *parents, last = key.split(".")
        here = content
        try:
            for part in parents:
                here = here[int(part)] if isinstance(here, list) else here.setdefault(part, {})
            here[int(last) if isinstance(here, list) else last] = value
        except (ValueError, IndexError, TypeError, AttributeError):
            raise SpecError(f"--set {key}: expected the path of a field of the spec") from None
    return content


def load_spec(path: Path, assignments: Sequence[str] = (), limit: int | None = None) -> Spec:
    """Read, override and validate a specification file.

    Raises:
        SpecError: naming the file, the field and what was expected.
    """
    content = override(read_content(path), assignments)
    if limit is not None:
        content = override(content, [f"dataset.limit={limit}"])
    return parse_spec(content, str(path))
