"""Purified images as files: faults on the way, failures of a purifier, names and formats."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from flows.schedule import drive
from storage.scores import read_rows
from tasks.chunk import Chunk, Made
from tasks.errors import BudgetError, SpecError
from tasks.purify_folder import FolderState, look
from tasks.purify_folder_outputs import done, write_log
from tasks.purify_folder_specs import bench_of, parse_request
from tasks.result_files import check_suffix, encoded, name_problem, result_names
from tasks.stages import STAGES
from tasks.survey import Work
from tests import toy


def save(folder: Path, count: int = 10) -> Path:
    folder.mkdir(parents=True)
    random = np.random.default_rng(5)
    for i in range(count):
        values = random.integers(0, 256, (14, 10 + 2 * (i % 2), 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return save(tmp_path / "images")


def opened(images: Path, place: Path, **more: Any) -> FolderState:
    stated = {"source": images, "out": place / "out", "chunk_size": 3}
    request = parse_request({**stated, "purifiers": ["iwmf(0.3)", "median(3)"], **more})
    found = look(request, bench_of(request, str(place / "store")), keep=True)
    found.check_folder()
    return found


def compute(found: FolderState, every: int = 0) -> int:
    """Do what is left without Prefect, with a fault at every so-manyth call; returns the calls."""
    calls = 0

    def submit(work: Work) -> toy.Finished:
        def action() -> dict[str, Any]:
            nonlocal calls
            calls += 1
            if every and calls % every == 0:
                raise OSError("a passing fault")
            return toy.compute(found.state, work)

        return toy.Finished(action)

    found.begin()
    numbers = range(found.state.chunks)
    drive(found.state, numbers, submit, window=2, finished=lambda work, receipt: None)
    write_log(found)
    return calls


def results(place: Path) -> dict[str, Any]:
    out = place / "out"
    made: dict[str, Any] = {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file()
    }
    made["purified.parquet"] = read_rows(out / "purified.parquet").drop(["seconds"]).to_pylist()
    return made


def test_a_fault_every_third_call_ends_with_the_same_files(images: Path, tmp_path: Path) -> None:
    assert compute(opened(images, tmp_path / "calm")) == 5 * 4
    failures = 0
    for _attempt in range(100):
        found = opened(images, tmp_path / "storm")
        if done(found) is not None:
            break
        try:
            compute(found, every=3)
        except OSError:
            failures += 1
            assert not (tmp_path / "storm/out/purified.parquet").exists()
    assert failures > 5
    assert compute(opened(images, tmp_path / "storm")) == 0
    assert results(tmp_path / "storm") == results(tmp_path / "calm")


def test_the_cut_into_chunks_and_the_order_change_nothing(images: Path, tmp_path: Path) -> None:
    compute(opened(images, tmp_path / "threes"))
    compute(opened(images, tmp_path / "ones", chunk_size=1))
    assert results(tmp_path / "ones") == results(tmp_path / "threes")
    compute(opened(images, tmp_path / "seeded", seed=1))
    other, one = results(tmp_path / "seeded"), results(tmp_path / "threes")
    assert all(other[name] != one[name] for name in one if name.startswith("iwmf"))
    assert all(other[name] == one[name] for name in one if name.startswith("median"))


def test_a_damaged_chunk_of_the_store_is_made_again_and_no_file_changes(
    images: Path, tmp_path: Path
) -> None:
    compute(opened(images, tmp_path))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    for path in (tmp_path / "store").glob("data/*/images/*"):
        for part in path.rglob("*"):
            if part.is_file() and part.name != "zarr.json":
                part.write_bytes(part.read_bytes()[:-1])
    assert compute(opened(images, tmp_path)) == 4 * 3, "decoding and two purifiers"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")} == before


def test_an_image_that_a_purifier_cannot_purify_is_listed_and_has_no_file(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    purify = STAGES["purify"]

    def failing(chunk: Chunk) -> Made:
        made = purify(chunk)
        assert made.images is not None
        names = chunk.rows["name"].to_pylist()
        lost = ["took too long" if name in ("1.png", "4.png") else None for name in names]
        rows = pa.table({"id": pa.array(chunk.ids), "failure": pa.array(lost, pa.string())})
        return Made(made.images, rows)

    monkeypatch.setitem(STAGES, "purify", failing)
    found = opened(images, tmp_path, purifiers=["median(3)"])
    compute(found)
    summary = done(opened(images, tmp_path, purifiers=["median(3)"]))
    assert summary is not None
    assert (summary["purifiers"][0]["images"], summary["purifiers"][0]["failed"]) == (8, 2)
    rows = read_rows(tmp_path / "out/purified.parquet").to_pylist()
    failed = [row for row in rows if row["status"] == "failed"]
    assert [(row["name"], row["reason"]) for row in failed] == [
        ("1.png", "took too long"),
        ("4.png", "took too long"),
    ]
    assert all(row[name] is None for row in failed for name in ("file", "sha256", "psnr", "linf"))
    assert not (tmp_path / "out/1.png").exists()
    assert (tmp_path / "out/0.png").exists()


def test_images_of_another_size_have_no_distances(images: Path, tmp_path: Path) -> None:
    compute(opened(images, tmp_path, purifiers=["resize(0.5)", "bitdepth(8)"]))
    rows = read_rows(tmp_path / "out/purified.parquet").to_pylist()
    smaller, same = rows[:10], rows[10:]
    assert all(row["psnr"] is None and row["linf"] is None for row in smaller)
    assert all(row["psnr"] == float("inf") and row["linf"] == 0.0 for row in same)
    with Image.open(tmp_path / "out" / smaller[1]["file"]) as image:
        assert image.size == (6, 7)
    summary = done(opened(images, tmp_path, purifiers=["resize(0.5)", "bitdepth(8)"]))
    assert summary is not None
    assert [one["unchanged"] for one in summary["purifiers"]] == [0, 10]
    assert [one["psnr"] for one in summary["purifiers"]] == [None, None]


def test_a_folder_of_files_that_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for i in range(4):
        (tmp_path / f"images/{i}.png").write_bytes(b"nothing")
    with pytest.raises(SpecError, match=r"none of 4 files can be used; 0\.png: is not an image"):
        compute(opened(tmp_path / "images", tmp_path))
    rows = read_rows(tmp_path / "out/purified.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["rejected"] * 4
    assert all(row["reason"] for row in rows)


def test_an_image_that_changed_is_purified_again_and_the_others_are_not(
    images: Path, tmp_path: Path
) -> None:
    compute(opened(images, tmp_path))
    before = results(tmp_path)
    Image.new("RGB", (10, 14), (200, 30, 60)).save(images / "4.png")
    assert compute(opened(images, tmp_path)) == 5
    after = results(tmp_path)
    changed = [name for name in before if before[name] != after[name]]
    assert [Path(name).name for name in sorted(changed)] == ["4.png", "4.png", "purified.parquet"]


def test_a_twin_that_turns_up_later_gets_a_name_of_its_own(images: Path, tmp_path: Path) -> None:
    compute(opened(images, tmp_path, purifiers=["median(3)"]))
    Image.new("RGB", (10, 14), (200, 30, 60)).save(images / "4.jpg")
    found = opened(images, tmp_path, purifiers=["median(3)"])
    assert compute(found) == 2 + 4, "a chunk of two stages, and all files are looked at"
    rows = read_rows(tmp_path / "out/purified.parquet").to_pylist()
    files = {row["name"]: row["file"] for row in rows}
    assert (files["4.png"], files["4.jpg"], files["5.png"]) == ("4.png.png", "4.jpg.png", "5.png")
    for row in rows:
        path = tmp_path / "out" / row["file"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]


def test_files_that_would_not_fit_are_refused(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = opened(images, tmp_path)
    found.check_room()
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("tasks.purify_folder.shutil.disk_usage", lambda path: usage)
    with pytest.raises(BudgetError, match="the purified images may need"):
        found.check_room()
    monkeypatch.undo()
    compute(found)
    monkeypatch.setattr("tasks.purify_folder.shutil.disk_usage", lambda path: usage)
    opened(images, tmp_path).check_room()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", "-clean.tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_files_are_lossless(tmp_path: Path, suffix: str, channels: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (channels, 9, 7), dtype=np.uint8)
    data = encoded(pixels, suffix)
    assert data == encoded(pixels.copy(), suffix)
    (tmp_path / f"a{suffix}").write_bytes(data)
    with Image.open(tmp_path / f"a{suffix}") as image:
        values = np.asarray(image)
    expected = pixels[0] if channels == 1 else pixels.transpose(1, 2, 0)
    assert np.array_equal(values, expected)


def test_nothing_is_computed_that_no_file_needs(images: Path, tmp_path: Path) -> None:
    drawn = {"name": "IWMF", "draws": 5}
    plan = opened(images, tmp_path, purifiers=[drawn], model="shapes-cnn").state.plan
    assert [node.kind for node in plan] == ["ingest", "purify", "export"]
    alone = opened(images, tmp_path, purifiers=["IWMF"]).state.plan
    purify = [{node.kind: node.fingerprint for node in one}["purify"] for one in (plan, alone)]
    assert purify[0] == purify[1]


def test_names_of_results() -> None:
    names = ["a.jpg", "b.c.png", "x/a.tif", "x/a.png", "d"]
    assert result_names(names, "-clean.png") == {
        "a.jpg": "a-clean.png",
        "b.c.png": "b.c-clean.png",
        "x/a.tif": "x/a.tif-clean.png",
        "x/a.png": "x/a.png-clean.png",
        "d": "d-clean.png",
    }
    assert name_problem(result_names(names)) is None
    assert "inside the output folder" in str(name_problem({"../a.png": "../a.png"}))
    assert "inside the output folder" in str(name_problem({"/a.png": "/a.png"}))
    for wrong in ("", "png", ".jpg", "a/b.png", ".PNG", "..", "x y.png"):
        with pytest.raises(ValueError, match=r"expected \.png, \.bmp"):
            check_suffix(wrong)
