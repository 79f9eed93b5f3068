"""A small run on built-in images with a random model: fast, and the same every time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from defender.models.classifiers import shapes_cnn
from flows.schedule import drive
from tasks.compute import compute_chunk
from tasks.spec_files import parse_spec
from tasks.survey import Survey, Work, survey
from tasks.workbench import Workbench


def make_model() -> nn.Module:
    """A classifier with fixed random weights."""
    torch.manual_seed(0)
    return shapes_cnn()


def content(**changes: Any) -> dict[str, Any]:
    """A specification of one attack, one detector and two purifiers over 48 images."""
    base: dict[str, Any] = {
        "name": "toy",
        "dataset": {"kind": "builtin:shapes", "count": 48, "chunk_size": 16},
        "model": {"name": "python:tests.toy:make_model"},
        "attacks": [{"name": "IFGSM", "epsilon": "8/255", "step_size": "2/255", "steps": 2}],
        "detectors": ["GradientMask"],
        "purifiers": [
            {"name": "Median", "label": "median"},
            {
                "name": "SeparateCorrectCombine",
                "label": "reference",
                "variant": "reference",
                "steps": 2,
            },
        ],
        "compute": {"batch": 8, "workers": 1, "device": "cpu"},
    }
    return {**base, **changes}


def write_spec(folder: Path, **changes: Any) -> Path:
    """Write the specification as a file."""
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(content(**changes)))
    return path


def bench(folder: Path, **changes: Any) -> Workbench:
    """A workbench on a store in ``folder``."""
    return Workbench(parse_spec(content(**changes)), folder, str(folder / "store"))


class Finished:
    """A future that is done: the task ran when it was submitted."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self._error: BaseException | None = None
        self._result: Any = None
        try:
            self._result = action()
        except Exception as error:
            self._error = error

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        fn(self)

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._result


def compute(state: Survey, work: Work) -> dict[str, Any]:
    """Make one chunk without Prefect."""
    mark = compute_chunk(state.bench, work.node, work.index, work.inputs, work.source)
    return {"key": mark.key, "seconds": 0.0, "images": mark.images}


def run(bench_: Workbench, order: list[int] | None = None) -> tuple[Survey, list[Work]]:
    """Compute everything that is left without Prefect; returns the state and what was computed."""
    bench_.catalogue(keep=True)
    state = survey(bench_)
    made: list[Work] = []

    def submit(work: Work) -> Finished:
        made.append(work)
        return Finished(lambda: compute(state, work))

    drive(
        state,
        order or list(range(state.chunks)),
        submit,
        window=2,
        finished=lambda work, receipt: None,
    )
    return state, made
