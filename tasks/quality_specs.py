"""What the specification of the training of a quality metric has of its own."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from defender.quality_training import QualityTraining
from tasks.subject_specs import Grown, Strict


class QualityRecipeSpec(Grown):
    """The recipe: the parameters of :class:`defender.quality_training.QualityTraining`."""

    LATER: ClassVar[tuple[str, ...]] = ("backbone_rate", "schedule", "step_epochs", "decay")

    epochs: int = Field(default=30, ge=1, le=100_000)
    peak_lr: float = Field(default=2e-3, gt=0)
    warmup: float = Field(default=0.15, ge=0, lt=1)
    weight_decay: float = Field(default=0.02, ge=0)
    crop: int = Field(default=0, ge=0, description="side of the square; 0: whole images")
    flip: bool = True
    p: float = Field(default=1.0, ge=1)
    q: float = Field(default=2.0, ge=1)
    level_weight: float = Field(default=0.1, ge=0)
    average_decay: float = Field(default=0.998, ge=0, lt=1)
    precision: Literal["fp32", "bf16"] = "fp32"
    backbone_rate: float = Field(
        default=1.0, ge=0, description="learning rate of the backbone, relative to the heads"
    )
    schedule: Literal["one-cycle", "steps"] = "one-cycle"
    step_epochs: int = Field(default=10, ge=1, description="steps: epochs between two rates")
    decay: float = Field(default=0.1, gt=0, le=1, description="steps: factor of the rate")

    @model_validator(mode="after")
    def _used(self) -> QualityRecipeSpec:
        fields = type(self).model_fields
        for name in ("step_epochs", "decay"):
            if self.schedule != "steps" and getattr(self, name) != fields[name].default:
                raise ValueError(f"{name}: expected schedule: steps beside it, got {self.schedule}")
        return self

    def recipe(self) -> QualityTraining:
        """The algorithm with these parameters."""
        return QualityTraining(**self.model_dump())


class OpinionsSpec(Strict):
    """What people said of the images: a table with a row an image."""

    path: str = Field(description="CSV file with a header, or Parquet file")
    name: str = Field(min_length=1, description="column with the names of images")
    score: str = Field(
        min_length=1, description="column with mean scores, larger for better images"
    )
    split: str | None = Field(
        default=None, description="column that says which images are held out; none: held_out does"
    )
    dataset: str = Field(default="training", description="its value for images to learn from")
    held_out: str = Field(default="test", description="its value for held-out images")
    partial: bool = Field(
        default=False, description="pass over images without a score and scores without an image"
    )

    @model_validator(mode="after")
    def _apart(self) -> OpinionsSpec:
        if self.split is not None and self.held_out == self.dataset:
            raise ValueError(
                f"held_out: expected another value than that of dataset, got {self.held_out!r}"
            )
        return self
