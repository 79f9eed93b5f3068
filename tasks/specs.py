"""Specifications of runs: validated, frozen, and turned into algorithms.

A specification is a YAML file. Every mistake in it is reported with the field's path and what was
expected there, before anything is computed.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    PositiveInt,
    field_validator,
    model_validator,
)

from defender.scaling import Pipeline
from defender.spelling import parse_number
from tasks.presets import expanded
from tasks.requirement_specs import RequirementSpec
from tasks.subject_specs import (
    AlignSpec,
    EncoderSpec,
    FacesSpec,
    Grown,
    MetricSpec,
    ModelSpec,
    Strict,
)

Policy = Literal["observe", "reject", "purify-if-flagged"]


def _not_reserved(value: str) -> str:
    if value == "data":
        raise ValueError("expected another name: 'data' is where a store keeps its chunks")
    return value


RunName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"), AfterValidator(_not_reserved)
]
"""Name of a run: the folder of its outputs in the store."""


SIDES = re.compile(r"\s*(\d+)\s*x\s*(\d+)\s*")
"""Height and width in one word: ``224x224``."""


class DatasetSpec(Grown):
    """Which images, and how they are cut into chunks.

    Options of the kind itself (``path``, ``split``, ``count``, ...) stand beside these.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    LATER: ClassVar[tuple[str, ...]] = ("align",)

    kind: str
    include: str | None = Field(default=None, description="pattern of names; only those that fit")
    exclude: str | None = Field(default=None, description="pattern of names that are left out")
    limit: int | None = Field(default=None, ge=1, description="use the first images only")
    chunk_size: int | None = Field(default=None, ge=1, le=65536, description="images a chunk")
    chunk_bytes: int = Field(default=64 << 20, ge=1, description="decoded bytes a chunk, at most")
    colour: Literal["rgb", "grey", "keep"] = Field(default="rgb", description="decode to")
    resize: tuple[int, int] | None = Field(default=None, description="height and width")
    align: AlignSpec | None = Field(
        default=None, description="move the face on each image to its place; none: do not"
    )

    @model_validator(mode="after")
    def _one_size(self) -> DatasetSpec:
        if self.align is not None and self.resize is not None:
            raise ValueError("align: aligned images have a size of their own, expected no resize")
        return self

    @property
    def options(self) -> dict[str, Any]:
        """The options that belong to the kind of dataset."""
        return dict(self.model_extra or {})


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


