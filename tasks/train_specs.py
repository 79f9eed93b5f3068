"""Specifications of trainings: a data set, an architecture and a recipe, validated and frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from defender.scaling import Pipeline
from defender.training import ClassifierTraining
from tasks.spec_files import override, parse, read_content
from tasks.specs import (
    DatasetSpec,
    Deviations,
    PipelineSpec,
    RunName,
    Strict,
)


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

    def recipe(self) -> ClassifierTraining:
        """The algorithm with these parameters."""
        return ClassifierTraining(**self.model_dump())


class TrainComputeSpec(Strict):
    """Where the training runs. The device class is part of the result."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(default=None, ge=1, description="torch threads; none: all cores")
    retries: int = Field(default=3, ge=0, le=20, description="tries again after a passing fault")


class TrainSpec(Strict):
    """A whole training: images to learn from, images held out, an architecture and a recipe."""

    name: RunName
    seed: int = Field(default=0, ge=0, lt=1 << 31)
    dataset: DatasetSpec
    held_out: DatasetSpec
    model: ArchitectureSpec
    pipeline: tuple[PipelineSpec, ...] = Field(
        default=(),
        description="resizes in front of the model: training draws one an image and epoch, the "
        "card has the figures behind each; none: it sees images as they are",
    )
    training: RecipeSpec = RecipeSpec()
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

    @field_validator("out")
    @classmethod
    def _file_name(cls, value: str) -> str:
        if value and (Path(value).name != value or Path(value).suffix != ".safetensors"):
            raise ValueError(f"expected a file name that ends in .safetensors, got {value!r}")
        return value

    @property
    def pipelines(self) -> tuple[Pipeline, ...]:
        """The resizes in front of the model."""
        return tuple(spec.pipeline() for spec in self.pipeline)

    @property
    def weights_name(self) -> str:
        """File name of the exported weights."""
        return self.out or f"{self.name}.safetensors"


def load_train_spec(path: Path, assignments: Sequence[str] = ()) -> TrainSpec:
    """Read, override and validate the specification file of a training.

    Raises:
        SpecError: naming the file, the field and what was expected.
    """
    return parse(TrainSpec, override(read_content(path), assignments), str(path))
