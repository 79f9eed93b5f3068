"""The command ``purify``: any folder of images through purifiers, as files of another folder."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from defender.norms import from_uint8, to_uint8
from defender.purifiers import Median
from flows.cli import Exit
from storage.scores import read_rows
from tests.flows.test_cli import invoke

ROOT = Path(__file__).resolve().parents[2]
SIZES = {
    **{f"x/{i:02}.png": (24, 20, 3) for i in range(9)},
    "a.jpg": (20, 24, 3),
    "a.png": (16, 16, 3),
    "grey.tif": (21, 17),
}
BAD = "x/broken.png"
FILES = {
    **{name: name for name in SIZES if name.startswith("x/")},
    "a.jpg": "a.jpg.png",
    "a.png": "a.png.png",
    "grey.tif": "grey.png",
}


def pixels(number: int, shape: tuple[int, ...]) -> Any:
    return np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)


def decoded(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def log_of(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_rows(folder / "purified.parquet").to_pylist()
    return rows


def timeless(folder: Path) -> dict[str, Any]:
    """Every byte of a folder, and its log without the seconds."""
    found: dict[str, Any] = contents(folder)
    found["purified.parquet"] = read_rows(folder / "purified.parquet").drop(["seconds"]).to_pylist()
    return found


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    (folder / "x").mkdir()
    for number, (name, shape) in enumerate(SIZES.items()):
        Image.fromarray(pixels(number, shape)).save(folder / name)
    (folder / BAD).write_bytes(b"no image")
    return folder


def words(images: Path, place: Path, *more: object) -> list[object]:
    given = ["purify", images, "--out", place / "out", "--store", place / "store"]
    return [*given, "--chunk-size", 5, *more]


MEDIAN = ("--purifier", "median(3)")


@pytest.fixture(scope="module")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A finished run, what it printed as JSON, and where its store and results are."""
    place = tmp_path_factory.mktemp("finished")
    result = invoke(*words(images, place, *MEDIAN, "--json"))
    assert result.exit_code == Exit.DONE, result.output
    return json.loads(result.stdout), place


@pytest.fixture
def own(finished: tuple[Any, Path]) -> Path:
    """A finished run that a test may damage: it has to leave it as it was."""
    return finished[1]


def test_files_are_the_purified_images_under_the_same_names(
    images: Path, finished: tuple[Any, Path]
) -> None:
    out = finished[1] / "out"
    assert set(contents(out)) == {*FILES.values(), "purified.parquet", "purified.json"}
    for name, file in FILES.items():
        before = decoded(images / name)
        layers = before[None] if before.ndim == 2 else before.transpose(2, 0, 1)
        batch = from_uint8(torch.from_numpy(layers.copy())[None])
        expected = to_uint8(Median(3)(batch, seeds=torch.zeros(1, dtype=torch.int64)))[0].numpy()
        expected = expected[0] if before.ndim == 2 else expected.transpose(1, 2, 0)
        assert np.array_equal(decoded(out / file), expected), name
        with Image.open(out / file) as image:
            assert image.format == "PNG"


def test_the_log_has_a_row_an_image_and_the_reasons_of_the_others(
    images: Path, finished: tuple[Any, Path]
) -> None:
    out = finished[1] / "out"
    rows = log_of(out)
    assert list(rows[0]) == [
        *("id", "name", "source_sha256", "file", "sha256", "psnr", "linf", "seconds"),
        *("label", "purifier", "status", "reason"),
    ]
    assert {row["name"]: row["file"] for row in rows} == {**FILES, BAD: None}
    for row in rows[:-1]:
        assert hashlib.sha256((out / row["file"]).read_bytes()).hexdigest() == row["sha256"]
        before, after = decoded(images / row["name"]) / 255, decoded(out / row["file"]) / 255
        assert row["psnr"] == pytest.approx(
            -10 * np.log10(((before - after) ** 2).mean()), abs=1e-4
        )
        assert row["linf"] == pytest.approx(np.abs(before - after).max(), abs=1e-6)
        assert row["seconds"] > 0
        assert (row["label"], row["purifier"]) == ("median(3)", repr(Median(3)))
        assert (row["status"], row["reason"]) == ("purified", None)
    assert (rows[-1]["name"], rows[-1]["status"]) == (BAD, "rejected")
    assert rows[-1]["reason"].startswith("is not an image")
    printed = finished[0]
    assert (printed["images"], printed["rejected"], printed["restored"]) == (12, 1, 0)
    (one,) = printed["purifiers"]
    assert one["images"] == 12
    assert one["psnr"] == pytest.approx(np.mean([row["psnr"] for row in rows[:-1]]))
    assert one["linf"] == max(row["linf"] for row in rows[:-1])
    assert printed["chunk_tasks"] == printed["chunks"] == 9


