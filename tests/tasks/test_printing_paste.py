"""Patches pasted on picture files: places, losslessness, resumption, bad pictures."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from storage.decode import Decoded, decode
from storage.errors import DatasetNotFound, StorageError
from tasks import printing_paste
from tasks.errors import SpecError
from tasks.printing_paste import PasteRequest, apply_patch
from tasks.result_files import result_names

GRID = 3
SIZES = {"a.png": (24, 24), "cat/b.jpg": (40, 31), "cat/c.bmp": (20, 33), "dog/d.png": (64, 64)}


@pytest.fixture
def theta() -> torch.Tensor:
    return torch.rand(3, GRID, GRID, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def artefact(tmp_path: Path, theta: torch.Tensor) -> Path:
    return save(tmp_path / "theta.safetensors", theta)


def save(path: Path, theta: torch.Tensor) -> Path:
    save_file({"values": theta.contiguous()}, path)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    random = np.random.default_rng(5)
    for name, (height, width) in SIZES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return folder


def paste(artefact: Path, images: Path | tuple[Path, ...], out: Path, **options: Any) -> Any:
    paths = images if isinstance(images, tuple) else (images,)
    return apply_patch(PasteRequest(artefact, paths, out, **{"size": 0.3, **options}))


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "boxes.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def box_of(row: dict[str, str]) -> tuple[slice, slice]:
    top, left, height, width = (int(row[k]) for k in ("top", "left", "height", "width"))
    return slice(top, top + height), slice(left, left + width)


def pixels_of(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def clean_of(path: Path) -> NDArray[np.uint8]:
    found = decode(path.read_bytes(), colour="rgb")
    assert isinstance(found, Decoded)
    return found.pixels.transpose(1, 2, 0)


def contents(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_only_the_box_changes_and_it_holds_theta(
    tmp_path: Path, artefact: Path, pictures: Path, theta: torch.Tensor
) -> None:
    out = tmp_path / "out"
    found = paste(artefact, pictures, out)
    assert (found["images"], found["pasted"], found["rejected"]) == (4, 4, 0)
    rows = rows_of(out)
    assert [row["name"] for row in rows] == sorted(SIZES)
    assert [row["file"] for row in rows] == ["a.png", "cat/b.png", "cat/c.png", "dog/d.png"]
    levels = (255 * theta).round().to(torch.uint8).permute(1, 2, 0).numpy()
    for row in rows:
        clean, attacked = clean_of(pictures / row["name"]), pixels_of(out / row["file"])
        height, width = SIZES[row["name"]]
        assert (int(row["image_height"]), int(row["image_width"])) == (height, width)
        cell = int(0.3 * min(height, width) / GRID + 1e-9)
        assert int(row["height"]) == int(row["width"]) == GRID * cell
        box = box_of(row)
        assert np.array_equal(attacked[box], levels.repeat(cell, axis=0).repeat(cell, axis=1))
        expected = clean.copy()
        expected[box] = attacked[box]
        assert np.array_equal(attacked, expected)


def test_places_are_the_picture_s_own_and_follow_the_seed(
    tmp_path: Path, artefact: Path, pictures: Path
) -> None:
    boxes = {}
    for seed in (0, 1):
        paste(artefact, pictures, tmp_path / f"{seed}", seed=seed)
        boxes[seed] = {row["name"]: box_of(row) for row in rows_of(tmp_path / f"{seed}")}
    assert boxes[0] != boxes[1]
    alone = tmp_path / "alone"
    paste(artefact, (pictures / "dog/d.png", pictures / "a.png"), alone)
    assert {row["name"]: box_of(row) for row in rows_of(alone)} == {
        name: boxes[0][name] for name in ("dog/d.png", "a.png")
    }


@pytest.mark.parametrize(
    ("place", "top", "left"), [("centre", 23, 23), ("upper-left", 0, 0), ("lower-right", 46, 46)]
)
def test_stated_places(
    tmp_path: Path, artefact: Path, pictures: Path, place: str, top: int, left: int
) -> None:
    paste(artefact, (pictures / "dog/d.png",), tmp_path / "out", place=place)
    (row,) = rows_of(tmp_path / "out")
    # 0.3 * 64 = 19.2 pixels are three cells of 6
    assert [int(row[k]) for k in ("top", "left", "height", "width")] == [top, left, 18, 18]


def test_a_second_call_decodes_nothing_and_changes_nothing(
    tmp_path: Path, artefact: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    first = paste(artefact, pictures, out)
    before = contents(out)
    stamps = {name: (out / name).stat().st_mtime_ns for name in before if name.endswith(".png")}
    with monkeypatch.context() as patched:
        patched.setattr(printing_paste, "ingest_chunk", pytest.fail)
        second = paste(artefact, pictures, out)
    assert second == {**first, "pasted": 0}
    assert contents(out) == before
    assert {name: (out / name).stat().st_mtime_ns for name in stamps} == stamps


def test_a_call_that_is_cut_off_goes_on(
    tmp_path: Path, artefact: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paste(artefact, pictures, tmp_path / "whole")
    out = tmp_path / "out"
    write = printing_paste.write_atomic

    def killed(path: Path, data: bytes) -> None:
        if path.name == "c.png":
            raise KeyboardInterrupt
        write(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(printing_paste, "write_atomic", killed)
        with pytest.raises(KeyboardInterrupt):
            paste(artefact, pictures, out)
    assert sorted(contents(out)) == ["a.png", "cat/b.png"]
    assert paste(artefact, pictures, out)["pasted"] == 2
    assert contents(out) == contents(tmp_path / "whole")


def test_what_changed_is_pasted_anew_and_nothing_else(
    tmp_path: Path, artefact: Path, pictures: Path, theta: torch.Tensor
) -> None:
    out = tmp_path / "out"
    paste(artefact, pictures, out)
    Image.new("RGB", (30, 30), "red").save(pictures / "a.png")
    damaged = bytearray((out / "dog/d.png").read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    (out / "dog/d.png").write_bytes(damaged)
    (out / "cat/b.png").unlink()
    assert paste(artefact, pictures, out)["pasted"] == 3
    assert rows_of(out)[0]["image_height"] == "30"
    again = tmp_path / "again"
    paste(artefact, pictures, again)
    assert contents(out) == contents(again)
    for change in ({"size": 0.5}, {"seed": 3}, {"place": "centre"}):
        assert paste(artefact, pictures, out, **change)["pasted"] == 4
    paste(artefact, pictures, out)
    save(artefact, 1 - theta)
    assert paste(artefact, pictures, out)["pasted"] == 4


def test_bad_pictures_are_listed_and_the_rest_goes_on(
    tmp_path: Path, artefact: Path, pictures: Path
) -> None:
    whole = (pictures / "dog/d.png").read_bytes()
    (pictures / "dog/cut.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "dog/text.png").write_bytes(b"no picture at all")
    Image.new("RGB", (5, 9)).save(pictures / "dog/tiny.png")
    out = tmp_path / "out"
    found = paste(artefact, pictures, out)
    assert (found["images"], found["rejected"]) == (4, 3)
    with (out / "rejected.csv").open(newline="") as stream:
        reasons = {row["name"]: row["reason"] for row in csv.DictReader(stream)}
    assert reasons == found["reasons"]
    assert "is truncated" in reasons["dog/cut.png"]
    assert "is not an image" in reasons["dog/text.png"]
    assert "is too small: size: expected cells of at least 1 pixel" in reasons["dog/tiny.png"]
    assert not (out / "dog/tiny.png").exists()
    assert len(rows_of(out)) == 4


def test_a_call_with_nothing_usable_says_why(tmp_path: Path, artefact: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    with pytest.raises(StorageError, match=r"expected images in .*bad, found none"):
        paste(artefact, bad, tmp_path / "out")
    (bad / "x.png").write_bytes(b"")
    with pytest.raises(SpecError, match=r"none of 1 can be used; x.png: is empty"):
        paste(artefact, bad, tmp_path / "out")


def test_a_stranger_s_file_is_left_alone(tmp_path: Path, artefact: Path, pictures: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    Image.new("RGB", (8, 8)).save(out / "a.png")
    before = (out / "a.png").read_bytes()
    found = paste(artefact, pictures, out)
    assert (found["images"], found["rejected"]) == (3, 1)
    assert "was not made by apply-patch" in found["reasons"]["a.png"]
    assert (out / "a.png").read_bytes() == before


def test_pictures_are_never_written_over(tmp_path: Path, artefact: Path, pictures: Path) -> None:
    before = contents(pictures)
    for out in (pictures, pictures / "cat", pictures / "new"):
        with pytest.raises(SpecError, match="expected a folder that is not among the pictures"):
            paste(artefact, pictures, out)
    with pytest.raises(SpecError, match=r"--out: expected another folder than that of .*a\.png"):
        paste(artefact, (pictures / "a.png",), pictures)
    assert contents(pictures) == before


def test_grey_pictures(tmp_path: Path, artefact: Path, theta: torch.Tensor) -> None:
    folder = tmp_path / "grey"
    folder.mkdir()
    Image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30).astype(np.uint8)).save(
        folder / "g.png"
    )
    Image.new("RGB", (30, 30), "blue").save(folder / "rgb.png")
    paste(artefact, folder, tmp_path / "colour")
    assert pixels_of(tmp_path / "colour/g.png").shape == (30, 30, 3)
    grey = save(tmp_path / "grey.safetensors", theta[:1])
    paste(grey, folder, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert [row["channels"] for row in rows] == ["1", "3"]
    first, second = (pixels_of(tmp_path / "out" / row["file"])[box_of(row)] for row in rows)
    levels = (255 * theta[0]).round().to(torch.uint8).numpy().repeat(3, axis=0).repeat(3, axis=1)
    assert np.array_equal(first, levels)
    assert np.array_equal(second, levels[..., None].repeat(3, axis=2))


def test_a_zip_gives_what_its_folder_gives(tmp_path: Path, artefact: Path, pictures: Path) -> None:
    path = tmp_path / "pictures.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in SIZES:
            archive.write(pictures / name, name)
    paste(artefact, pictures, tmp_path / "folder")
    paste(artefact, path, tmp_path / "zip")
    assert (tmp_path / "zip/boxes.csv").read_bytes() == (tmp_path / "folder/boxes.csv").read_bytes()
    for row in rows_of(tmp_path / "zip"):
        one, other = (pixels_of(tmp_path / kind / row["file"]) for kind in ("zip", "folder"))
        assert np.array_equal(one, other)
    assert paste(artefact, path, tmp_path / "zip")["pasted"] == 0


def test_results_stand_beside_their_pictures_as_a_paired_dataset_does() -> None:
    assert result_names(["a.jpg", "a/b.c.tif", "x"]) == {
        "a.jpg": "a.png",
        "a/b.c.tif": "a/b.c.png",
        "x": "x.png",
    }
    assert result_names(["a.jpg", "a.png"]) == {"a.jpg": "a.jpg.png", "a.png": "a.png.png"}


def test_two_results_of_one_name_are_refused(tmp_path: Path, artefact: Path) -> None:
    folder = tmp_path / "same"
    folder.mkdir()
    for name in ("a.jpg", "a.png", "a.jpg.bmp"):
        Image.new("RGB", (30, 30)).save(folder / name)
    with pytest.raises(SpecError, match=r"expected one result a name, got 'a\.jpg\.png' twice"):
        paste(artefact, folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 0.0}, "--size: expected"),
        ({"size": 1.5}, "--size: expected"),
        ({"place": "midle"}, "--place: expected"),
        ({"place": "off-object"}, "--place: off-object needs a model"),
    ],
)
def test_wrong_options(
    tmp_path: Path, artefact: Path, pictures: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpecError, match=words):
        paste(artefact, pictures, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_paths_that_are_not_there_or_do_not_go_together(
    tmp_path: Path, artefact: Path, pictures: Path
) -> None:
    with pytest.raises(DatasetNotFound, match="nowhere"):
        paste(artefact, tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(SpecError, match=r"expected one folder or zip, or image files, got .*cat"):
        paste(artefact, (pictures / "a.png", pictures / "cat"), tmp_path / "out")


def test_what_was_pasted_is_on_record(tmp_path: Path, artefact: Path, pictures: Path) -> None:
    found = paste(artefact, pictures, tmp_path / "out")
    about = json.loads((tmp_path / "out/patch.json").read_text())
    assert about == {key: found[key] for key in ("artefact", "digest", "attack", "seed")}
    assert "GridPatch(grid=3, size=0.3" in about["attack"]
