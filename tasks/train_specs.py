"""Specifications of trainings: images, an architecture and a recipe, validated and frozen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from defender.arcface import FaceTraining
from defender.diffusion.schedule import NoiseSchedule
from defender.distortions import DISTORTIONS, TRAINED
from defender.prior_training import PriorTraining
from defender.purifier_training import PurifierTraining
from defender.scaling import Pipeline
from defender.spelling import parse_number
from defender.training import ClassifierTraining
from tasks.errors import SpecError
from tasks.names import suggestion
from tasks.quality_specs import OpinionsSpec, QualityRecipeSpec
from tasks.spec_files import override, parse, read_content
from tasks.specs import AttackSpec, DatasetSpec, PipelineSpec, RunName
from tasks.subject_specs import Deviations, EncoderSpec, Grown, MetricSpec, ModelSpec, Strict


class ArchitectureSpec(Strict):
    """What is trained: a shipped architecture or ``python:<module>:<factory>``.

    The mean and the deviation of the channels belong to the model; a shipped architecture brings
    its own.
    """

    name: str
    mean: tuple[float, ...] | None = Field(default=None, description="channel means, [0, 1]")
    std: Deviations | None = Field(default=None, description="channel deviations, [0, 1]")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class RecipeSpec(Strict):
    """The recipe: the parameters of :class:`defender.training.ClassifierTraining`."""

    epochs: int = Field(default=40, ge=1, le=100_000)
    peak_lr: float = Field(default=0.2, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    bias_rate: float = Field(default=1.0, gt=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    warmup: float = Field(default=0.2, ge=0, lt=1)
    padding: int = Field(default=4, ge=0)
    flip: bool = True
    cutout: int = Field(default=8, ge=0)
    average_decay: float = Field(default=0.998, ge=0, lt=1)
    precision: Literal["fp32", "bf16"] = "fp32"
    rotation: float = Field(default=0.0, ge=0, le=180, description="degrees, either way")
    zoom: float = Field(default=0.0, ge=0, le=1)
    gamma: float = Field(default=0.0, ge=0, le=2)
    contrast: float = Field(default=0.0, ge=0, le=2)
    brightness: float = Field(default=0.0, ge=0, le=1)
    class_weights: Literal["equal", "balanced"] = "equal"
    stretch: float = Field(default=0.0, ge=0, le=1)
    mixup: float = Field(default=0.0, ge=0, le=10, description="parameter of the shares; 0: none")

    def recipe(self) -> ClassifierTraining:
        """The algorithm with these parameters."""
        return ClassifierTraining(**self.model_dump())


class TrainComputeSpec(Strict):
    """Where the training runs. The device class is part of the result."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(default=None, ge=1, description="torch threads; none: all cores")
    retries: int = Field(default=3, ge=0, le=20, description="tries again after a passing fault")


class TrainingSpec(Strict):
    """What the specifications of all trainings have."""

    task: str
    name: RunName
    seed: int = Field(default=0, ge=0, lt=1 << 31)
    dataset: DatasetSpec
    held_out: DatasetSpec
    batch: int = Field(default=128, ge=1, description="images a step")
    window_bytes: int = Field(
        default=1 << 30,
        ge=1,
        description="decoded bytes in memory; a larger data set is shuffled window by window",
    )
    evaluate_every: int = Field(
        default=0, ge=0, description="epochs between looks at the held-out images; 0: at the end"
    )
    half: bool = Field(default=False, description="export 16-bit weights")
    note: str = Field(default="", description="what the card should say beside the figures")
    out: str = Field(default="", description="file name of the weights; empty: <name>.safetensors")
    compute: TrainComputeSpec = TrainComputeSpec()

    @field_validator("out")
    @classmethod
    def _file_name(cls, value: str) -> str:
        if value and (Path(value).name != value or Path(value).suffix != ".safetensors"):
            raise ValueError(f"expected a file name that ends in .safetensors, got {value!r}")
        return value

    @property
    def weights_name(self) -> str:
        """File name of the exported weights."""
        return self.out or f"{self.name}.safetensors"


class TrainSpec(TrainingSpec):
    """The training of a classifier: images with labels, an architecture and a recipe."""

    task: Literal["classify"] = "classify"
    model: ArchitectureSpec
    pipeline: tuple[PipelineSpec, ...] = Field(
        default=(),
        description="resizes in front of the model: training draws one an image and epoch, the "
        "card has the figures behind each; none: it sees images as they are",
    )
    training: RecipeSpec = RecipeSpec()

    @field_validator("pipeline", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, Mapping) else value

    @field_validator("pipeline")
    @classmethod
    def _one_target(cls, value: tuple[PipelineSpec, ...]) -> tuple[PipelineSpec, ...]:
        targets = sorted({spec.pipeline().target for spec in value})
        if len(targets) > 1:
            raise ValueError(f"expected pipelines of one target, got {targets}")
        return value

    @property
    def pipelines(self) -> tuple[Pipeline, ...]:
        """The resizes in front of the model."""
        return tuple(spec.pipeline() for spec in self.pipeline)


