"""What a face verification is asked for, and the run that it comes to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from storage.errors import DatasetNotFound
from tasks.errors import SpecError
from tasks.scan_specs import found
from tasks.spec_files import parse, parse_spec
from tasks.specs import SIDES, RunName, Spec
from tasks.subject_specs import EncoderSpec, FacesSpec, Strict

Protocol = Literal["pairs", "lfw", "ijb"]


class VerifyRequest(Strict):
    """A list of pairs, the images it is about, an encoder, and the protocol of the figures."""

    pairs: Path = Field(description="CSV file of pairs")
    dataset: Path = Field(description="folder or zip of images")
    encoder: EncoderSpec
    purifiers: tuple[str, ...] = Field(default=(), description="in front of the encoder, probes")
    protocol: Protocol = "pairs"
    templates: tuple[Path, ...] = Field(default=(), description="CSV files of templates")
    faces: FacesSpec = FacesSpec(far=1e-3)
    include: str | None = Field(default=None, description="pattern of names; only those that fit")
    resize: tuple[int, int] | None = Field(default=None, description="height and width")
    align: Path | None = Field(default=None, description="face detector that images are aligned by")
    name: RunName | None = Field(default=None, description="name of the run; none: the list's")

    @model_validator(mode="after")
    def _templates(self) -> VerifyRequest:
        if (self.protocol == "ijb") != bool(self.templates):
            given = "some" if self.templates else "none"
            wanted = "files of templates" if self.protocol == "ijb" else "none"
            raise ValueError(f"--templates: expected {wanted} for {self.protocol}, got {given}")
        return self

    @property
    def run_name(self) -> str:
        """The stated name, or one made from that of the list."""
        if self.name is not None:
            return self.name
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", self.pairs.stem).strip("-.")
        return f"verify-{stem or 'pairs'}"[:100]

    def spec(self) -> Spec:
        """The run that embeds the images, as they are and behind each purifier.

        Raises:
            SpecError, DatasetNotFound: naming what is wrong.
        """
        path = found(self.dataset)
        encoder = self.encoder.model_dump()
        if encoder["weights"] is not None:
            encoder["weights"] = str(_file(Path(encoder["weights"]), "--weights"))
        content: dict[str, Any] = {
            "name": self.run_name,
            "dataset": {
                "kind": "zip" if path.is_file() else "folder",
                "path": str(path),
                "class_folder": "parent",
                "include": self.include,
                "resize": self.resize,
                "align": None if self.align is None else str(_file(self.align, "--align")),
            },
            "encoder": encoder,
            "faces": self.faces.model_dump(),
            "purifiers": list(self.purifiers),
            "metrics": [],
            "examples": 0,
        }
        return parse_spec(content, "verify-faces")


def _file(path: Path, option: str) -> Path:
    try:
        return found(path)
    except DatasetNotFound as error:
        raise SpecError(f"{option}: {str(error).replace('a dataset', 'the file', 1)}") from None


def parse_verification(content: Mapping[str, Any]) -> VerifyRequest:
    """Validate what a command was given.

    Args:
        content: fields by name; ``resize`` in text is checked here.

    Raises:
        SpecError: naming each wrong field and what was expected.
    """
    text = content["resize"]
    sides = None if text is None else SIDES.fullmatch(text)
    if text is not None and sides is None:
        raise SpecError(f"--resize: expected height x width such as 112x112, got {text!r}")
    resize = None if sides is None else (int(sides[1]), int(sides[2]))
    return parse(VerifyRequest, {**content, "resize": resize}, "verify-faces")