class AttackSpec(Grown, AlgorithmSpec):
    """An attack, aimed at the true label or towards a target class."""

    LATER: ClassVar[tuple[str, ...]] = ("randomness",)

    target: int | None = Field(default=None, ge=0, description="class to reach; none: any other")
    through: str | None = Field(
        default=None, description="label of a purifier the attack sees through (BPDA)"
    )
    draws: int = Field(default=1, ge=1, description="draws of that purifier a gradient (EOT)")
    backward: Literal["identity", "exact"] = Field(
        default="identity", description="gradient of that purifier: passed unchanged, or its own"
    )
    randomness: Literal["unknown", "known"] = Field(
        default="unknown",
        description="random numbers of that purifier: others, or those that it will draw itself",
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
    strength: StrengthSpec | None = Field(
        default=None, description="search the attack's strength for a mean change; none: as given"
    )
    fit_images: int | None = Field(
        default=None, ge=1, description="images a fitted attack is fitted on; none: all"
    )
    fit_dataset: DatasetSpec | None = Field(
        default=None, description="images a fitted attack is fitted on; none: those it attacks"
    )
    fitted: str | None = Field(
        default=None, description="label of the attack whose fitted patch or perturbation it uses"
    )
    surrogates: tuple[str, ...] | None = Field(
        default=None, description="labels of the models it is made on; none: the model itself"
    )
    certifiers: tuple[str, ...] | None = Field(
        default=None, description="labels of the certifiers tried on this attack; none: all"
    )
    aim: Literal["impersonate", "dodge"] = Field(
        default="impersonate",
        description="of an attack on a face encoder: pass as the person of another picture, or "
        "not be recognised (from a random start: an image is most like itself)",
    )
    pairing: Literal["keyed", "in-order"] = Field(
        default="keyed",
        description="which picture of another data set belongs to an image: drawn by a key, or "
        "the one at the same place",
    )


class StrengthSpec(Strict):
    """How strong an attack should be: its own parameter is searched until it is."""

    linf: float = Field(gt=0, le=1, description="mean largest change of a value, [0, 1] units")
    images: int = Field(default=16, ge=1, description="images it is measured on, the first ones")

    @field_validator("linf", mode="before")
    @classmethod
    def _fraction(cls, value: Any) -> Any:
        return parse_number(value)


class DetectorSpec(AlgorithmSpec):
    """A detector and what is done with what it flags."""

    policy: tuple[Policy, ...] = ("observe",)
    fpr: float = Field(default=0.05, gt=0, lt=1, description="false-positive rate of the threshold")

    @field_validator("policy", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class PurifierSpec(AlgorithmSpec):
    """A purifier, and how often a random one is drawn."""

    draws: int = Field(
        default=1, ge=1, le=1000, description="times that each image is purified and asked about"
    )


class ExplainSpec(Strict):
    """Heat maps of what the model looks at, for the true and for the predicted class."""

    layer: str | None = Field(default=None, description="module; none: the last convolution")
    share: float = Field(default=0.15, gt=0, lt=1, description="share of a map that is its top")


class ComputeSpec(Strict):
    """How the work is done. ``batch``, ``pixels`` and the device class are part of results."""

    batch: int = Field(default=64, ge=1, description="images a compute batch; the last is padded")
    pixels: int = Field(default=1 << 20, ge=1, description="pixels a compute batch, at most")
    workers: int | None = Field(default=None, ge=1, description="chunks at a time")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    memory: int | None = Field(default=None, ge=1, description="bytes allowed; none: what is free")
    runner: str = Field(
        default="threads",
        pattern=r"^(threads|processes|dask(:[a-z]+://.+)?)$",
        description="what computes chunks: threads, processes, dask (a local cluster), or "
        "dask:tcp://HOST:PORT (the scheduler of a cluster)",
    )
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
    metric: MetricSpec | None = Field(
        default=None, description="image-quality metric that is attacked, in place of a model"
    )
    encoder: EncoderSpec | None = Field(
        default=None, description="face encoder that is attacked, in place of a model"
    )
    faces: FacesSpec = FacesSpec()
    others: tuple[ModelSpec, ...] = Field(
        default=(), description="further models that are shown the images; attacks may use them"
    )
    pipeline: PipelineSpec | None = Field(
        default=None, description="resize in front of the model; none: it sees images as they are"
    )
    attacks: tuple[AttackSpec, ...] = ()
    detectors: tuple[DetectorSpec, ...] = ()
    purifiers: tuple[PurifierSpec, ...] = ()
    certifiers: tuple[AlgorithmSpec, ...] = ()
    explain: ExplainSpec | None = Field(
        default=None, description="compare heat maps of attacked and purified images; none: do not"
    )
    baseline: str | None = Field(
        default=None,
        description="label of the purifier that others are compared with on a quality metric; "
        "none: the one that halves both sides",
    )
    metrics: tuple[str, ...] = (
        "gain",
        "quality",
        "srcc",
        "score",
        "score_shift",
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
        "far",
        "frr",
        "eer",
        "similarity",
    )
    compute: ComputeSpec = ComputeSpec()
    examples: int = Field(default=3, ge=0, le=50, description="images a row of the report's grid")
    require: tuple[RequirementSpec, ...] = Field(
        default=(), description="limits of the figures; a run that breaks one of them fails"
    )

    @field_validator("purifiers", mode="before")
    @classmethod
    def _presets(cls, value: Any) -> Any:
        return expanded(value)


def label_of(spec: AlgorithmSpec) -> str:
    """The name of an algorithm in reports: its label, or its name and what was set."""
    if spec.label:
        return spec.label
    extra = {**spec.parameters}
    if isinstance(spec, AttackSpec):
        extra |= {"target": spec.target} if spec.target is not None else {}
        extra |= {"through": spec.through} if spec.through is not None else {}
        extra |= {"surrogates": "+".join(spec.surrogates)} if spec.surrogates else {}
        extra |= {"draws": spec.draws} if spec.draws > 1 else {}
        extra |= {"backward": spec.backward} if spec.backward != "identity" else {}
        extra |= {"randomness": spec.randomness} if spec.randomness != "unknown" else {}
        if spec.targets is not None:
            chosen = spec.targets
            extra["targets"] = chosen if isinstance(chosen, str) else chosen.kind
        extra |= {"linf": f"{spec.strength.linf:g}"} if spec.strength is not None else {}
    inside = ", ".join(f"{name}={value}" for name, value in extra.items())
    return f"{spec.name}({inside})" if inside else spec.name
