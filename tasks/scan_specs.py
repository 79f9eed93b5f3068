"""What a scan or a calibration is asked for, and the run that it comes to."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from defender.detectors import DETECTORS
from defender.scaling import Pipeline
from storage.sources.paths import resolve
from tasks.building import build, parameter_fields
from tasks.errors import SpecError
from tasks.names import find, suggestion
from tasks.spec_files import parse, parse_spec
from tasks.specs import SIDES, DetectorSpec, PipelineSpec, RunName, Spec
from tasks.subject_specs import Strict

RATE = 0.01
"""False positive rate of a calibration where none is stated."""


class ScanRequest(Strict):
    """A folder of images, the resize in front of the model, and what is to be looked for."""

    path: Path = Field(description="folder or zip of images")
    pipeline: PipelineSpec
    name: RunName | None = Field(default=None, description="name of the run; none: the folder's")
    colour: Literal["rgb", "grey"] = Field(default="rgb", description="decode to")
    include: str | None = Field(default=None, description="pattern of names; only those that fit")
    limit: int | None = Field(default=None, ge=1, description="use the first images only")
    detectors: tuple[str, ...] = Field(default=(), description="names; none: all that fit")
    rule: str = Field(default="any", description="any, majority, or the name of a detector")
    fpr: float | None = Field(default=None, gt=0, lt=1, description="rate to calibrate for")
    thresholds: Path | None = Field(default=None, description="thresholds of a run")
    benign: Path | None = Field(default=None, description="folder or zip to calibrate on")
    max_suspects: int | None = Field(default=None, ge=0, description="most suspects")
    max_share: float | None = Field(default=None, ge=0, le=1, description="largest share of them")
    max_drift: float | None = Field(
        default=None, ge=0, le=1, description="largest difference of that share to the last scan's"
    )

    @property
    def folder(self) -> Path:
        """The folder or zip of images, where it lies.

        Raises:
            DatasetNotFound: where there is none.
        """
        return found(self.path)

    def check_source(self) -> None:
        """Refuse a scan that does not say where its thresholds come from.

        Raises:
            SpecError: saying how to get some.
            DatasetNotFound: where a folder is not there.
        """
        if self.thresholds is None and self.benign is None:
            raise SpecError(
                "scan: expected --thresholds FILE, the thresholds.json of a run or of "
                "image-defender calibrate, or --benign FOLDER with images that are known to be "
                "clean; there are no thresholds that fit every kind of image"
            )
        if self.thresholds is not None and self.benign is not None:
            raise SpecError("scan: expected --thresholds or --benign, got both")
        if self.thresholds is not None and self.fpr is not None:
            raise SpecError("scan: --fpr is for --benign; thresholds in a file keep their rate")
        if self.benign is not None and found(self.benign) == self.folder:
            raise SpecError(
                f"--benign: expected other images than those that are scanned, got {self.folder}"
            )

    def calibration(self) -> ScanRequest:
        """The calibration that precedes a scan with benign images."""
        changes = {
            "path": self.benign,
            "name": f"{self.run_name('scan')[:90]}-benign",
            "include": None,
            "limit": None,
            "benign": None,
        }
        return self.model_copy(update=changes)

    def run_name(self, prefix: str) -> str:
        """The stated name, or one made from the folder's."""
        if self.name is not None:
            return self.name
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", self.folder.stem).strip("-.")
        return f"{prefix}-{stem or 'images'}"[:100]

    def spec(
        self, prefix: str, detectors: Sequence[Mapping[str, Any]], order: str = "name"
    ) -> Spec:
        """The run that decodes and scores the images.

        Args:
            prefix: of the run's name, where none is stated.
            detectors: as a specification lists them.
            order: of the images, ``name`` or ``hash``, which matters where there is a limit.
        """
        path = self.folder
        dataset: dict[str, Any] = {"kind": "zip" if path.is_file() else "folder", "path": str(path)}
        content = {
            "name": self.run_name(prefix),
            "dataset": {
                **dataset,
                "order": order,
                "colour": self.colour,
                "include": self.include,
                "limit": self.limit,
            },
            "pipeline": self.pipeline.model_dump(),
            "detectors": list(detectors),
            "metrics": [],
            "examples": 0,
        }
        return parse_spec(content, prefix)

    def named_detectors(self) -> list[dict[str, Any]]:
        """The detectors by name, each with its defaults: those stated, or all that fit a scan.

        Raises:
            SpecError: for a name that is none, or a detector that needs more than a scan has.
        """
        fit = usable(self.pipeline.pipeline())
        if not fit:
            raise SpecError("detectors: expected detectors of scaling attacks, there are none")
        names = [_usable_name(name, fit) for name in self.detectors] or fit
        return [{"name": name} for name in dict.fromkeys(names)]


def parse_request(content: Mapping[str, Any], source: str) -> ScanRequest:
    """Validate what a command was given.

    Args:
        content: fields by name; ``target`` in text is checked here.
        source: the command, for error messages.

    Raises:
        SpecError: naming each wrong field and what was expected.
    """
    target = content["pipeline"]["target"]
    if not SIDES.fullmatch(target):
        raise SpecError(f"--target: expected height x width such as 224x224, got {target!r}")
    return parse(ScanRequest, content, source)


def found(path: Path) -> Path:
    """Where a folder or zip lies: in the current directory, or where datasets are looked for.

    Raises:
        DatasetNotFound: listing the places where it is not.
    """
    return resolve(path, Path.cwd(), os.environ)


def usable(pipeline: Pipeline) -> list[str]:
    """Names of the detectors that need neither a model nor the clean original."""
    return [name for name, kind in DETECTORS.items() if _fits(kind, pipeline)]


def _fits(kind: type[Any], pipeline: Pipeline) -> bool:
    fields = {field.name for field in dataclasses.fields(kind)}
    parameters = parameter_fields(kind).values()
    if "model" in fields or any(one.default is dataclasses.MISSING for one in parameters):
        return False
    made = build(DETECTORS, DetectorSpec(name=kind.__name__), "detectors", pipeline=pipeline)
    return made.knowledge in ("blind", "pipeline")


def _usable_name(name: str, fit: Sequence[str]) -> str:
    registered = find(fit, name)
    if registered is None:
        raise SpecError(
            f"--detector: expected one of {', '.join(fit)}, got {name!r}{suggestion(name, fit)}"
        )
    return registered
