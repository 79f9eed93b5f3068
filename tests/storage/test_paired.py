from __future__ import annotations

from pathlib import Path

import pytest

from storage.errors import DatasetNotFound
from storage.sources import Paired
from tests.storage.pictures import contents, png, write_tree


@pytest.fixture
def paired(tmp_path: Path) -> Paired:
    write_tree(
        tmp_path,
        {
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
        },
    )
    return Paired(tmp_path)


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
