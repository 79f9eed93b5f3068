from __future__ import annotations

import hashlib

import numpy as np
import pytest

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
