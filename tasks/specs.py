"""Specifications of runs: validated, frozen, and turned into algorithms.

A specification is a YAML file. Every mistake in it is reported with the field's path and what was
expected there, before anything is computed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from inspect import isclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from defender.scaling import Pipeline
from tasks.errors import SpecError
from tasks.names import suggestion

Policy = Literal["observe", "reject", "purify-if-flagged"]
AnySpec = TypeVar("AnySpec", bound=BaseModel)


def _not_reserved(value: str) -> str:
    if value == "data":
        raise ValueError("expected another name: 'data' is where a store keeps its chunks")
    return value


RunName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"), AfterValidator(_not_reserved)
]
"""Name of a run: the folder of its outputs in the store."""


def _above_zero(value: tuple[float, ...]) -> tuple[float, ...]:
    if not value or not all(part > 0 for part in value):
        raise ValueError(f"expected numbers above 0, got {list(value)}")
    return value


Deviations = Annotated[tuple[float, ...], AfterValidator(_above_zero)]
"""Standard deviations of the channels."""


SIDES = re.compile(r"\s*(\d+)\s*x\s*(\d+)\s*")
"""Height and width in one word: ``224x224``."""


class Strict(BaseModel):
    """A part of a specification: read only, and unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DatasetSpec(Strict):
    """Which images, and how they are cut into chunks.

    Options of the kind itself (``path``, ``split``, ``count``, ...) stand beside these.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str
    include: str | None = Field(default=None, description="pattern of names; only those that fit")
    exclude: str | None = Field(default=None, description="pattern of names that are left out")
    limit: int | None = Field(default=None, ge=1, description="use the first images only")
    chunk_size: int | None = Field(default=None, ge=1, le=65536, description="images a chunk")
    chunk_bytes: int = Field(default=64 << 20, ge=1, description="decoded bytes a chunk, at most")
    colour: Literal["rgb", "grey", "keep"] = Field(default="rgb", description="decode to")
    resize: tuple[int, int] | None = Field(default=None, description="height and width")

    @property
    def options(self) -> dict[str, Any]:
        """The options that belong to the kind of dataset."""
        return dict(self.model_extra or {})


class ModelSpec(Strict):
    """Which model is attacked and defended.

    ``name`` is a shipped model, ``torchvision:<architecture>``, ``python:<module>:<factory>``,
    ``callable:<module>:<function>`` (queries only) or the URL of an HTTP endpoint (queries only).
    """

    name: str
    weights: str | None = Field(default=None, description="state dict, .safetensors or .pt")
    mean: tuple[float, ...] | None = Field(default=None, description="channel means, [0, 1]")
    std: Deviations | None = Field(default=None, description="channel deviations, [0, 1]")
    classes: int | None = Field(default=None, ge=2, description="outputs of a query-only model")
    timeout: float = Field(default=30.0, gt=0, description="seconds an HTTP query may take")
    label: str | None = None

    @field_validator("name", mode="after")
    @classmethod
    def _named(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("expected the name of a model, got nothing")
        return value


class PipelineSpec(Strict):
    """How the model's own pipeline resizes an image before the model sees it."""

    library: Literal["opencv", "pillow", "torch"] = "opencv"
    algorithm: str = Field(default="linear", description="interpolation, as the library offers it")
    antialias: bool = Field(default=False, description="torch: antialiased linear or cubic")
    target: tuple[PositiveInt, PositiveInt] = Field(description="height and width the model sees")

    @field_validator("target", mode="before")
    @classmethod
    def _written_as_sides(cls, value: Any) -> Any:
        if isinstance(value, str) and (match := SIDES.fullmatch(value)):
            return (int(match[1]), int(match[2]))
        return value

    @model_validator(mode="after")
    def _offered(self) -> PipelineSpec:
        self.pipeline()
        return self

    def pipeline(self) -> Pipeline:
        """The resize with these settings."""
        return Pipeline(self.library, self.algorithm, self.antialias, self.target)