class QualityTrainSpec(Grown, TrainingSpec):
    """The training of a quality metric: images to distort or with scores, a metric, a recipe.

    Where the table of scores says which images are held out, ``held_out`` is ``dataset`` unless
    it is given.
    """

    LATER: ClassVar[tuple[str, ...]] = ("opinions", "initial")

    task: Literal["quality"]
    model: str = Field(description="linearity-small or linearity:<torchvision architecture>")
    distortions: tuple[str, ...] = Field(
        default=TRAINED, min_length=1, description="what the images suffer, at five levels each"
    )
    unseen: tuple[str, ...] = Field(
        default=(), description="distortions of held-out images only, for the card"
    )
    training: QualityRecipeSpec = QualityRecipeSpec()
    opinions: OpinionsSpec | None = Field(
        default=None, description="what people said of the images, in place of distortions"
    )
    initial: str | None = Field(
        default=None,
        description="weights of the torchvision classifier to start from; none: random",
    )

    @model_validator(mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and "held_out" not in value and "dataset" in value:
            opinions = value.get("opinions")
            if isinstance(opinions, Mapping) and opinions.get("split") is not None:
                return {**value, "held_out": value["dataset"]}
        return value

    @field_validator("distortions", "unseen")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in DISTORTIONS:
                known = ", ".join(DISTORTIONS)
                raise ValueError(
                    f"expected names among {known}, got {name!r}{suggestion(name, DISTORTIONS)}"
                )
        return value

    @model_validator(mode="after")
    def _once(self) -> QualityTrainSpec:
        if self.opinions is not None and (self.distortions != TRAINED or self.unseen):
            raise ValueError("distortions, unseen: expected none beside opinions, got some")
        named = [*self.distortions, *self.unseen]
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise ValueError(
                f"distortions, unseen: expected every name once, got {', '.join(twice)} twice"
            )
        return self


class PurifierRecipeSpec(Strict):
    """The recipe: the parameters of :class:`defender.purifier_training.PurifierTraining`."""

    epochs: int = Field(default=100, ge=1, le=100_000)
    peak_lr: float = Field(default=1e-3, gt=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    crop: int = Field(default=128, ge=0, description="side of the square; 0: whole images")
    flip: bool = True
    clean: float = Field(default=0.1, ge=0, lt=1, description="share of pairs without an attack")
    ssim_weight: float = Field(default=0.0, ge=0)
    score_weight: float = Field(default=0.0, ge=0)
    adversary: float = Field(
        default=0.0, ge=0, le=1, description="share of pairs attacked through the network"
    )
    adversary_epsilon: float = Field(default=8 / 255, gt=0, le=1)
    adversary_steps: int = Field(default=5, ge=1)
    average_decay: float = Field(default=0.998, ge=0, lt=1)
    precision: Literal["fp32", "bf16"] = "fp32"

    @field_validator("adversary_epsilon", mode="before")
    @classmethod
    def _fraction(cls, value: Any) -> Any:
        return parse_number(value)

    def recipe(self) -> PurifierTraining:
        """The algorithm with these parameters."""
        return PurifierTraining(**self.model_dump())


class PurifyTrainSpec(TrainingSpec):
    """The training of a network that purifies: images, attacks on them, a network, a recipe."""

    task: Literal["purify"]
    model: str = Field(description="fcn, residual-fcn, denoiser or python:<module>:<factory>")
    metric: MetricSpec | None = Field(
        default=None, description="image-quality metric that is attacked"
    )
    classifier: ModelSpec | None = Field(
        default=None, description="classifier that is attacked, in place of a metric"
    )
    attacks: tuple[AttackSpec, ...] = Field(
        min_length=1, description="what is to be purified, as in the specification of a run"
    )
    training: PurifierRecipeSpec = PurifierRecipeSpec()

    @model_validator(mode="after")
    def _one_subject(self) -> PurifyTrainSpec:
        if (self.metric is None) == (self.classifier is None):
            got = "neither" if self.metric is None else "both"
            raise ValueError(f"metric, classifier: expected one of the two, got {got}")
        for name in ("score_weight", "adversary"):
            if self.metric is None and getattr(self.training, name):
                raise ValueError(f"training.{name}: expected 0 without a metric, got more")
        return self


class ScheduleSpec(Strict):
    """The noise levels: the parameters of :class:`defender.diffusion.schedule.NoiseSchedule`."""

    steps: int = Field(default=1000, ge=1, le=100_000)
    first: float = Field(default=1e-4, gt=0, lt=1)
    last: float = Field(default=0.02, gt=0, lt=1)

    def schedule(self) -> NoiseSchedule:
        """The noise levels with these parameters."""
        return NoiseSchedule(**self.model_dump())


class PriorRecipeSpec(Strict):
    """The recipe: the parameters of :class:`defender.prior_training.PriorTraining`."""

    epochs: int = Field(default=100, ge=1, le=100_000)
    peak_lr: float = Field(default=1e-3, gt=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    flip: bool = True
    low_share: float = Field(default=0.0, ge=0, le=1, description="images of a low step")
    low_steps: int = Field(default=250, ge=1)
    average_decay: float = Field(default=0.999, ge=0, lt=1)
    precision: Literal["fp32", "bf16"] = "fp32"

    def recipe(self) -> PriorTraining:
        """The algorithm with these parameters."""
        return PriorTraining(**self.model_dump())


class PriorTrainSpec(TrainingSpec):
    """The training of a diffusion model: images, a network that predicts noise, a recipe."""

    task: Literal["prior"]
    model: str = Field(description="small-prior, ddpm-cifar10 or python:<module>:<factory>")
    schedule: ScheduleSpec = ScheduleSpec()
    training: PriorRecipeSpec = PriorRecipeSpec()


class FaceRecipeSpec(Strict):
    """The recipe: the parameters of :class:`defender.arcface.FaceTraining`."""

    epochs: int = Field(default=30, ge=1, le=100_000)
    peak_lr: float = Field(default=1e-3, gt=0)
    warmup: float = Field(default=0.2, ge=0, lt=1)
    weight_decay: float = Field(default=0.05, ge=0)
    margin: float = Field(default=0.5, ge=0, le=1.5, description="angle in radians")
    scale: float = Field(default=64.0, gt=0, description="factor of the cosines")
    padding: int = Field(default=0, ge=0)
    flip: bool = True
    cutout: int = Field(default=0, ge=0)
    rotation: float = Field(default=0.0, ge=0, le=180, description="degrees, either way")
    zoom: float = Field(default=0.0, ge=0, le=1)
    gamma: float = Field(default=0.0, ge=0, le=2)
    contrast: float = Field(default=0.0, ge=0, le=2)
    brightness: float = Field(default=0.0, ge=0, le=1)
    average_decay: float = Field(default=0.998, ge=0, lt=1)
    precision: Literal["fp32", "bf16"] = "fp32"

    def recipe(self) -> FaceTraining:
        """The algorithm with these parameters."""
        return FaceTraining(**self.model_dump())


class FaceTrainSpec(TrainingSpec):
    """The training of a face encoder: pictures of people, an encoder and a recipe.

    Labels are people. ``held_out`` shows others, whom the encoder must tell apart unseen.
    """

    task: Literal["face"]
    model: EncoderSpec = Field(description="encoder; its weights, if any, are the start")
    training: FaceRecipeSpec = FaceRecipeSpec()


KINDS: dict[str, type[TrainingSpec]] = {
    "classify": TrainSpec,
    "quality": QualityTrainSpec,
    "purify": PurifyTrainSpec,
    "prior": PriorTrainSpec,
    "face": FaceTrainSpec,
}
"""Specifications by their field ``task``."""


def kind_of(content: Any, source: str) -> type[TrainingSpec]:
    """What kind of specification the content of a file is meant to be.

    Raises:
        SpecError: for an unknown task.
    """
    task = content.get("task", "classify") if isinstance(content, Mapping) else "classify"
    if not isinstance(task, str) or task not in KINDS:
        raise SpecError(f"{source}: task: expected one of {', '.join(KINDS)}, got {task!r}")
    return KINDS[task]


def train_spec_of(text: str) -> TrainingSpec:
    """The specification that was written as JSON."""
    content = json.loads(text)
    return kind_of(content, "spec").model_validate(content)


def load_train_spec(path: Path, assignments: Sequence[str] = ()) -> TrainingSpec:
    """Read, override and validate the specification file of a training.

    Raises:
        SpecError: naming the file, the field and what was expected.
    """
    content = override(read_content(path), assignments)
    return parse(kind_of(content, str(path)), content, str(path))
