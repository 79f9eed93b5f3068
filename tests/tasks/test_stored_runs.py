"""What a store holds, and what of it is served: pictures, outputs, runs that go on, damage."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from storage.errors import DamagedChunk, StorageError
from storage.images import read_images
from storage.ledger import digest_of
from storage.objects import ObjectPath
from tasks.library import Library
from tasks.stored_pictures import Pictures
from tasks.stored_runs import NotStored
from tasks.views import View
from tests.cloud import fresh_url
from tests.tasks.stored import PAGE, decoded, finished_run, gallery_of, library

PLAIN: dict[str, Any] = {"attacks": [], "detectors": [], "purifiers": ["Median"], "model": None}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def store(toy: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(toy, tmp_path / "store"))


def stages_of(store: Path) -> dict[str, Any]:
    return dict(json.loads((store / "toy" / "stages.json").read_bytes()))


def test_the_runs_of_a_store_are_listed(toy: Path) -> None:
    (run,) = library(toy).runs()
    assert (run.name, run.kind, run.state) == ("toy", "evaluation", "finished")
    assert (run.dataset, run.model, run.images) == (
        "builtin:shapes",
        "python:tests.toy:make_model",
        48,
    )
    assert run.pages == ["report.html"]
    assert library(toy).output("toy", "report.html") == PAGE.encode()


def test_a_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert library(tmp_path / "nothing").runs() == []


def test_every_picture_is_that_of_its_chunk(toy: Path) -> None:
    shelf = library(toy)
    run = gallery_of(shelf.open("toy")).run
    stages = stages_of(toy)
    for number, (name, stage) in enumerate(stages.items()):
        if name.split("/")[0] not in ("ingest", "attack", "purify"):
            with pytest.raises(NotStored):
                shelf.picture("toy", number, 0, version="")
            continue
        folder = toy / "data" / stage["fingerprint"] / "images"
        images = [image for key in stage["chunks"] for image in read_images(folder / key)]
        for place in (0, 15, 16, 47):
            png = shelf.picture("toy", number, place, version=run.digest[:12])
            assert np.array_equal(decoded(png), images[place].transpose(1, 2, 0)), (name, place)


def test_a_difference_is_amplified_about_grey(toy: Path) -> None:
    shelf = library(toy)
    run = gallery_of(shelf.open("toy")).run
    attack = next(node for node in run.nodes if node.kind == "attack")
    before = shelf.pictures.pixels(run, 0, 20).astype(int)
    after = shelf.pictures.pixels(run, attack.number, 20).astype(int)
    # two steps of two levels; 16 is the largest power of two that keeps four levels within 96
    assert np.abs(after - before).max() == 4
    assert shelf.pictures.factor(run, attack.attack) == 16
    shown = decoded(shelf.picture("toy", attack.number, 20, times=16, version=""))
    assert np.array_equal(shown, (128 + 16 * (after - before)).transpose(1, 2, 0))


def test_large_pictures_are_reduced(tmp_path: Path, rng_pictures: Path) -> None:
    dataset = {"kind": "folder", "path": str(rng_pictures), "colour": "keep"}
    root = finished_run(tmp_path, dataset=dataset, **PLAIN)
    shelf = library(root)
    run = gallery_of(shelf.open("toy")).run
    sizes = {name: place for place, name in enumerate(run.names.to_pylist())}
    small = decoded(shelf.picture("toy", 0, sizes["grey.png"], side=240, version=""))
    assert small.shape == (120, 240)
    whole = decoded(shelf.picture("toy", 0, sizes["grey.png"], version=""))
    with Image.open(rng_pictures / "grey.png") as picture:
        assert np.array_equal(whole, np.asarray(picture))
    mean = whole.reshape(120, 2, 240, 2).mean((1, 3))
    assert np.abs(small - mean).max() <= 1
    assert decoded(shelf.picture("toy", 0, sizes["tiny.png"], side=240, version="")).shape[0] == 20


@pytest.fixture
def rng_pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (240, 480), np.uint8)).save(folder / "grey.png")
    Image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8)).save(folder / "tiny.png")
    return folder


@pytest.mark.parametrize("name", ["data", "..", ".", "", "toy/..", "../store/toy", "Toy", "toy\0"])
def test_names_of_no_run_are_refused(toy: Path, name: str) -> None:
    with pytest.raises(NotStored):
        library(toy).open(name)
    with pytest.raises(NotStored):
        library(toy).picture(name, 0, 0, version="")


@pytest.mark.parametrize(
    "name", ["../toy/report.html", "..", "", "run.json", "/etc/passwd", "scores", "history/x"]
)
def test_files_that_the_index_does_not_list_are_refused(toy: Path, name: str) -> None:
    with pytest.raises(NotStored):
        library(toy).output("toy", name)


@pytest.mark.parametrize(
    "asked",
    [(0, 48), (0, -1), (-1, 0), (99, 0), (0, 10**12)],
)
def test_pictures_beyond_the_run_are_refused(toy: Path, asked: tuple[int, int]) -> None:
    with pytest.raises(NotStored):
        library(toy).picture("toy", *asked, version="")


def test_sizes_factors_and_versions_are_those_that_are_known(toy: Path) -> None:
    shelf = library(toy)
    for asked in ({"times": 3}, {"side": 10_000}, {"times": -1}):
        with pytest.raises(NotStored):
            shelf.picture("toy", 0, 0, version="", **asked)
    with pytest.raises(NotStored, match="made anew"):
        shelf.picture("toy", 0, 0, version="0123456789ab")


def reindexed(store: Path, name: str, content: bytes) -> None:
    """Replace an output, with an index that vouches for it."""
    (store / "toy" / name).write_bytes(content)
    path = store / "toy" / "run.json"
    index = json.loads(path.read_bytes())
    index.pop("digest")
    index["files"][name] = hashlib.sha256(content).hexdigest()
    path.write_text(json.dumps({**index, "digest": digest_of(index)}))


def test_paths_in_a_forged_list_of_stages_are_refused(store: Path) -> None:
    stages = stages_of(store)
    stages["ingest"]["chunks"][0] = "../../../secret"
    reindexed(store, "stages.json", json.dumps(stages).encode())
    with pytest.raises(DamagedChunk, match="expected a digest"):
        library(store).open("toy")


def test_paths_in_a_forged_index_are_refused(store: Path) -> None:
    (store / "secret.txt").write_bytes(b"secret")
    path = store / "toy" / "run.json"
    index = json.loads(path.read_bytes())
    index.pop("digest")
    index["files"]["../secret.txt"] = "x"
    path.write_text(json.dumps({**index, "digest": digest_of(index)}))
    with pytest.raises(DamagedChunk, match="plain names"):
        library(store).output("toy", "../secret.txt")


@pytest.mark.parametrize("name", ["run.json", "summary.json", "stages.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff\xfe", None])
def test_a_damaged_file_gives_a_sentence(store: Path, name: str, content: bytes | None) -> None:
    path = store / "toy" / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    shelf = library(store)
    if (name, content) == ("run.json", None):
        assert shelf.runs() == []
        return
    with pytest.raises(StorageError, match=name):
        shelf.open("toy")
    if name == "run.json":
        assert [(run.state, name in run.problem) for run in shelf.runs()] == [("damaged", True)]


def test_damaged_rows_and_chunks_give_a_sentence(store: Path) -> None:
    stages = stages_of(store)
    purified = next(name for name in stages if name.startswith("purify/none"))
    folder = store / "data" / stages[purified]["fingerprint"] / "images"
    (folder / stages[purified]["chunks"][1] / "zarr.json").write_text("{")
    for path in (store / "toy" / "scores").glob("score*"):
        path.write_bytes(path.read_bytes()[:300])
    shelf = library(store)
    number = list(stages).index(purified)
    assert shelf.picture("toy", 0, 0, version="")
    with pytest.raises(DamagedChunk, match="cannot read the images"):
        shelf.picture("toy", number, 16, version="")
    assert shelf.picture("toy", number, 0, version="")
    # what other tests have read of the same run is kept, so this asks for what none has
    with pytest.raises(DamagedChunk, match="cannot read the rows"):
        shelf.open("toy").gallery.run.table(shelf.open("toy").gallery.run.nodes[-1], "loss")  # type: ignore[union-attr]


def test_a_run_that_was_made_anew_is_read_anew(tmp_path: Path) -> None:
    root = finished_run(tmp_path)
    shelf = library(root)
    first = gallery_of(shelf.open("toy"))
    view = first.settled(View(first.attacks[0], "median", by="psnr", order="worst"))
    before = [shot.place for shot in first.page(view).shots]
    png = shelf.picture("toy", 1, 0, version="")
    attack = {"name": "IFGSM", "label": view.attack, "epsilon": "32/255", "steps": 1}
    finished_run(tmp_path, attacks=[{**attack, "step_size": "32/255"}])
    second = gallery_of(shelf.open("toy"))
    assert second.run.digest != first.run.digest
    assert [shot.place for shot in second.page(view).shots] != before
    assert shelf.picture("toy", 1, 0, version="") != png
    with pytest.raises(NotStored, match="made anew"):
        shelf.picture("toy", 1, 0, version=first.run.digest[:12])


def test_decoded_chunks_are_kept_within_a_bound(toy: Path) -> None:
    run = gallery_of(library(toy).open("toy")).run
    pictures = Pictures(limit=2 * 16 * 3 * 32 * 32 + 500)
    for place in (0, 16, 32, 0):
        pictures.png(run, 0, place)
    assert len(pictures.chunks) == 2
    assert pictures.chunks.used <= pictures.chunks.limit


def test_a_store_in_a_cloud_is_browsed_like_a_folder(toy: Path) -> None:
    pytest.importorskip("obstore", reason="cloud stores need obstore")
    root = ObjectPath(fresh_url("memory"))
    for path in toy.rglob("*"):
        if path.is_file():
            (root / path.relative_to(toy).as_posix()).write_bytes(path.read_bytes())
    here, there = library(toy), library(root)
    (run,) = there.runs()
    assert run.when is not None
    assert replace(run, when=None) == replace(here.runs()[0], when=None)
    view = View("none", "median", by="ssim", order="best")
    pages = [gallery_of(shelf.open("toy")).page(view) for shelf in (here, there)]
    assert pages[0] == pages[1]
    assert here.picture("toy", 0, 40, version="") == there.picture("toy", 0, 40, version="")
    assert there.rejected(run) == (0, [])


def test_rejected_files_are_listed_with_their_reasons(tmp_path: Path, rng_pictures: Path) -> None:
    (rng_pictures / "broken.png").write_bytes(b"no picture")
    dataset = {"kind": "folder", "path": str(rng_pictures)}
    root = finished_run(tmp_path, dataset=dataset, **PLAIN)
    shelf = library(root)
    total, lines = shelf.rejected(shelf.open("toy").overview)
    assert (total, lines[0]["name"]) == (1, "broken.png")
    assert lines[0]["reason"]


def test_runs_of_other_kinds_are_listed_with_their_files(tmp_path: Path) -> None:
    for name, kind, index in (
        ("scan.json", "scan", "run.json"),
        ("sweep.json", "sweep", "run.json"),
        ("verify.json", "face verification", "run.json"),
        ("purify.json", "purification", "run.json"),
        ("card.json", "training", "training.json"),
    ):
        folder = tmp_path / kind.replace(" ", "-")
        folder.mkdir()
        content = json.dumps({"images": 7, "source": "inbox"}).encode()
        (folder / name).write_bytes(content)
        listed = {"files": {name: hashlib.sha256(content).hexdigest()}, "state": "x"}
        (folder / index).write_text(json.dumps({**listed, "digest": digest_of(listed)}))
        opened = library(tmp_path).open(folder.name)
        assert (opened.overview.kind, opened.overview.images) == (kind, 7)
        assert list(opened.overview.files) == [name]
        assert opened.gallery is None
    assert len(library(tmp_path).runs()) == 5


def test_finished_runs_are_read_without_torch() -> None:
    code = (
        "import sys, tasks.library; print(sorted({'torch', 'prefect', 'nicegui'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_pictures_of_a_moment_ago_need_no_look_at_the_index(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = library(toy)
    shelf.open("toy")
    monkeypatch.setattr(Library, "open", lambda *_: pytest.fail("the run was opened again"))
    assert shelf.picture("toy", 0, 1, version="")