class AlgorithmSpec(Strict):
    """An attack, detector or purifier by its registered name, with its parameters beside it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    label: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters as written."""
        return dict(self.model_extra or {})


class AttackSpec(AlgorithmSpec):
    """An attack, aimed at the true label or towards a target class."""

    target: int | None = Field(default=None, ge=0, description="class to reach; none: any other")
    through: str | None = Field(
        default=None, description="label of a purifier the attack sees through (BPDA)"
    )
    draws: int = Field(default=1, ge=1, description="draws of that purifier a gradient (EOT)")
    backward: Literal["identity", "exact"] = Field(
        default="identity", description="gradient of that purifier: passed unchanged, or its own"
    )
    detectors: tuple[str, ...] | None = Field(
        default=None, description="labels of the detectors tried on this attack; none: all"
    )
    purifiers: tuple[str, ...] | None = Field(
        default=None, description="labels of the purifiers tried on this attack; none: all"
    )
    targets: Literal["other-class", "other-image"] | DatasetSpec | None = Field(
        default=None,
        description="pictures a scaling attack hides: of the data set itself, or another data set",
    )


class DetectorSpec(AlgorithmSpec):
    """A detector and what is done with what it flags."""

    policy: tuple[Policy, ...] = ("observe",)
    fpr: float = Field(default=0.05, gt=0, lt=1, description="false-positive rate of the threshold")

    @field_validator("policy", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class ComputeSpec(Strict):
    """How the work is done. ``batch``, ``pixels`` and the device class are part of results."""

    batch: int = Field(default=64, ge=1, description="images a compute batch; the last is padded")
    pixels: int = Field(default=1 << 20, ge=1, description="pixels a compute batch, at most")
    workers: int | None = Field(default=None, ge=1, description="chunks at a time")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    memory: int | None = Field(default=None, ge=1, description="bytes allowed; none: what is free")
    retries: int = Field(default=3, ge=0, le=20, description="tries again after a passing fault")
    order: Literal["forward", "backward", "shuffled"] = "forward"


class Spec(Strict):
    """A whole run: a dataset, a model, and the matrix attack x detector x purifier."""

    name: RunName
    seed: int = Field(default=0, ge=0, lt=1 << 31)
    dataset: DatasetSpec
    calibration: str | None = Field(
        default=None,
        description="pattern of names, such as train/*: these images set the detectors' thresholds "
        "and take no part in any figure; none: half of the images set them",
    )
    model: ModelSpec | None = Field(
        default=None, description="what is attacked and asked; none: images are only compared"
    )
    pipeline: PipelineSpec | None = Field(
        default=None, description="resize in front of the model; none: it sees images as they are"
    )
    attacks: tuple[AttackSpec, ...] = ()
    detectors: tuple[DetectorSpec, ...] = ()
    purifiers: tuple[AlgorithmSpec, ...] = ()
    metrics: tuple[str, ...] = (
        "accuracy",
        "attack_success",
        "label_recovery",
        "psnr",
        "ssim",
        "l2",
        "linf",
        "scaled_psnr",
        "target_psnr",
        "o1",
        "o2",
    )
    compute: ComputeSpec = ComputeSpec()
    examples: int = Field(default=3, ge=0, le=50, description="images a row of the report's grid")


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


def label_of(spec: AlgorithmSpec) -> str:
    """The name of an algorithm in reports: its label, or its name and what was set."""
    if spec.label:
        return spec.label
    extra = {**spec.parameters}
    if isinstance(spec, AttackSpec):
        extra |= {"target": spec.target} if spec.target is not None else {}
        extra |= {"through": spec.through} if spec.through is not None else {}
        extra |= {"draws": spec.draws} if spec.draws > 1 else {}
        extra |= {"backward": spec.backward} if spec.backward != "identity" else {}
        if spec.targets is not None:
            chosen = spec.targets
            extra["targets"] = chosen if isinstance(chosen, str) else chosen.kind
    inside = ", ".join(f"{name}={value}" for name, value in extra.items())
    return f"{spec.name}({inside})" if inside else spec.name