def test_a_second_run_computes_nothing_and_keeps_every_byte(
    images: Path, own: Path, finished: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(own / "out")
    monkeypatch.setattr("flows.embedded.start", lambda: pytest.fail("the engine was started"))
    again = json.loads(invoke(*words(images, own, *MEDIAN, "--json")).stdout)
    assert again == {**finished[0], "chunk_tasks": 0, "seconds": {}}
    told = invoke(*words(images, own, *MEDIAN))
    assert "12 images by median(3), PSNR to the originals" in told.stdout
    assert "0 of 9 chunks were computed now" in told.stdout
    assert f"1 file could not be used:\n  {BAD} is not an image" in told.stderr
    assert contents(own / "out") == before


def test_files_that_were_changed_or_deleted_are_made_again_from_the_store(
    images: Path, own: Path
) -> None:
    before = contents(own / "out")
    (own / "out/x/03.png").unlink()
    (own / "out/x/04.png").write_bytes(before["x/04.png"][:-1])
    Image.new("RGB", (24, 20)).save(own / "out/a.png.png")
    untouched = (own / "out/x/08.png").stat().st_mtime_ns
    plan = json.loads(invoke(*words(images, own, *MEDIAN, "--dry-run", "--json")).stdout)
    assert plan["changed"] == 3
    assert not (own / "out/x/03.png").exists()
    result = json.loads(invoke(*words(images, own, *MEDIAN, "--json")).stdout)
    left = {one["stage"]: one["total"] - one["done"] for one in plan["stages"]}
    assert left == {"ingest": 0, "purify/none/median(3)": 0, "export/median(3)": 2}
    assert (result["restored"], result["chunk_tasks"]) == (3, 2)
    assert contents(own / "out") == before
    assert (own / "out/x/08.png").stat().st_mtime_ns == untouched


def test_a_log_that_is_gone_is_written_again(images: Path, own: Path) -> None:
    before = contents(own / "out")
    (own / "out/purified.parquet").unlink()
    result = json.loads(invoke(*words(images, own, *MEDIAN, "--json")).stdout)
    assert result["chunk_tasks"] == 0
    assert contents(own / "out") == before


def test_several_purifiers_have_a_folder_each_and_share_the_decoding(
    images: Path, finished: tuple[Any, Path], tmp_path: Path
) -> None:
    shutil.copytree(finished[1] / "store", tmp_path / "store")
    more = ["--purifier", "median(3) > unsharp(1)", "--purifier", "{name: IWMF, label: windows}"]
    result = invoke(*words(images, tmp_path, *MEDIAN, *more, "--json"))
    assert result.exit_code == Exit.DONE, result.output
    printed = json.loads(result.stdout)
    assert printed["chunk_tasks"] == 2 * 3 + 3 * 3, "neither the decoding nor the median again"
    folders = {one["label"]: Path(one["folder"]) for one in printed["purifiers"]}
    assert list(folders) == ["median(3)", "median(3) > unsharp(1)", "windows"]
    assert folders["windows"] == tmp_path / "out/windows"
    alone = contents(finished[1] / "out")
    for label, folder in folders.items():
        made = contents(folder)
        assert set(made) == set(FILES.values())
        assert (made == {name: alone[name] for name in made}) == (label == "median(3)")
    rows = log_of(tmp_path / "out")
    assert [row["label"] for row in rows] == [
        *(label for label in folders for _ in FILES),
        None,
    ]
    assert all((tmp_path / "out" / row["file"]).is_file() for row in rows if row["label"])


def test_a_run_that_was_killed_goes_on_and_ends_the_same(
    images: Path, finished: tuple[Any, Path], tmp_path: Path
) -> None:
    command = [str(word) for word in words(images, tmp_path, *MEDIAN, "--json")]
    for moment in (
        ["tasks.purify_folder_export:write_atomic", "4", "before"],
        ["tasks.purify_folder_outputs:write_rows", "1", "before"],
    ):
        killed = subprocess.run(
            [sys.executable, "-m", "tests.flows.killed", *moment, "--", *command],
            cwd=ROOT,
            env={**os.environ, "PYTHONWARNINGS": "default"},
            capture_output=True,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not (tmp_path / "out/purified.parquet").exists()
    printed = json.loads(invoke(*command).stdout)
    assert printed["chunk_tasks"] == 0
    assert timeless(tmp_path / "out") == timeless(finished[1] / "out")


def test_new_images_cost_their_own_chunks_and_a_zip_gives_the_same(
    images: Path, finished: tuple[Any, Path], tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for name in [*SIZES, BAD]:
            archive.write(images / name, name)
    command = words(tmp_path / "images.zip", tmp_path, *MEDIAN, "--json")
    assert json.loads(invoke(*command).stdout)["images"] == 12
    made, expected = contents(tmp_path / "out"), contents(finished[1] / "out")
    assert {name: made[name] for name in FILES.values()} == {
        name: expected[name] for name in FILES.values()
    }
    sink = io.BytesIO()
    Image.fromarray(pixels(99, (24, 20, 3))).save(sink, "PNG")
    with zipfile.ZipFile(tmp_path / "images.zip", "a") as archive:
        archive.writestr("y/new.png", sink.getvalue())
    printed = json.loads(invoke(*command).stdout)
    assert (printed["images"], printed["chunk_tasks"]) == (13, 3)
    assert (tmp_path / "out/y/new.png").is_file()


def test_a_dataset_that_a_specification_states(tmp_path: Path) -> None:
    spec = {"name": "shapes", "dataset": {"kind": "builtin:shapes", "count": 6}}
    (tmp_path / "shapes.yaml").write_text(yaml.safe_dump(spec))
    known = ["--purifier", "{name: SeparateCorrectCombine, steps: 1}", "--model", "shapes-cnn"]
    more = ["--limit", 4, "--suffix", "-clean.bmp", "--name", "mine", "--json"]
    result = invoke(*words(tmp_path / "shapes.yaml", tmp_path, *known, *more))
    assert result.exit_code == Exit.DONE, result.output
    printed = json.loads(result.stdout)
    assert (printed["images"], printed["purifiers"][0]["knowledge"]) == (4, "model")
    files = [row["file"] for row in log_of(tmp_path / "out")]
    assert files == [f"test/{i:07}-clean.bmp" for i in range(4)]
    for file in files:
        with Image.open(tmp_path / "out" / file) as image:
            assert (image.format, image.size, image.mode) == ("BMP", (32, 32), "RGB")
    assert (tmp_path / "store/mine/run.json").is_file()


def test_a_deployment_calls_the_flow_itself(images: Path, tmp_path: Path) -> None:
    from flows.purify import purify

    stated = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    (one,) = [each for each in stated if each["name"] == "purify"]
    assert one["entrypoint"] == "flows/purify.py:purify"
    options = {**one["parameters"]["options"], "include": "x/*"}
    given = {**one["parameters"], "source": str(images), "out": str(tmp_path / "out")}
    outcome = purify(**{**given, "store": str(tmp_path / "store"), "options": options})
    assert outcome.summary["images"] == 9
    assert outcome.chunk_tasks == outcome.chunks == 3
    assert {row["status"] for row in log_of(tmp_path / "out")} == {"purified", "rejected"}
