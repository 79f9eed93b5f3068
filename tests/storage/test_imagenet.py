from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models import ResNet50_Weights

from storage import imagenet
from storage.errors import SourceError
from storage.ingest import ingest_chunk
from storage.sources import Folder, Source, Zip
from tests.storage.pictures import png, write_tree, write_zip

IMAGENETTE = {
    "n01440764": (0, "tench"),
    "n02102040": (217, "English springer"),
    "n02979186": (482, "cassette player"),
    "n03000684": (491, "chain saw"),
    "n03028079": (497, "church"),
    "n03394916": (566, "French horn"),
    "n03417042": (569, "garbage truck"),
    "n03425413": (571, "gas pump"),
    "n03445777": (574, "golf ball"),
    "n03888257": (701, "parachute"),
}
"""Number, index and name of the ten classes, as published with the set."""

PICTURES = {
    f"val/{wnid}/{wnid}_{picture}.png": png(index)
    for wnid, (index, _) in IMAGENETTE.items()
    for picture in range(3)
}
"""Three pictures of each class, in a colour that says its index."""


def right_answers(images: Tensor) -> Tensor:
    """A model with 1000 outputs that knows every picture: logits (n, 1000)."""
    red, green = (images[:, :2, 0, 0] * 255).round().long().unbind(dim=1)
    return torch.nn.functional.one_hot(red + 256 * green, 1000).float()


def accuracy(source: Source) -> float:
    """Share of a source's images whose prediction is their label."""
    found = ingest_chunk(source, list(source.items()))
    images = torch.stack([torch.from_numpy(image).float() / 255 for image in found.images])
    labels = torch.tensor(found.rows["label"].to_pylist())
    assert len(labels) == 30
    return float((right_answers(images).argmax(dim=1) == labels).float().mean())


def test_a_model_that_is_always_right_is_right_by_the_indices_of_imagenet(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "imagenette", PICTURES)
    archive = write_zip(tmp_path / "imagenette.zip", PICTURES)
    for mapped in (
        Folder(folder, split="val", labels="imagenet"),
        Zip(archive, prefix="val", labels="imagenet"),
        Folder(folder, class_folder="parent", labels="imagenet", order="hash"),
    ):
        assert accuracy(mapped) == 1.0
        assert mapped.classes is not None
        assert [mapped.classes[index] for index, _ in IMAGENETTE.values()] == [
            name for _, name in IMAGENETTE.values()
        ]
    # numbered 0 to 9 by their folders, of the same answers those of tench alone count
    assert accuracy(Folder(folder, split="val")) == pytest.approx(0.1)
    assert accuracy(Zip(archive, prefix="val")) == pytest.approx(0.1)


def test_one_class_alone_keeps_its_index(tmp_path: Path) -> None:
    source = Folder(write_tree(tmp_path, {"golf_ball/1.png": png()}), labels="imagenet")
    assert [item.label for item in source.items()] == [574]


def test_files_in_no_folder_have_no_label(tmp_path: Path) -> None:
    tree = {"1.png": png(), "n03888257/2.png": png()}
    source = Folder(write_tree(tmp_path, tree), labels="imagenet")
    assert [item.label for item in source.items()] == [None, 701]


def test_a_folder_of_no_class_stops_the_run(tmp_path: Path) -> None:
    tree = {"n01440764/1.png": png(), "others/2.png": png()}
    for source in (
        Folder(write_tree(tmp_path / "set", tree), labels="imagenet"),
        Zip(write_zip(tmp_path / "set.zip", tree), labels="imagenet"),
    ):
        with pytest.raises(SourceError, match=r"such as n01440764 or tench, got 'others'$"):
            list(source.items())


def test_labels_are_part_of_what_a_dataset_is_and_older_datasets_stay_what_they_are() -> None:
    for kind in (Folder, Zip):
        assert "labels" not in kind(Path("a")).identity()
        assert kind(Path("a"), labels="imagenet").identity()["labels"] == "imagenet"


def test_options() -> None:
    for kind in (Folder, Zip):
        with pytest.raises(ValueError, match="labels: expected folders or imagenet, got 'wnid'"):
            kind(Path("a"), labels="wnid")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="labels: expected folders beside labels_csv"):
            kind(Path("a"), labels_csv="labels.csv", labels="imagenet")


def test_table_of_classes() -> None:
    wnids = [wnid for wnid, _ in imagenet.classes()]
    assert wnids == sorted(set(wnids))
    assert len(wnids) == 1000
    assert list(imagenet.class_names()) == ResNet50_Weights.DEFAULT.meta["categories"]
    for wnid, (index, name) in IMAGENETTE.items():
        assert imagenet.wnid_index(wnid) == index
        assert imagenet.class_wnid(index) == wnid
        assert imagenet.class_name(index) == name
    assert [imagenet.wnid_index(wnid) for wnid in wnids] == list(range(1000))


def test_mapping_of_names() -> None:
    names = ["n03445777", "golf_ball", "Golf-Ball", "n03445777_golf_ball", "n03445777-birdie"]
    assert imagenet.label_mapping(names) == dict.fromkeys(names, 574)
    assert imagenet.label_mapping(["CD_player", "Granny Smith", "jack-o'-lantern"]) == {
        "CD_player": 485,
        "Granny Smith": 948,
        "jack-o'-lantern": 607,
    }
    for index, (wnid, name) in enumerate(imagenet.classes()):
        assert imagenet.label_mapping([wnid, f"{wnid}_{name}"]) == {
            wnid: index,
            f"{wnid}_{name}": index,
        }
        if name.casefold() not in imagenet.AMBIGUOUS:
            assert imagenet.label_mapping([name]) == {name: index}


@pytest.mark.parametrize(
    "name",
    [
        "0",  # a place, which is the mistake that the mapping is there to prevent
        "217",
        "n00000001",
        "n0144076",
        "N01440764",
        "cat",
        "",
        "n01440764_golf_ball",
        "crane",
        "cardigan",
        "maillot",
    ],
)
def test_names_that_are_no_class_or_may_be_two(name: str) -> None:
    with pytest.raises(SourceError, match=f"got {name!r}$"):
        imagenet.label_mapping(["tench", name])


def test_every_unknown_folder_is_named_up_to_ten() -> None:
    with pytest.raises(SourceError, match=r"got 'a', 'b', 'c'$"):
        imagenet.label_mapping(["c", "b", "tench", "a"])
    with pytest.raises(SourceError, match=r"'j' and 2 more$"):
        imagenet.label_mapping("abcdefghijkl")


def test_indices_and_numbers_out_of_range() -> None:
    for index in (-1, 1000, True):
        with pytest.raises(ValueError, match=f"index: expected 0 to 999, got {index}"):
            imagenet.class_name(index)
        with pytest.raises(ValueError, match="index: expected 0 to 999"):
            imagenet.class_wnid(index)
    with pytest.raises(ValueError, match=r"wnid: expected one of ImageNet's.*'n00000001'"):
        imagenet.wnid_index("n00000001")


@pytest.mark.data
def test_the_labels_file_of_real_photographs_agrees(data: Path) -> None:
    path = data / "imagenet_samples.zip"
    if not path.exists():
        pytest.skip(f"no photographs at {path}")
    with zipfile.ZipFile(path) as archive:
        text = archive.read("imagenet_samples/labels.csv").decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 500
    for row in rows:
        assert imagenet.wnid_index(row["wnid"]) == int(row["label"])
        stem = row["file"].removesuffix(".JPEG")
        assert imagenet.label_mapping([stem]) == {stem: int(row["label"])}
