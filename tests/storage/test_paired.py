from __future__ import annotations

from pathlib import Path

import pytest

from storage.errors import DatasetNotFound
from storage.sources import Paired
from tests.storage.pictures import contents, png, write_tree, write_zip

TREE = {
    "clean/cat/1.jpg": png(1),
    "clean/cat/2.png": png(2),
    "clean/dog/3.png": png(3),
    "ifgsm/cat/1.png": png(11),
    "ifgsm/dog/3.png": png(13),
    "ifgsm/dog/3.jpg": png(14),
    "square/cat/1.png": png(21),
    "square/cat/2.png": png(22),
    "square/dog/3.png": png(23),
    ".cache/x.png": png(0),
    "notes.txt": b"",
}


@pytest.fixture(params=["folder", "zip", "zipped folder"])
def paired(tmp_path: Path, request: pytest.FixtureRequest) -> Paired:
    if request.param == "folder":
        return Paired(write_tree(tmp_path, TREE))
    if request.param == "zip":
        return Paired(write_zip(tmp_path / "all.zip", TREE))
    tree = {f"set/{name}": data for name, data in TREE.items()}
    return Paired(write_zip(tmp_path / "all.zip", tree), prefix="set")


def test_paired(paired: Paired) -> None:
    items = list(paired.items())
    assert [(item.name, item.label) for item in items] == [
        ("cat/1.jpg", 0),
        ("cat/2.png", 0),
        ("dog/3.png", 1),
    ]
    assert paired.classes == ("cat", "dog")
    assert paired.attacks() == ("ifgsm", "square")
    assert contents(paired) == [png(1), png(2), png(3)]
    square = paired.counterpart("square")
    assert list(square.read(items)) == [png(21), png(22), png(23)]
    assert [item[:2] for item in square.items()] == [item[:2] for item in items]
    assert [item.stamp for item in square.items()] != [item.stamp for item in items]
    assert square.identity() == {**paired.identity(), "kind": "paired-attack", "attack": "square"}
    assert square.classes == paired.classes


def test_missing_counterpart_is_an_error_of_one_item(paired: Paired) -> None:
    attacked = paired.counterpart("ifgsm")
    items = list(paired.items())
    found = list(attacked.read(items))
    assert found[0] == png(11)
    assert "has no counterpart: expected cat/2.* in" in str(found[1])
    assert "has several counterparts in ifgsm: ['dog/3.jpg', 'dog/3.png']" in str(found[2])
    assert [item.stamp for item in attacked.items()][1:] == ["0 counterparts", "2 counterparts"]
    assert attacked.stamps(items) == [item.stamp for item in attacked.items()]


def test_unknown_attack(paired: Paired) -> None:
    with pytest.raises(DatasetNotFound, match=r"one of \['ifgsm', 'square'\], got 'pgd'"):
        paired.counterpart("pgd")


def test_the_identity_of_a_folder_does_not_name_what_it_has_not(tmp_path: Path) -> None:
    assert "prefix" not in Paired(tmp_path).identity()
    assert Paired(tmp_path, prefix="set").identity()["prefix"] == "set"


def test_a_zip_without_clean_images(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "all.zip", {"dirty/1.png": png(1)})
    with pytest.raises(DatasetNotFound, match="expected files under clean/"):
        list(Paired(path).items())
