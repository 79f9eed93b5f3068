"""A user's own defence as a purifier of a run: figures, failures, and what it is keyed by."""

from __future__ import annotations

import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from storage.images import read_images
from storage.scores import read_rows
from tasks.chunk import Chunk
from tasks.columns import Columns
from tasks.defence_scores import failures, started
from tasks.defences import DefenceFile
from tasks.defending import defend
from tasks.errors import DefenseError, SpecError
from tasks.sandbox.defence import SandboxedDefense
from tasks.sandbox.process import Ended
from tasks.summary import Summary
from tasks.survey import Survey, survey
from tasks.unseen import photographs
from tests import cases, toy

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
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "weights.gguf").write_text("of any name, at any depth")
    third, made = toy.run(toy.bench(tmp_path, **content(tmp_path, SIDECAR)))
    assert {work.node.kind for work in made} == {"purify"}  # whose results are the same
    assert values(third)[key] == values(second)[key]
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "defense.cpython-311.pyc").write_text("not seen")
    (tmp_path / ".git").write_text("not seen either")
    assert toy.run(toy.bench(tmp_path, **content(tmp_path, SIDECAR)))[1] == []


SNOOPING = """
import os, torch
HERE = os.path.dirname(__file__)
def pictures():
    for top in (HERE, PHOTOS, DATA):
        for folder, _, names in os.walk(top):
            yield from (os.path.join(folder, name) for name in names if name.endswith(".png"))
def readable(path):
    try:
        with open(path, "rb") as stream:
            return bool(stream.read(1))
    except OSError:
        return False
class Defense:
    def __init__(self):
        from beside import SHARE
        assert float(open(os.path.join(HERE, "share.txt")).read()) == SHARE
        self.found = float(any(readable(path) for path in pictures()))
    def apply_defense(self, images: torch.Tensor) -> torch.Tensor:
        return images * 0 + self.found
"""


@pytest.mark.parametrize("namespaces", [True, False], ids=["namespaces", "without"])
@pytest.mark.parametrize("dataset", ["photos", ".", "..", "photos.zip"])
def test_no_clean_image_is_within_reach(
    tmp_path: Path, dataset: str, namespaces: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the data set lies, and none of those that scikit-image carries."""
    own = tmp_path / "own"
    pictures = own / dataset.removesuffix(".zip")
    own.mkdir()
    pictures.mkdir(exist_ok=True)
    for index, image in enumerate(cases.images(2)):
        pixels = (image * 255).byte().permute(1, 2, 0).numpy()
        PIL.Image.fromarray(pixels).save(pictures / f"{index}.png")
    kind = "folder"
    if dataset.endswith(".zip"):
        kind, packed = "zip", shutil.make_archive(str(pictures), "zip", pictures)
        shutil.rmtree(pictures)
        Path(packed).rename(own / "photos.png")  # which the defence looks for
        dataset = "photos.png"
    (photos,) = {path for path in photographs() if path.parent.parent.name == "site-packages"}
    assert list(photos.glob("*.png"))
    source = SNOOPING.replace("PHOTOS", repr(str(photos))).replace("DATA", repr(str(pictures)))
    (own / "beside.py").write_text("SHARE = 1.0")
    (own / "share.txt").write_text("1.0")
    given = content(own, source, dataset={"kind": kind, "path": dataset})
    monkeypatch.setattr(
        "tasks.defences.SandboxedDefense", partial(SandboxedDefense, namespaces=namespaces)
    )
    defence = toy.bench(own, **given).purifiers[0]
    images = torch.rand(2, 3, 8, 8)
    with defence.sandbox() as box:
        missing = box.start().enforcement.missing()
        if "files" in missing:
            pytest.skip(f"files not enforced: {missing['files']}")
        found = box.apply(images).images
    assert found is not None
    assert not found.any()
    in_sight = DefenceFile("defense.py", home=own)
    assert in_sight(images, seeds=torch.arange(2)).all()


FAILS = {
    "leaves": ("os._exit(3)", "could not be loaded: exited with status 3"),
    "hangs": ("time.sleep(60)", "could not be loaded: was not ready within 2 s"),
}
FAILING = """
import os, time
class Defense:
    def __init__(self):
        BODY
    def apply_defense(self, images):
        return images
"""


@pytest.mark.parametrize("name", ["leaves", pytest.param("hangs", marks=pytest.mark.slow)])
def test_a_failure_to_load_is_a_failure_of_its_images(tmp_path: Path, name: str) -> None:
    body, expected = FAILS[name]
    given = content(tmp_path, FAILING.replace("BODY", body))
    given["purifiers"][0]["start_limit"] = 2.0 if name == "hangs" else 60.0
    given["dataset"] = {"kind": "builtin:shapes", "count": 8, "chunk_size": 8}
    state, _ = toy.run(toy.bench(tmp_path, **given))
    found = values(state)
    assert found[("ifgsm", "mine", "gain")] is None
    assert found[("ifgsm", "median", "gain")] > 0
    assert set(failures(state, "mine").values()) == {f"failed on 8 of 8 images: {expected}"}
    with pytest.raises(DefenseError, match=re.escape(expected.partition(": ")[2])):
        started(state.bench.purifiers[0], state.bench.store.root)


def test_one_that_fails_to_load_later_keeps_what_it_did_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = SandboxedDefense._launch, []

    def launch(self: SandboxedDefense, *given: Any) -> Any:
        calls.append(self)
        if len(calls) == 3:
            raise Ended("exited with status 3")
        return original(self, *given)

    monkeypatch.setattr(SandboxedDefense, "_launch", launch)
    state = finished(tmp_path, HALF)
    failed = failures(state, "mine")
    assert list(failed.values()) == [
        "failed on 16 of 48 images: could not be loaded: exited with status 3"
    ]
    assert len(calls) == 2 * state.chunks
    assert values(state)[("ifgsm", "median", "gain")] > 0


def test_a_file_that_changes_under_way_is_no_result(tmp_path: Path) -> None:
    bench = toy.bench(tmp_path, **content(tmp_path, HALF))
    bench.catalogue(keep=True)
    state = survey(bench)
    (tmp_path / "defense.py").write_text(MOODY)
    with pytest.raises(DefenseError, match=r"defense\.py: it, or something .* begin it again"):
        defend(Chunk(bench, state.plan.nodes["purify/none/mine"], 0, {}, None), bench.purifiers[0])


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
