"""A run behind a resize through the whole program: budget, progress, report, nothing done twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from flows.evaluate import run
from tests import toy

ATTACK = {"name": "ImageScaling", "label": "hide", "targets": "other-image"}


@pytest.mark.parametrize("model", [None, {"name": "shapes-cnn"}])
def test_a_run_behind_a_resize_ends_in_a_report(tmp_path: Path, model: object) -> None:
    content = toy.content(
        dataset={"kind": "builtin:shapes", "count": 12, "chunk_size": 6},
        model=model,
        pipeline={"library": "torch", "algorithm": "nearest", "target": "8x8"},
        attacks=[ATTACK],
        detectors=["HistogramCosine"],
        purifiers=["SelectiveMedian"],
    )
    spec = tmp_path / "toy.yaml"
    spec.write_text(yaml.safe_dump(content))
    outcome = run(str(spec), str(tmp_path / "store"))
    assert outcome.summary is not None
    found = {(row["attack"], row["metric"]) for row in outcome.summary["rows"]}
    assert {("hide", "o1"), ("hide", "o2"), ("hide", "true_positive_rate")} <= found
    assert (("none", "accuracy") in found) == (model is not None)
    assert "hide" in (outcome.folder / "report.html").read_text()
    again = run(str(spec), str(tmp_path / "store"))
    assert again.chunk_tasks == 0
    assert again.summary is None
