"""A user's own defence as a purifier of a run: figures, failures, and what it is keyed by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from storage.images import read_images
from storage.scores import read_rows
from tasks.columns import Columns
from tasks.defences import DefenceFile
from tasks.errors import DefenseError, SpecError
from tasks.summary import Summary
from tasks.survey import Survey
from tests import toy

HALF = """
import torch
class Defense:
    def apply_defense(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, :, ::2, ::2]
"""
MOODY = """
import torch
class Defense:
    def apply_defense(self, images: torch.Tensor) -> torch.Tensor:
        if float(images.mean()) > MEAN:
            raise RuntimeError("too bright")
        return images
"""
SIDECAR = """
import pathlib, torch
class Defense:
    def __init__(self):
        self.share = float((pathlib.Path(__file__).parent / "share.txt").read_text())
    def apply_defense(self, images: torch.Tensor) -> torch.Tensor:
        return images * self.share
"""


def content(folder: Path, source: str, **changes: Any) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "defense.py").write_text(source)
    base: dict[str, Any] = {
        "model": None,
        "metric": "python:tests.tasks.test_quality_runs:make_metric",
        "attacks": [{"name": "IFGSM", "epsilon": "8/255", "steps": 2, "label": "ifgsm"}],
        "detectors": [],
        "purifiers": [
            {"name": "Defense", "path": "defense.py", "label": "mine"},
            {"name": "Median", "label": "median"},
        ],
    }
    return {**base, **changes}


def finished(folder: Path, source: str, **changes: Any) -> Survey:
    return toy.run(toy.bench(folder, **content(folder, source, **changes)))[0]


def values(state: Survey) -> dict[tuple[str, str, str], Any]:
    return {(r["attack"], r["purifier"], r["metric"]): r["value"] for r in Summary(state).rows()}


def test_a_defence_is_a_purifier_like_any_other(tmp_path: Path) -> None:
    state = finished(tmp_path, HALF)
    for index in range(state.chunks):
        before = read_images(state.bench.store.images(state.done[("attack/ifgsm", index)].ref))
        given = state.done[("purify/ifgsm/mine", index)]
        after = read_images(state.bench.store.images(given.ref))
        assert all(np.array_equal(x[:, ::2, ::2], y) for x, y in zip(before, after, strict=True))
        assert read_rows(state.bench.store.rows(given.ref))["failure"].null_count == len(before)
    found = values(state)
    assert found[("ifgsm", "mine", "gain")] > 0
    assert 0 < found[("ifgsm", "mine", "quality")] < 1
    again, made = toy.run(toy.bench(tmp_path, **content(tmp_path, HALF)))
    assert made == []
    ledger = again.bench.store.ledger(again.plan.nodes["purify/ifgsm/mine"].fingerprint)
    marks = [ledger.read(key) for key in ledger.keys()]  # noqa: SIM118
    assert len(marks) == 2 * again.chunks
    assert all(mark and mark.receipt["defence"]["peak_memory"] > 1e8 for mark in marks)


def test_what_it_fails_on_is_said_and_the_rest_goes_on(tmp_path: Path) -> None:
    plain = finished(tmp_path / "plain", HALF)
    scores = values(plain)
    images = read_images(plain.bench.store.images(plain.done[("attack/ifgsm", 0)].ref))
    limit = float(np.mean([image.mean() for image in images])) / 255
    state = finished(tmp_path, MOODY.replace("MEAN", f"{limit}"))
    failed, worked = 0, 0
    for index in range(state.chunks):
        given = state.done[("purify/ifgsm/mine", index)]
        reasons = read_rows(state.bench.store.rows(given.ref))["failure"].to_pylist()
        failed += sum(reason is not None for reason in reasons)
        worked += sum(reason is None for reason in reasons)
        assert {reason for reason in reasons if reason} <= {"raised RuntimeError: too bright"}
    assert failed
    column = Columns(state).column("score/ifgsm/mine", "score")
    assert int(np.isnan(column).sum()) == failed
    assert len(column) == failed + worked
    found = values(state)
    for metric in ("gain", "quality", "srcc"):
        assert found[("ifgsm", "median", metric)] == scores[("ifgsm", "median", metric)]


def test_one_that_always_fails_leaves_every_other_row(tmp_path: Path) -> None:
    state = finished(tmp_path, MOODY.replace("MEAN", "-1.0"))
    found = values(state)
    assert found[("ifgsm", "mine", "gain")] is None
    assert found[("none", "mine", "srcc")] is None
    assert found[("ifgsm", "median", "gain")] > 0


def test_with_a_classifier_a_failure_is_no_right_answer(tmp_path: Path) -> None:
    given = content(tmp_path, MOODY.replace("MEAN", "-1.0"))
    given |= {"metric": None, "model": {"name": "shapes-cnn"}}
    state, _ = toy.run(toy.bench(tmp_path, **given))
    assert values(state)[("none", "mine", "accuracy")] == 0.0
    assert values(state)[("none", "median", "accuracy")] > 0.5


def test_with_a_face_encoder_a_failure_passes_as_nobody(tmp_path: Path) -> None:
    given = content(tmp_path, MOODY.replace("MEAN", "-1.0"))
    given |= {"metric": None, "encoder": "python:tests.tasks.test_face_runs:make_encoder"}
    given |= {"faces": {"far": 0.1}, "metrics": ["far", "similarity"]}
    state, _ = toy.run(toy.bench(tmp_path, **given))
    assert values(state)[("ifgsm", "mine", "far")] == 0.0
    assert values(state)[("ifgsm", "mine", "similarity")] == 0.0
    assert values(state)[("ifgsm", "median", "similarity")] > 0.5


def test_a_defence_in_its_own_process_is_not_drawn_again(tmp_path: Path) -> None:
    given = content(tmp_path, HALF)
    given["purifiers"] = [{**one, "draws": 3} for one in given["purifiers"] if "path" in one]
    with pytest.raises(SpecError, match=r"purifiers\[0\].draws: .*asked once; expected 1, got 3"):
        toy.bench(tmp_path, **given).check()


def test_it_is_keyed_by_its_file_and_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "share.txt").write_text("1.0")
    first = finished(tmp_path, SIDECAR)
    (tmp_path / "share.txt").write_text("0.5")
    second, made = toy.run(toy.bench(tmp_path, **content(tmp_path, SIDECAR)))
    assert {work.node.name for work in made if work.node.kind == "purify"} == {
        "purify/none/mine",
        "purify/ifgsm/mine",
    }
    key = ("ifgsm", "mine", "score")
    assert values(first)[key] != values(second)[key]
    (tmp_path / "notes.md").write_text("of no consequence")
    assert toy.run(toy.bench(tmp_path, **content(tmp_path, SIDECAR)))[1] == []


def test_called_by_itself_it_answers_or_says_why_not(tmp_path: Path) -> None:
    (tmp_path / "defense.py").write_text(HALF)
    images, seeds = torch.rand(2, 3, 8, 8), torch.arange(2)
    defence = DefenceFile("defense.py", home=tmp_path)
    assert torch.equal(defence(images, seeds=seeds), images[:, :, ::2, ::2])
    assert repr(defence).startswith("Defense(defense.py@")
    (tmp_path / "defense.py").write_text(MOODY.replace("MEAN", "-1.0"))
    with pytest.raises(DefenseError, match=r"defense\.py: raised RuntimeError: too bright"):
        DefenceFile("defense.py", home=tmp_path)(images, seeds=seeds)
    with pytest.raises(DefenseError, match=r"path: expected a Python file .*absent\.py"):
        DefenceFile("absent.py", home=tmp_path)
