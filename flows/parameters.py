"""Parameters of deployments: what a form may offer and accept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, ParamSpec, TypeVar

from prefect.context import FlowRunContext
from prefect.flows import Flow
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

P = ParamSpec("P")
R = TypeVar("R")

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=1 << 31)]
Whole = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, lt=1)]
Sides = Annotated[str, Field(pattern=r"^\s*\d+\s*x\s*\d+\s*$", examples=["224x224"])]
Library = Literal["opencv", "pillow", "torch"]
Colour = Literal["rgb", "grey", "keep"]
Normalisation = Literal["imagenet", "half", "facenet", "none"]
Protocol = Literal["pairs", "lfw", "ijb"]


class PurifyOptions(TypedDict, total=False):
    """Rarely needed options of ``purify``; those that are left out keep their defaults."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    name: Annotated[str | None, Field(description="name of the run; none: of the folders")]
    include: Annotated[str | None, Field(description="pattern of names; only those that fit")]
    colour: Annotated[Colour | None, Field(description="decode to; none: keep")]
    chunk_size: Annotated[Count | None, Field(description="images a chunk")]
    suffix: Annotated[str, Field(description="of the purified files; a lossless format")]
    model: Annotated[Any, Field(description="for purifiers that work on one")]
    pipeline: Annotated[
        dict[str, Any] | None, Field(description="for purifiers that need to know the resize")
    ]
    overwrite: Annotated[bool, Field(description="replace what others left in the folder")]


def in_flow_run() -> bool:
    """Whether a flow run is under way here, to which artifacts would belong."""
    return FlowRunContext.get() is not None


def one_run(made: Flow[P, R]) -> Callable[P, R]:
    """A flow that joins the flow run that calls it instead of starting one below it.

    A flow run within another costs about a second, and what it leaves does not show on the page
    of the run that it belongs to.
    """

    def joined(*args: P.args, **kwargs: P.kwargs) -> R:
        return made.fn(*args, **kwargs) if in_flow_run() else made(*args, **kwargs)

    joined.__doc__, joined.__name__ = made.fn.__doc__, made.fn.__name__
    return joined
