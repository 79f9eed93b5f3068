"""What ``purify`` is asked for, and the run that it comes to."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator

from storage.files import local_root
from storage.sources.paths import resolve
from tasks.errors import SpecError
from tasks.result_files import check_suffix
from tasks.scan_specs import found
from tasks.spec_files import parse, parse_spec, read_content
from tasks.specs import SIDES, DatasetSpec, PipelineSpec, RunName, Spec
from tasks.subject_specs import ModelSpec, Strict
from tasks.workbench import Workbench, workbench

SPECIFICATIONS = (".yaml", ".yml")
"""Suffixes of files that state a dataset."""
CONTAINERS = {".zip": "zip", ".parquet": "parquet"}
"""Kinds of dataset by the suffix of their one file."""


class PurifyRequest(Strict):
    """Images, purifiers, and the folder that the purified images go to."""

    source: Path = Field(description="folder, zip or Parquet file of images, or a YAML file")
    purifiers: tuple[Any, ...] = Field(min_length=1, description="as a specification lists them")
    out: Path = Field(description="folder of the purified images")
    name: RunName | None = Field(default=None, description="name of the run; none: of the folders")
    seed: int = Field(default=0, ge=0, lt=1 << 31, description="of purifiers that draw")
    limit: int | None = Field(default=None, ge=1, description="use the first images only")
    include: str | None = Field(default=None, description="pattern of names; only those that fit")
    colour: Literal["rgb", "grey", "keep"] | None = Field(
        default=None, description="decode to; none: keep, or what the YAML file says"
    )
    chunk_size: int | None = Field(default=None, ge=1, le=65536, description="images a chunk")
    suffix: str = Field(default=".png", description="of the purified files; a lossless format")
    model: ModelSpec | None = Field(default=None, description="for purifiers that work on one")
    pipeline: PipelineSpec | None = Field(
        default=None, description="for purifiers that need to know the resize"
    )
    overwrite: bool = Field(default=False, description="replace what others left in the folder")

    @field_validator("suffix")
    @classmethod
    def _lossless(cls, value: str) -> str:
        return check_suffix(value)

    @property
    def folder(self) -> Path:
        """Where the purified images go, as an absolute path without links."""
        return self.out.expanduser().resolve()

    def dataset(self) -> dict[str, Any]:
        """The dataset as a specification states it.

        Raises:
            DatasetNotFound: where nothing lies at the source.
            SpecError: for a file that states no dataset.
        """
        path = found(self.source)
        if path.is_dir():
            stated: dict[str, Any] = {"kind": "folder", "path": str(path), "colour": "keep"}
        elif path.suffix.lower() in SPECIFICATIONS:
            stated = _stated(path)
        else:
            kind = CONTAINERS.get(path.suffix.lower(), "zip")
            stated = {"kind": kind, "path": str(path), "colour": "keep"}
        asked = {name: getattr(self, name) for name in ("limit", "include", "colour", "chunk_size")}
        return {**stated, **{name: value for name, value in asked.items() if value is not None}}

    def run_name(self) -> str:
        """The stated name, or one made from those of the source and of the folder."""
        if self.name is not None:
            return self.name
        parts = [
            re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-.") or "images"
            for path in (found(self.source), self.folder)
        ]
        return "-".join(["purify", *parts])[:100]

    def spec(self) -> Spec:
        """The run that decodes and purifies the images.

        Raises:
            DatasetNotFound, SpecError: saying what is wrong, in one sentence.
        """
        content = {
            "name": self.run_name(),
            "seed": self.seed,
            "dataset": self.dataset(),
            "model": None if self.model is None else self.model.model_dump(exclude_unset=True),
            "pipeline": None if self.pipeline is None else self.pipeline.model_dump(),
            "purifiers": list(self.purifiers),
            "metrics": [],
            "examples": 0,
        }
        return parse_spec(content, "purify")


def parse_request(content: Mapping[str, Any]) -> PurifyRequest:
    """Validate what the command or a deployment was given.

    Args:
        content: fields by name. A purifier is a line such as ``median(3) > unsharp(1)``, a mapping,
            or a mapping as YAML or JSON in one line; so is the model. ``target`` of the pipeline is
            checked here.

    Raises:
        SpecError: naming each wrong field and what was expected.
    """
    given = dict(content)
    purifiers = given.get("purifiers") or ()
    if isinstance(purifiers, str | Mapping):
        purifiers = (purifiers,)
    if not purifiers:
        raise SpecError('--purifier: expected one or more, such as "median(3)", got none')
    given["purifiers"] = tuple(_mapping(one, "--purifier") for one in purifiers)
    if given.get("model") is not None:
        model = _mapping(given["model"], "--model")
        given["model"] = {"name": model} if isinstance(model, str) else model
    pipeline = given.get("pipeline")
    target = pipeline.get("target") if isinstance(pipeline, Mapping) else None
    if isinstance(target, str) and not SIDES.fullmatch(target):
        raise SpecError(f"--target: expected height x width such as 224x224, got {target!r}")
    return parse(PurifyRequest, given, "purify")


def bench_of(request: PurifyRequest, store: str) -> Workbench:
    """The workbench of a request, everything in it loaded and checked before anything is computed.

    Paths within purifiers and models are relative to the current directory.

    Raises:
        SpecError, ModelError, StorageError: saying what is wrong, in one sentence.
    """
    bench = workbench(request.spec().model_dump_json(), str(Path.cwd()), store)
    bench.check()
    for purifier in bench.purifiers:
        if purifier.knowledge == "reference":
            raise SpecError(
                f"--purifier: expected one that works without the clean original, which is what "
                f"a folder of images to be purified does not have, got {purifier!r}"
            )
    _keep_apart(request, bench)
    return bench


def _keep_apart(request: PurifyRequest, bench: Workbench) -> None:
    """Refuse folders in which sources, results and the store would come into each other's way."""
    out, store = request.folder, local_root(bench.store.root, "purify").resolve()
    stated = bench.spec.dataset.options.get("path")
    source = None if stated is None else Path(str(stated)).resolve()
    if out.exists() and not out.is_dir():
        raise SpecError(f"--out: expected a folder, got a file: {out}")
    if out.is_relative_to(store):
        raise SpecError(f"--out: expected a folder outside of the store {store}, got {out}")
    if source is not None and source.is_dir():
        for option, folder in (("--out", out), ("--store", store)):
            if folder.is_relative_to(source):
                raise SpecError(
                    f"{option}: expected a folder that is not among the images of {source}, "
                    f"got {folder}"
                )


def _mapping(value: Any, option: str) -> Any:
    """What is written in one line, as it is, or as the YAML or JSON mapping that it spells."""
    if not isinstance(value, str) or not value.lstrip().startswith("{"):
        return value
    try:
        content = yaml.safe_load(value)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise SpecError(f"{option}: expected a YAML mapping, got {value!r}: {reason}") from None
    return content


def _stated(path: Path) -> dict[str, Any]:
    """The dataset that a YAML file states, its path made absolute.

    Raises:
        SpecError: where it states none.
    """
    content = read_content(path)
    stated = content.get("dataset", content) if isinstance(content, Mapping) else None
    if not isinstance(stated, Mapping) or "kind" not in stated:
        raise SpecError(f"{path}: expected a dataset: its kind and options, or a field dataset")
    dataset = parse(DatasetSpec, stated, str(path)).model_dump(mode="json", exclude_unset=True)
    if dataset.get("path") is not None:
        dataset["path"] = str(resolve(str(dataset["path"]), path.parent, os.environ))
    return dataset
