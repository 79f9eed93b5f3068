from __future__ import annotations

import dataclasses
import json
import os
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest

from storage.errors import DatasetNotFound, SourceError
from storage.sources import SOURCES, Folder, Item, Paired, Source, Zip, archive
from tests.storage.pictures import bomb, contents, encode, gradient, png, write_tree, write_zip

TREE = {
    "b/2.png": png(1),
    "a/1.png": png(2, 10, 10),
    "a/deep/er/3.JPG": encode(gradient(), "JPEG"),
    "top.png": png(3),
    "a/not-an-image.png": b"text",
    "a/empty.jpg": b"",
    "a/bomb.png": bomb(60_000, 60_000),
    "a/notes.txt": b"sidecar",
    "labels.csv": b"file,label\n",
    "a/Thumbs.db": b"sidecar",
    ".hidden.png": png(4),
    ".git/x.png": png(4),
    "__MACOSX/a/._1.png": b"sidecar",
    "a/.DS_Store": b"sidecar",
}
NAMES = [
    "a/1.png",
    "a/bomb.png",
    "a/deep/er/3.JPG",
    "a/empty.jpg",
    "a/not-an-image.png",
    "b/2.png",
    "top.png",
]


@pytest.fixture(params=["folder", "zip"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Folder | Zip:
    """The same files as a folder and as a zip."""
    if request.param == "folder":
        return Folder(write_tree(tmp_path / "set", TREE))
    return Zip(write_zip(tmp_path / "set.zip", TREE))


def test_every_kind_is_a_source() -> None:
    assert list(SOURCES) == [
        "cifar10",
        "folder",
        "zip",
        "parquet",
        "builtin:shapes",
        "builtin:photos",
        "paired",
    ]
    for kind, cls in SOURCES.items():
        assert cls.kind == kind
        assert cls.doc
        assert "\n" not in cls.doc
        assert dataclasses.is_dataclass(cls)
        assert cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
        needs_path = "path" in {field.name for field in dataclasses.fields(cls)}
        source = cls(**({"path": "a/b"} if needs_path else {}))
        assert all(callable(getattr(source, name)) for name in ("items", "read"))
        assert isinstance(cls.classes, property)
        identity = source.identity()
        assert identity["kind"] == kind
        assert json.loads(json.dumps(identity)) == identity
        assert not needs_path or identity["path"] == "a/b"


def test_items_of_a_tree(tree: Folder | Zip) -> None:
    items = list(tree.items())
    assert [item.name for item in items] == NAMES
    assert [item.label for item in items] == [0, 0, 0, 0, 0, 1, None]
    assert tree.classes == ("a", "b")
    assert [item.size_hint for item in items] == [300, 0, 288, 0, 0, 288, 288]
    assert contents(tree) == [TREE[name] for name in NAMES]


def test_order_of_reading_is_the_order_asked_for(tree: Folder | Zip) -> None:
    items = list(tree.items())[::-1]
    assert list(tree.read(items)) == [TREE[name] for name in NAMES[::-1]]
    assert list(tree.read([])) == []


def test_hash_order_mixes_the_classes(tmp_path: Path) -> None:
    many = {f"{label}/{number}.png": png(number) for label in "ab" for number in range(20)}
    write_tree(tmp_path / "set", many)
    write_zip(tmp_path / "set.zip", many)
    shuffled = [item.name for item in Folder(tmp_path / "set", order="hash").items()]
    assert shuffled == [item.name for item in Zip(tmp_path / "set.zip", order="hash").items()]
    assert sorted(shuffled) == sorted(many)
    assert len({name[0] for name in shuffled[:10]}) == 2
    with pytest.raises(ValueError, match="order: expected name or hash, got 'random'"):
        Folder(tmp_path, order="random")  # type: ignore[arg-type]


def test_stamp_of_a_file_follows_its_content(tmp_path: Path) -> None:
    source = Folder(write_tree(tmp_path / "set", {"a/1.png": png(1), "a/2.png": png(2)}))
    before = {item.name: item.stamp for item in source.items()}
    (tmp_path / "set/a/1.png").write_bytes(png(3))
    os.utime(tmp_path / "set/a/1.png", ns=(0, 12345))
    after = {item.name: item.stamp for item in source.items()}
    assert after["a/1.png"] != before["a/1.png"]
    assert after["a/2.png"] == before["a/2.png"]


def test_stamp_of_a_member_is_its_checksum(tmp_path: Path) -> None:
    one = list(Zip(write_zip(tmp_path / "1.zip", {"a.png": png(1), "b.png": png(2)})).items())
    two = list(Zip(write_zip(tmp_path / "2.zip", {"b.png": png(2), "a.png": png(3)})).items())
    assert one[0].stamp != two[0].stamp
    assert one[1] == two[1]


def test_split_and_prefix_choose_a_sub_tree(tmp_path: Path) -> None:
    files = {"chest/test/NORMAL/1.png": png(1), "chest/test/SICK/1.png": png(2)}
    files["chest/train/OTHER/1.png"] = png(3)
    folder = Folder(write_tree(tmp_path / "set", files), split="chest/test")
    packed = Zip(write_zip(tmp_path / "set.zip", files), prefix="chest/test/")
    for source in (folder, packed):
        assert [(item.name, item.label) for item in source.items()] == [
            ("NORMAL/1.png", 0),
            ("SICK/1.png", 1),
        ]
        assert source.classes == ("NORMAL", "SICK")
        assert contents(source) == [png(1), png(2)]


LABELS = "\ufefffile,label,name\nx.png,0,tench\nsub/y.png,2,great white\nabsent.png,1,\n"


@pytest.mark.parametrize("place", ["inside", "beside"])
def test_labels_file(tmp_path: Path, place: str) -> None:
    files = {"x.png": png(1), "sub/y.png": png(2), "unlisted.png": png(3)}
    inside = {**files, "labels.csv": LABELS.encode()} if place == "inside" else files
    sources: list[Source] = [Zip(write_zip(tmp_path / "set.zip", inside), labels_csv="labels.csv")]
    if place == "inside":
        sources.append(Folder(write_tree(tmp_path / "set", inside), labels_csv="labels.csv"))
    else:
        (tmp_path / "labels.csv").write_text(LABELS, encoding="utf-8")
    for source in sources:
        labels = {item.name: item.label for item in source.items()}
        assert labels == {"x.png": 0, "sub/y.png": 2, "unlisted.png": None}
        assert source.classes == ("tench", "1", "great white")


def test_labels_file_in_a_sub_folder(tmp_path: Path) -> None:
    files = {"in/x.png": png(1), "in/labels.csv": b"file,label\nx.png,4\n"}
    for source in (
        Folder(write_tree(tmp_path / "set", files), labels_csv="in/labels.csv"),
        Zip(write_zip(tmp_path / "set.zip", files), labels_csv="in/labels.csv"),
    ):
        assert [item.label for item in source.items()] == [4]
        assert source.classes is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"name,label\n", "expected the columns file and label"),
        (b"", "expected the columns file and label"),
        (b"file,label\nx.png,cat\n", "line 2: expected a label from 0 to 999,999, got 'cat'"),
        (b"file,label\nx.png,-1\n", "got '-1'"),
        (b"file,label\nx.png\n", "got ''"),
        (b"file,label\nx.png,1\nx.png,2\n", "line 3: x.png has two labels"),
        (b"file,label\n\xff.png,1\n", "expected UTF-8"),
    ],
)
def test_labels_file_that_cannot_be_used(tmp_path: Path, text: bytes, message: str) -> None:
    files = {"x.png": png(1), "labels.csv": text}
    write_tree(tmp_path / "set", files)
    write_zip(tmp_path / "set.zip", files)
    for source in (
        Folder(tmp_path / "set", labels_csv="labels.csv"),
        Zip(tmp_path / "set.zip", labels_csv="labels.csv"),
    ):
        with pytest.raises(SourceError, match=message):
            list(source.items())
        missing = dataclasses.replace(source, labels_csv="none.csv")
        with pytest.raises(SourceError, match="expected a labels file"):
            list(missing.items())


