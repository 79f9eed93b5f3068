"""What a specification may say of the system that is attacked: a model, a metric or an encoder."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from defender.models.face_encoder import Fit, Normalisation


def _above_zero(value: tuple[float, ...]) -> tuple[float, ...]:
    if not value or not all(part > 0 for part in value):
        raise ValueError(f"expected numbers above 0, got {list(value)}")
    return value


Deviations = Annotated[tuple[float, ...], AfterValidator(_above_zero)]
"""Standard deviations of the channels."""


class Strict(BaseModel):
    """A part of a specification: read only, and unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Grown(Strict):
    """A part of a specification that got some of its fields later.

    While all of these are at their default, what is written of it leaves them out, so that it is
    what it was before there were any, and so are the digests made from it.
    """

    LATER: ClassVar[tuple[str, ...]] = ()
    """The fields that came later."""

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = write(self)
        fields = type(self).model_fields
        if any(getattr(self, name) != fields[name].default for name in self.LATER):
            return content
        return {name: value for name, value in content.items() if name not in self.LATER}


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


class MetricSpec(Strict):
    """Which image-quality metric is attacked and defended.

    ``name`` is a shipped metric, ``linearity:<backbone>`` with its checkpoint as ``weights``,
    ``piq:<metric>``, ``pyiqa:<metric>`` or ``python:<module>:<factory>``.
    """

    name: str
    weights: str | None = Field(default=None, description="checkpoint, .safetensors or .pth")
    label: str | None = None
    score_range: tuple[float, float] | None = Field(
        default=None, description="scores of the worst and the best images, the smaller first"
    )
    lower_is_better: bool | None = Field(
        default=None, description="whether smaller scores mean better images; none: as known"
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("score_range")
    @classmethod
    def _rising(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not value[0] < value[1]:
            raise ValueError(f"expected the smaller score first, got {list(value)}")
        return value


class EncoderSpec(Strict):
    """Which face encoder tells people apart, and how images are prepared for it.

    ``name`` is an architecture with its checkpoint as ``weights``, or
    ``python:<module>:<factory>``.
    """

    name: str
    weights: str | None = Field(default=None, description="state dict, .safetensors or .pt")
    label: str | None = None
    side: PositiveInt | None = Field(
        default=None, description="height and width that the network sees; none: as known"
    )
    normalisation: Normalisation | None = Field(
        default=None, description="how values are normalised; none: as the weights were trained"
    )
    fit: Fit = Field(default="stretch", description="whether images keep their aspect")
    scale: float = Field(
        default=1.0, gt=0, le=1, description="share of height and width that the image fills"
    )
    flip: bool = Field(default=False, description="add the embedding of the mirror image")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class AlignSpec(Strict):
    """Faces that are moved, while images are decoded, to where encoders expect them."""

    weights: str = Field(description="ONNX file of OpenCV's face detector YuNet")
    size: tuple[PositiveInt, PositiveInt] = Field(
        default=(112, 112), description="height and width of the aligned images"
    )
    threshold: float = Field(
        default=0.6, ge=0, le=1, description="confidence from which on something is a face"
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"weights": value} if isinstance(value, str) else value


class FacesSpec(Strict):
    """Who is on a face, and where a verification system draws the line."""

    identity: str | None = Field(
        default=None,
        description="regular expression whose group in an image's name is the person; none: the "
        "label, which is the folder",
    )
    far: float = Field(
        default=0.01,
        gt=0,
        lt=1,
        description="share of clean pairs of two people that is accepted: each defence gets the "
        "threshold at which it is",
    )
    threshold: float | None = Field(
        default=None, ge=0, le=1, description="similarity from which pairs are accepted, for all"
    )

    @field_validator("identity")
    @classmethod
    def _one_group(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                groups = re.compile(value).groups
            except re.error as error:
                raise ValueError(f"expected a regular expression, got {value!r}: {error}") from None
            if groups != 1:
                raise ValueError(f"expected a group, as in '(s[0-9]+)/', got {value!r}")
        return value
