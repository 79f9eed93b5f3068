from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.errors import DatasetNotFound, SourceError
from storage.sources import Cifar10, Parquet, cifar10
from storage.sources.rows import BATCH
from tests.storage.pictures import contents, encode, gradient, png


def write_part(path: Path, images: list[Any], **options: Any) -> Path:
    """A Parquet file in the layout of the Hugging Face hub."""
    paths = options.pop("paths", [None] * len(images))
    structs = [{"bytes": data, "path": name} for data, name in zip(images, paths, strict=True)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {options.pop("image", "image"): pa.array(structs, kind)}
    labels = options.pop("labels", list(range(len(images))))
    if labels is not None:
        columns[options.pop("label", "label")] = pa.array(labels, pa.int64())
    table = pa.table(columns).replace_schema_metadata(options.pop("metadata", None))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def test_rows_of_one_file(tmp_path: Path) -> None:
    images = [png(i) for i in range(300)]
    path = write_part(tmp_path / "part.parquet", images, row_group_size=128)
    source = Parquet(path)
    items = list(source.items())
    assert [item.name for item in items[:2]] == ["part/000000", "part/000001"]
    assert [item.label for item in items] == list(range(300))
    assert len({item.stamp for item in items}) == 300
    assert list(source.read(items)) == images
    assert list(source.read(items[::-17])) == images[::-17]
    picked = [items[i] for i in (5, 5, 200, 3, BATCH, BATCH - 1, 299)]
    assert list(source.read(picked)) == [images[i] for i in (5, 5, 200, 3, BATCH, BATCH - 1, 299)]


def test_size_hints_are_of_the_right_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [encode(rng.integers(0, 256, (40, 50, 3), np.uint8), "JPEG") for _ in range(60)]
    items = list(Parquet(write_part(tmp_path / "part.parquet", images)).items())
    assert all(5_000 < item.size_hint < 7_000 for item in items)
    text = list(Parquet(write_part(tmp_path / "text.parquet", [b"text"])).items())
    assert text[0].size_hint == 0


def test_stored_paths_are_names_where_they_can_be(tmp_path: Path) -> None:
    def names(one: list[Any], two: list[Any]) -> list[str]:
        write_part(tmp_path / "set/a.parquet", [png(1)] * len(one), paths=one)
        write_part(tmp_path / "set/sub/b.parquet", [png(2)] * len(two), paths=two)
        source = Parquet(tmp_path / "set")
        assert contents(source) == [png(1)] * len(one) + [png(2)] * len(two)
        return [item.name for item in source.items()]

    assert names(["x/1.png", "x/2.png"], ["y/1.png"]) == ["x/1.png", "x/2.png", "y/1.png"]
    fallback = ["a/000000", "a/000001", "sub/b/000000"]
    assert names(["x/1.png", "x/2.png"], ["x/1.png"]) == fallback
    assert names(["x/1.png", None], ["y/1.png"]) == fallback


def test_plain_binary_columns_and_auto(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    data = {"picture": [png(1), png(2)], "class": [3, -1], "text": ["a", "b"]}
    pq.write_table(pa.table(data), path)
    source = Parquet(path)
    assert contents(source) == [png(1), png(2)]
    assert [item.label for item in source.items()] == [3, None]
    pq.write_table(pa.table({**data, "thumb": [png(3), png(4)]}), path)
    with pytest.raises(SourceError, match=r"expected one image column .*; state image_column"):
        list(source.items())
    assert contents(Parquet(path, image_column="thumb")) == [png(3), png(4)]
    with pytest.raises(SourceError, match="expected image_column 'text' to be binary"):
        list(Parquet(path, image_column="text").items())
    with pytest.raises(SourceError, match="expected label_column 'text' to be a column of int"):
        list(Parquet(path, image_column="thumb", label_column="text").items())
    pq.write_table(pa.table({"text": ["a"]}), path)
    with pytest.raises(SourceError, match="got none among"):
        list(source.items())


def test_no_labels_and_no_bytes(tmp_path: Path) -> None:
    path = write_part(tmp_path / "part.parquet", [png(1), None], labels=None)
    items = list(Parquet(path).items())
    assert [item.label for item in items] == [None, None]
    found = list(Parquet(path).read(items))
    assert found[0] == png(1)
    assert str(found[1]) == "cannot be read: the row holds no bytes"
    lost = items[0]._replace(place="part.parquet#7")
    assert "has no row 7" in str(next(iter(Parquet(path).read([lost]))))


def test_class_names_of_the_hub(tmp_path: Path) -> None:
    feature = {"names": ["cat", "dog"], "_type": "ClassLabel"}
    stored = {"huggingface": json.dumps({"info": {"features": {"label": feature}}})}
    assert Parquet(write_part(tmp_path / "1.parquet", [png()], metadata=stored)).classes == (
        "cat",
        "dog",
    )
    assert Parquet(write_part(tmp_path / "2.parquet", [png()])).classes is None
    broken = {"huggingface": "no json"}
    assert Parquet(write_part(tmp_path / "3.parquet", [png()], metadata=broken)).classes is None


def test_no_parquet_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound, match="got nothing"):
        list(Parquet(tmp_path / "no").items())
    with pytest.raises(DatasetNotFound, match="got a folder without any"):
        list(Parquet(tmp_path).items())
    write_part(tmp_path / ".hidden.parquet", [png()])
    with pytest.raises(DatasetNotFound, match="got a folder without any"):
        list(Parquet(tmp_path).items())
    (tmp_path / "x.parquet").write_bytes(b"text")
    with pytest.raises(SourceError, match="expected a Parquet file at"):
        list(Parquet(tmp_path).items())
    item = next(iter(Parquet(write_part(tmp_path / "y.parquet", [png()])).items()))
    with pytest.raises(DatasetNotFound, match="expected a Parquet file at"):
        list(Parquet(tmp_path).read([item._replace(place="z.parquet#0")]))


def test_cifar10_in_parquet(tmp_path: Path) -> None:
    images = [encode(gradient(32, 32), "JPEG", quality=q) for q in (50, 60, 70)]
    write_part(tmp_path / "test-00000-of-00002.parquet", images[:2], image="img", labels=[9, 0])
    write_part(tmp_path / "test-00001-of-00002.parquet", images[2:], image="img", labels=[3])
    write_part(tmp_path / "train-00000-of-00001.parquet", images[1:2], image="img", labels=[5])
    source = Cifar10(tmp_path)
    items = list(source.items())
    assert [item.label for item in items] == [9, 0, 3]
    assert items[2].name == "test-00001-of-00002/000000"
    assert {item.size_hint for item in items} == {3072}
    assert contents(source) == images
    assert [item.label for item in Cifar10(tmp_path, split="train").items()] == [5]
    one = Cifar10(tmp_path / "test-00001-of-00002.parquet")
    assert contents(one) == images[2:]
    assert source.classes[9] == "truck"
    with pytest.raises(ValueError, match="split: expected train or test, got 'val'"):
        Cifar10(tmp_path, split="val")


def write_batches(folder: Path, *, names: bool = True) -> dict[str, np.ndarray[Any, Any]]:
    """The Python archive in small, as Python 2 wrote it: protocol 2, text as bytes."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    stored = {}
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        data = rng.integers(0, 256, (3, 3072), np.uint8)
        stored[name] = data
        content: dict[str, Any] = {"data": data, "labels": [1, 2, 3], "batch_label": name}
        if names:
            content["filenames"] = [f"{name}_{i}.png" for i in range(3)]
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return stored


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-py"])
def test_cifar10_in_pickles(tmp_path: Path, inner: str) -> None:
    stored = write_batches(tmp_path / "set" / inner)
    source = Cifar10(tmp_path / "set", split="train")
    items = list(source.items())
    assert [item.label for item in items] == [1, 2, 3] * 5
    assert items[4].name == "train/data_batch_2_1.png"
    images = list(source.read(items[::-1]))
    expected = stored["data_batch_1"][0].reshape(3, 32, 32).transpose(1, 2, 0)
    assert np.array_equal(images[-1], expected)
    assert next(Cifar10(tmp_path / "set").items()).name == "test/test_batch_0.png"
    wrong = items[0]._replace(place="../test_batch#0")
    assert isinstance(next(iter(source.read([wrong]))), SourceError)


def test_cifar10_in_pickles_without_names(tmp_path: Path) -> None:
    write_batches(tmp_path / "set", names=False)
    names = [item.name for item in Cifar10(tmp_path / "set", split="train").items()]
    assert names[:2] + names[-1:] == ["train/000000", "train/000001", "train/000014"]


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("should-never-exist",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Evil(), "expected plain values and numpy arrays, got posix.mkdir"),
        ({"data": np.array([Evil()], object), "labels": [0]}, "got posix.mkdir"),
        ([1, 2], "expected a dict, got list"),
        ({"data": np.zeros((1, 5), np.uint8), "labels": [0]}, "expected data"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [0, 1]}, "expected data"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [10]}, "expected labels from 0 to 9"),
    ],
)
def test_pickles_that_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_batch").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(SourceError, match=message):
        list(Cifar10(tmp_path).items())
    assert [path.name for path in tmp_path.iterdir()] == ["test_batch"]


def test_damaged_pickle(tmp_path: Path) -> None:
    (tmp_path / "test_batch").write_bytes(b"\x80\x02}q\x00(U\x04da")
    with pytest.raises(SourceError, match="cannot be read as a pickle"):
        list(Cifar10(tmp_path).items())


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive to download, in place of the official one; there are no data folders."""
    write_batches(tmp_path / "made" / "cifar-10-batches-py")
    archive = tmp_path / "cifar.tar.gz"
    with tarfile.open(archive, "w:gz") as stream:
        stream.add(tmp_path / "made" / "cifar-10-batches-py", "cifar-10-batches-py")
    monkeypatch.setattr(cifar10, "ARCHIVE_URL", archive.as_uri())
    monkeypatch.setattr(cifar10, "ARCHIVE_MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr("storage.sources.paths._PROJECT", tmp_path / "project")
    monkeypatch.setenv("IMAGE_DEFENDER_DATA", str(tmp_path / "data"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return archive


def test_download(published: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound, match="state a path, or download: true"):
        list(Cifar10().items())
    source = Cifar10(download=True)
    assert source.identity() == Cifar10().identity()
    assert len(list(source.items())) == 3
    published.unlink()
    assert len(contents(Cifar10())) == 3
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["cifar-10-batches-py"]


def test_download_to_a_stated_folder(published: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound, match="download: true"):
        list(Cifar10(tmp_path / "mine").items())
    assert len(list(Cifar10(tmp_path / "mine", download=True).items())) == 3
    assert (tmp_path / "mine/cifar-10-batches-py/test_batch").is_file()


def test_data_folder_is_searched(published: Path, tmp_path: Path) -> None:
    write_part(tmp_path / "data/cifar10/test-0.parquet", [png()], image="img", labels=[1])
    assert [item.label for item in Cifar10().items()] == [1]


@pytest.mark.parametrize("fault", ["absent", "changed", "no archive", "unsafe", "other", "disk"])
def test_download_that_fails(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    if fault == "absent":
        published.unlink()
    elif fault == "changed":
        published.write_bytes(published.read_bytes() + b"\0")
    elif fault == "no archive":
        published.write_bytes(b"an error page")
    elif fault == "disk":
        (tmp_path / "data").write_bytes(b"a file in place of the folder")
    else:
        member = tarfile.TarInfo("../../outside" if fault == "unsafe" else "other/file")
        with tarfile.open(published, "w:gz") as stream:
            stream.addfile(member, io.BytesIO())
    if fault in ("no archive", "unsafe", "other"):
        digest = hashlib.md5(published.read_bytes()).hexdigest()
        monkeypatch.setattr(cifar10, "ARCHIVE_MD5", digest)
    messages = {
        "absent": "cannot download file:",
        "changed": "expected the md5",
        "no archive": "cannot be unpacked",
        "unsafe": "cannot be unpacked",
        "other": "expected the folder cifar-10-batches-py",
        "disk": "cannot download file:",
    }
    with pytest.raises(SourceError, match=messages[fault]) as caught:
        list(Cifar10(download=True).items())
    assert "fetch it by hand" in str(caught.value)
    assert not (tmp_path / "outside").exists()
    assert fault == "disk" or list((tmp_path / "data").iterdir()) == []