def test_nothing_there(tmp_path: Path) -> None:
    write_zip(tmp_path / "set.zip", TREE)
    (tmp_path / "file").write_bytes(b"no zip")
    for source in (Folder(tmp_path / "no"), Zip(tmp_path / "no.zip"), Paired(tmp_path / "no")):
        with pytest.raises(DatasetNotFound, match="expected a "):
            list(source.items())
        with pytest.raises(DatasetNotFound, match="expected a "):
            list(source.read([Item("x", None, "", 0)]))
    with pytest.raises(DatasetNotFound, match="got a file"):
        list(Folder(tmp_path / "file").items())
    with pytest.raises(SourceError, match="expected a zip file"):
        list(Zip(tmp_path / "file").items())
    with pytest.raises(DatasetNotFound, match="expected files under c/"):
        list(Zip(tmp_path / "set.zip", prefix="c").items())


def test_a_file_that_vanishes_is_an_error_of_its_own(tree: Folder | Zip, tmp_path: Path) -> None:
    items = list(tree.items())
    gone = items[0]._replace(name="a/gone.png")
    found = list(tree.read([gone, items[0]]))
    assert isinstance(found[0], SourceError)
    assert "cannot be read" in str(found[0])
    assert found[1] == TREE["a/1.png"]


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere")
    source = Folder(tmp_path)
    items = list(source.items())
    assert [item.name for item in items] == ["dangling.png", "pipe.png"]
    assert [str(error) for error in source.read(items)] == [
        "cannot be read: No such file or directory",
        "cannot be read: it is not a regular file",
    ]


