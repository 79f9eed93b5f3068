"""Stores in a cloud: what a path to an object can do, and the lease that stands for a lock."""

from __future__ import annotations

import threading
import time
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pytest

from storage.errors import DamagedChunk, StoreBusy
from storage.files import check_writable, exclusive, remove_folder, store_holder, write_atomic
from storage.images import read_images, write_images
from storage.lease import lease_holder, leased
from storage.ledger import Ledger, Mark, sha256_file
from storage.objects import ObjectPath
from storage.scores import read_rows, write_rows
from tests.cloud import cloud, fresh_url

__all__ = ["cloud"]


@pytest.fixture
def root(cloud: str) -> ObjectPath:
    return ObjectPath(fresh_url(cloud))


def test_an_object_is_what_was_written_last(root: ObjectPath) -> None:
    path = root / "a" / "b.bin"
    assert not path.exists()
    with pytest.raises(FileNotFoundError):
        path.read_bytes()
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.is_file()
    assert not path.is_dir()
    assert (root / "a").is_dir()
    assert not (root / "a").is_file()
    path.unlink()
    assert not (root / "a").exists()
    path.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        path.unlink()


def test_what_lies_below_is_listed(root: ObjectPath) -> None:
    for name in ("x/1.json", "x/2.json", "x/deep/3.json", "xy/4.json"):
        write_atomic(root / name, b"{}")
    assert sorted(p.key for p in (root / "x").glob("*.json")) == ["x/1.json", "x/2.json"]
    assert sorted(p.name for p in (root / "x").rglob("*.json")) == ["1.json", "2.json", "3.json"]
    assert sorted(p.name for p in root.iterdir()) == ["x", "xy"]
    remove_folder(root / "x")
    assert [p.key for p in root.rglob("*")] == ["xy/4.json"]


def test_parts_of_a_path(root: ObjectPath) -> None:
    path = root / "a/b" / "c.tar.gz"
    assert (path.name, path.stem, path.suffix) == ("c.tar.gz", "c.tar", ".gz")
    assert path.parent == root / "a/b"
    assert (root / "a").parent == root
    assert path.with_name("d") == root / "a/b/d"
    assert path.with_suffix(".zip") == root / "a/b/c.tar.zip"
    assert path.relative_to(root / "a") == PurePosixPath("b/c.tar.gz")
    with pytest.raises(ValueError, match="expected a place below"):
        path.relative_to(ObjectPath("memory://elsewhere"))


def test_of_several_writers_one_creates_and_one_replaces(root: ObjectPath) -> None:
    path = root / "mark"
    tag = path.create(b"first")
    with pytest.raises(FileExistsError):
        path.create(b"second")
    assert path.read_tagged() == (b"first", tag)
    newer = path.replace_tagged(b"third", tag)
    assert newer is not None
    assert path.replace_tagged(b"fourth", tag) is None
    assert path.read_bytes() == b"third"


def test_chunks_are_written_read_and_vouched_for(root: ObjectPath) -> None:
    check_writable(root)
    assert list(root.rglob("*")) == []
    images = [np.full((3, 4, 5), value, np.uint8) for value in range(6)]
    written = write_images(root / "images/key", images)
    digests = {name: one.sha256 for name, one in written.items()}
    assert {n: sha256_file(root / "images/key" / n) for n in digests} == digests
    assert all(np.array_equal(a, b) for a, b in zip(read_images(root / "images/key"), images))  # noqa: B905
    table = pa.table({"id": ["a", "b"]})
    digest = write_rows(root / "rows/key.parquet", table).sha256
    assert read_rows(root / "rows/key.parquet") == table
    files = {f"images/key/{name}": one for name, one in digests.items()}
    mark = Mark("key", {"images": "x"}, {**files, "rows/key.parquet": digest}, "content", 6)
    ledger = Ledger(root)
    ledger.write(mark)
    assert ledger.vouches("key", {"images": "x"}) == mark
    assert ledger.keys() == ["key"]
    write_atomic(root / "images/key/c/0/0/0/0", b"damaged")
    assert ledger.vouches("key", {"images": "x"}) is None
    with pytest.raises(DamagedChunk, match="cannot read the images"):
        read_images(root / "images/key")
    ledger.withdraw("key")
    assert list(root.rglob("*")) == []
    with pytest.raises(DamagedChunk, match="got nothing"):
        read_images(root / "images/key")


def test_a_lease_is_held_by_one(root: ObjectPath) -> None:
    with exclusive(root):
        holder = store_holder(root)
        assert holder is not None
        assert {"host", "pid", "since"} <= holder.keys()
        with pytest.raises(StoreBusy, match=f"process {holder['pid']} on {holder['host']}, since"):
            exclusive(root, wait=False).__enter__()
    assert store_holder(root) is None
    with exclusive(root, wait=False):
        assert store_holder(root) is not None


def test_who_waits_gets_the_lease_when_it_ends(root: ObjectPath) -> None:
    order: list[str] = []
    waiting = threading.Event()

    def second() -> None:
        with leased(root / ".lock", on_wait=waiting.set, lease=0.5):
            order.append("second")

    with leased(root / ".lock", lease=0.5):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(10)
        # longer than a dead holder would be waited for: this one gives signs of life
        time.sleep(1.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_the_lease_of_a_dead_holder_is_taken_over(root: ObjectPath) -> None:
    place = root / ".lock"
    place.create(b'{"state": "held", "host": "gone", "pid": "1", "since": "then"}')
    assert lease_holder(place) is not None
    told: list[str] = []
    with leased(place, on_wait=lambda: told.append("waiting"), lease=0.4):
        holder = lease_holder(place)
        assert holder is not None
        assert holder["host"] != "gone"
    assert told == ["waiting"]
