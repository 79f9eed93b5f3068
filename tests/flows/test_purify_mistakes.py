"""The command ``purify`` refuses what would go wrong before it computes or writes anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flows.cli import Exit
from tests.flows.test_cli import invoke, one_line


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (12, 10), (40, 80, 120)).save(folder / name)
    return folder


def words(images: Path, *more: object) -> list[object]:
    place = images.parent
    stated = ["purify", images, "--out", place / "out", "--store", place / "store", *more]
    return stated if "--purifier" in more else [*stated, "--purifier", "median(3)"]


def untouched(place: Path) -> bool:
    return not (place / "out").exists() and not list(place.glob("store/data/*/marks/*"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--purifier", "medain"], "purifiers[0].name: expected one of"),
        (["--purifier", "medain"], "did you mean Median?"),
        (["--purifier", "median(3) > unsharpen(1)"], "got 'unsharpen'"),
        (["--purifier", "median(window=4)"], "window: expected"),
        (["--purifier", "median(3)", "--purifier", "median(3)"], "a label of its own"),
        (["--purifier", "{name: Median, windw: 3}"], "windw: unknown parameter"),
        (["--purifier", "{name: Median"], "--purifier: expected a YAML mapping"),
        (["--purifier", "SeparateCorrectCombine"], "works on a model; expected the field model"),
        (["--purifier", "SelectiveMedian"], "needs to know how the model's pipeline resizes"),
        (["--model", "shapes-cm"], "model.name"),
        (["--target", "12"], "--target: expected height x width"),
        (["--suffix", "jpg"], "suffix: expected .png"),
        (["--suffix", ".jpg"], "suffix: expected .png"),
        (["--suffix", "/x.png"], "suffix: expected .png"),
        (["--colour", "red"], "colour: "),
        (["--name", "data"], "name: "),
        (["--include", "*.gif"], "expected images in folder, found none"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(
    images: Path, given: list[str], message: str
) -> None:
    one_line(invoke(*words(images, *given)), Exit.INPUT, message)
    assert untouched(images.parent)


def test_a_purifier_that_is_given_the_original_is_refused(images: Path) -> None:
    told = "{name: SeparateCorrectCombine, variant: reference}"
    result = invoke(*words(images, "--purifier", told, "--model", "shapes-cnn"))
    one_line(result, Exit.INPUT, "expected one that works without the clean original")
    assert untouched(images.parent)


def test_no_purifier_and_no_images(images: Path) -> None:
    asked = ["purify", images, "--out", images.parent / "out"]
    one_line(invoke(*asked), Exit.INPUT, '--purifier: expected one or more, such as "median(3)"')
    missing = words(images.parent / "nowhere")
    one_line(invoke(*missing), Exit.INPUT, "expected a dataset", "nowhere")


@pytest.mark.parametrize("out", ["images", "images/purified", "images/../images", "link"])
def test_results_never_come_to_lie_among_the_images(images: Path, out: str) -> None:
    (images.parent / "link").symlink_to(images)
    before = {path.name: path.read_bytes() for path in images.iterdir()}
    result = invoke(*words(images), "--out", images.parent / out, "--overwrite")
    one_line(result, Exit.INPUT, "--out: expected a folder that is not among the images of")
    assert {path.name: path.read_bytes() for path in images.iterdir()} == before


def test_a_link_within_the_folder_does_not_lead_back_to_the_images(images: Path) -> None:
    (images / "sub").mkdir()
    Image.new("RGB", (12, 10)).save(images / "sub/c.png")
    out = images.parent / "out"
    out.mkdir()
    (out / "sub").symlink_to(images / "sub")
    before = (images / "sub/c.png").read_bytes()
    result = invoke(*words(images, "--overwrite"))
    one_line(result, Exit.INPUT, "expected a folder that is not among the images of", "out/sub")
    assert (images / "sub/c.png").read_bytes() == before


def test_a_folder_that_holds_the_images_under_another_name_is_left_alone(tmp_path: Path) -> None:
    nested = tmp_path / "photos/images"
    nested.mkdir(parents=True)
    (nested / "images").mkdir()
    Image.new("RGB", (12, 10)).save(nested / "images/a.png")
    Image.new("RGB", (12, 10), (9, 9, 9)).save(nested / "a.png")
    result = invoke(*words(nested), "--out", tmp_path / "photos", "--overwrite")
    one_line(result, Exit.INPUT, "expected a folder that is not among the images of")


def test_store_and_results_keep_apart(images: Path) -> None:
    place = images.parent
    inside = invoke(*words(images), "--store", images / "store")
    one_line(inside, Exit.INPUT, "--store: expected a folder that is not among the images")
    within = invoke(*words(images), "--out", place / "store/out")
    one_line(within, Exit.INPUT, "--out: expected a folder outside of the store")
    (place / "file").write_text("text")
    one_line(invoke(*words(images), "--out", place / "file"), Exit.INPUT, "got a file")
    assert {path.name for path in images.iterdir()} == {"a.png", "b.jpg"}


def test_files_of_others_are_not_replaced_unless_that_is_asked_for(images: Path) -> None:
    out = images.parent / "out"
    out.mkdir()
    (out / "b.png").write_bytes(b"somebody's")
    (out / "notes.png").write_bytes(b"not in the way")
    result = invoke(*words(images))
    one_line(result, Exit.INPUT, "out/b.png is there and was not made by purify", "--overwrite")
    assert {path.name for path in out.iterdir()} == {"b.png", "notes.png"}
    done = invoke(*words(images, "--overwrite"))
    assert done.exit_code == Exit.DONE, done.output
    with Image.open(out / "b.png") as image:
        assert image.size == (12, 10)
    assert (out / "notes.png").read_bytes() == b"not in the way"
    assert invoke(*words(images)).exit_code == Exit.DONE, "the folder is known from now on"

    other = invoke(*words(images, "--purifier", "median(5)"))
    one_line(other, Exit.INPUT, "holds what purify made otherwise (median(3) of", "--overwrite")
    again = invoke(*words(images, "--purifier", "median(5)", "--overwrite", "--json"))
    assert json.loads(again.stdout)["purifiers"][0]["label"] == "median(5)"
    one_line(invoke(*words(images)), Exit.INPUT, "made otherwise (median(5) of")


def test_names_that_would_be_one_are_named(images: Path) -> None:
    for name in ("a.jpg", "a.jpg.bmp"):
        Image.new("RGB", (12, 10)).save(images / name)
    message = "expected one result a name, got 'a.jpg.png' twice: 'a.jpg', 'a.jpg.bmp'"
    one_line(invoke(*words(images)), Exit.INPUT, message)
    (images / "a.jpg.bmp").unlink()
    (images / "b.png").mkdir()
    Image.new("RGB", (12, 10)).save(images / "b.png/c.png")
    message = "expected a file 'b.png' for 'b.jpg', got a folder of that name"
    one_line(invoke(*words(images)), Exit.INPUT, message)
    assert untouched(images.parent)


@pytest.mark.parametrize("content", ["[1, 2]", "path: images", "dataset: images"])
def test_a_file_that_states_no_dataset(images: Path, content: str) -> None:
    path = images.parent / "set.yaml"
    path.write_text(content)
    one_line(invoke(*words(path)), Exit.INPUT, "set.yaml: expected a dataset: its kind")


def test_a_dry_run_says_what_is_left_and_writes_nothing(images: Path) -> None:
    before = {path.relative_to(images.parent) for path in images.parent.rglob("*")}
    asked = words(images, "--purifier", "SelectiveMedian", "--target", "6x6", "--dry-run")
    told = invoke(*asked, "--library", "torch")
    assert told.exit_code == Exit.DONE, told.output
    assert told.stdout.splitlines()[0] == "2 images"
    assert "torch linear 6x6" in told.stdout
    assert "  export/SelectiveMedian: 0 of 1 chunks, 2 images left" in told.stdout
    plan: dict[str, Any] = json.loads(invoke(*asked, "--library", "torch", "--json").stdout)
    assert [(one["kind"], one["images_left"]) for one in plan["stages"]] == [
        ("ingest", 2),
        ("purify", 2),
        ("export", 2),
    ]
    assert {path.relative_to(images.parent) for path in images.parent.rglob("*")} == before