def test_name_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(png())
    items = list(Folder(tmp_path).items())
    assert items[0].name == "\\udcff.png"
    assert isinstance(next(iter(Folder(tmp_path).read(items))), SourceError)


def test_zip_bomb_is_refused_by_its_declared_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBER_BYTES", 1_000_000)
    path = write_zip(tmp_path / "set.zip", {"big.png": bytes(1_000_001), "fine.png": png()})
    found = contents(Zip(path))
    assert "zip bomb?" in str(found[0])
    assert "got 1,000,001" in str(found[0])
    assert found[1] == png()


def test_member_larger_than_declared(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "set.zip", {"big.png": bytes(100_000)})
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = (10).to_bytes(4, "little")
    path.write_bytes(data)
    error = contents(Zip(path))[0]
    assert isinstance(error, SourceError)
    assert "cannot be unpacked" in str(error)


def test_damaged_and_encrypted_members(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as stream:
        for name in ("damaged.png", "encrypted.png", "fine.png"):
            stream.writestr(name, png())
    data = bytearray(path.read_bytes())
    data[data.index(b"\x89PNG") + 20] ^= 1
    entry = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    data[entry + 8] |= 1
    path.write_bytes(data)
    found = contents(Zip(path))
    assert "CRC-32" in str(found[0])
    assert str(found[1]) == "cannot be read: it is encrypted"
    assert found[2] == png()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_two_members_with_one_name_the_last_counts(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as stream:
        stream.writestr("a.png", png(1))
        stream.writestr("a.png", png(2))
    assert contents(Zip(path)) == [png(2)]


def test_several_threads_read_one_source(tree: Folder | Zip) -> None:
    items = list(tree.items())
    found: list[list[Any]] = []
    threads = [
        threading.Thread(target=lambda: found.append(list(tree.read(items)))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[TREE[name] for name in NAMES]] * 4


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("folder", {"split": 3}, "split: expected text, got 3"),
        ("folder", {"labels_csv": ""}, "labels_csv: expected some text, got ''"),
        ("zip", {"prefix": None}, "prefix: expected text, got None"),
        ("zip", {"order": "size"}, "order: expected name or hash, got 'size'"),
        ("parquet", {"image_column": 1}, "image_column: expected some text, got 1"),
        ("paired", {"clean": ""}, "clean: expected some text, got ''"),
        ("cifar10", {"download": "yes"}, "download: expected true or false, got 'yes'"),
        ("builtin:shapes", {"split": ""}, "split: expected some text, got ''"),
        ("builtin:shapes", {"count": True}, "count: expected an integer of at least 0, got True"),
        ("builtin:shapes", {"seed": 0.5}, "seed: expected an integer of at least 0, got 0.5"),
    ],
)
def test_options_are_checked(kind: str, options: dict[str, Any], message: str) -> None:
    path = {} if kind == "builtin:shapes" else {"path": "a"}
    with pytest.raises(ValueError, match=message):
        SOURCES[kind](**path, **options)
