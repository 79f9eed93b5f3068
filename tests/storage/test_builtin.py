from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from storage.errors import DatasetNotFound, SourceError
from storage.sources import Photos, Shapes
from storage.sources.shapes import draw
from tests.storage.pictures import contents


def test_shapes_depend_on_seed_split_and_index_alone() -> None:
    source = Shapes(count=30)
    items = list(source.items())
    images = list(source.read(items))
    backwards = list(source.read(items[::-1]))[::-1]
    longer = Shapes(count=3_000_000)
    for image, again, item in zip(images, backwards, items, strict=True):
        assert image.shape == (32, 32, 3)
        assert image.dtype == np.uint8
        assert np.array_equal(image, again)
        assert np.array_equal(image, next(iter(longer.read([item]))))
    others = [Shapes(count=30, seed=1), Shapes(count=30, split="train")]
    for other in others:
        for image, changed in zip(images, contents(other), strict=True):
            assert not np.array_equal(image, changed)
    assert len({image.tobytes() for image in images}) == 30


def test_shapes_are_the_same_on_every_machine() -> None:
    digest = hashlib.sha256()
    for index in range(200):
        digest.update(draw(index % 3, "test", index * 1001).tobytes())
    assert digest.hexdigest() == "5e22457f16a9715cb7d8acae1b7b9a406b1c8f54cfaadc9be9d09e0610531f43"


def test_photographs_are_cut_into_squares() -> None:
    whole = {
        item.name: image for item, image in zip(Photos().items(), contents(Photos()), strict=True)
    }
    source = Photos(crop=224, pieces=2)
    items = list(source.items())
    names = [item.name.rpartition("/")[0] for item in items]
    assert max(map(names.count, names)) == 2
    assert len({item.name for item in items}) == len(items)
    assert set(names) < set(whole)
    pieces = list(source.read(items))
    assert all(piece.shape == (224, 224, 3) for piece in pieces)
    backwards = list(source.read(items[::-1]))[::-1]
    assert all(np.array_equal(x, y) for x, y in zip(pieces, backwards, strict=True))
    with Image.open(io.BytesIO(whole["astronaut.png"])) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    for item, piece in zip(items, pieces, strict=True):
        if item.name.startswith("astronaut.png/"):
            left, top = map(int, item.name.rpartition("/")[2].split("-"))
            assert np.array_equal(piece, pixels[top : top + 224, left : left + 224])


def test_whole_photographs_keep_their_identity() -> None:
    assert Photos().identity() == {"kind": "builtin:photos"}
    assert Photos(crop=224).identity() == {"kind": "builtin:photos", "crop": 224, "pieces": 3}
    with pytest.raises(ValueError, match="crop: expected an integer of at least 1"):
        Photos(crop=0)


def test_catalogue_of_shapes() -> None:
    source = Shapes(count=12, seed=4, split="train")
    items = list(source.items())
    assert [item.label for item in items] == [*range(10), 0, 1]
    assert items[11].name == "train/0000011"
    assert {item.size_hint for item in items} == {3072}
    assert len(source.classes) == 10
    assert source.identity()["generator"] == 1
    error = next(iter(source.read([items[0]._replace(name="test/0000000")])))
    assert isinstance(error, SourceError)
    assert list(Shapes(count=0).items()) == []
    with pytest.raises(ValueError, match="count: expected an integer of at least 0, got -1"):
        Shapes(count=-1)


def test_photos() -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    source = Photos()
    items = list(source.items())
    assert len(items) >= 10
    assert {"astronaut.png", "camera.png", "coffee.png"} <= {item.name for item in items}
    assert {item.label for item in items} == {None}
    assert source.classes is None
    assert all(item.size_hint > 60_000 for item in items)
    assert all(isinstance(data, bytes) for data in contents(source))


def test_photos_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DatasetNotFound, match="expected the package scikit-image"):
        list(Photos().items())
