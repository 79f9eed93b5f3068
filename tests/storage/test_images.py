from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.errors import DamagedChunk, StoreBusy, StoreError, StoreFault
from storage.files import (
    as_store_error,
    exclusive,
    local_root,
    read_patiently,
    store_root,
    write_atomic,
)
from storage.images import content_digest, read_images, write_images
from storage.ledger import sha256_file
from storage.scores import concatenate, read_rows, write_rows

shapes = st.lists(
    st.tuples(st.sampled_from([1, 3]), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6
)


@settings(max_examples=25, deadline=None)
@given(shapes=shapes, seed=st.integers(0, 1000))
def test_images_of_any_shapes_come_back(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[tuple[int, int, int]], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("images") / "chunk"
    random = np.random.default_rng(seed)
    images = [random.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    written = write_images(folder, images)
    there = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
    assert {name: one.sha256 for name, one in written.items()} == {
        name: sha256_file(path) for name, path in there.items()
    }
    assert {n: one.size for n, one in written.items()} == {
        name: path.stat().st_size for name, path in there.items()
    }
    back = read_images(folder)
    assert [b.shape for b in back] == [i.shape for i in images]
    assert all(np.array_equal(a, b) for a, b in zip(images, back, strict=True))


def test_the_same_images_give_the_same_bytes(tmp_path: Path) -> None:
    images = [np.arange(48, dtype=np.uint8).reshape(3, 4, 4)] * 3
    for name in ("one", "two"):
        write_images(tmp_path / name, images)
    for path in (tmp_path / "one").rglob("*"):
        if path.is_file():
            other = tmp_path / "two" / path.relative_to(tmp_path / "one")
            assert path.read_bytes() == other.read_bytes()


def test_other_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        write_images(tmp_path / "x", [np.zeros((3, 2, 2), np.float32)])  # type: ignore[list-item]


def test_the_digest_sees_ids_shapes_and_pixels() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    base = content_digest(["a"], [image])
    assert content_digest(["a"], [image.copy()]) == base
    assert content_digest(["b"], [image]) != base
    assert content_digest(["a"], [image.reshape(3, 1, 4)]) != base
    assert content_digest(["a"], [image ^ 1]) != base


def test_rows_are_checked_when_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write_rows(path, pa.table({"id": [f"{i:04}" for i in range(500)], "x": list(range(500))}))
    assert read_rows(path).num_rows == 500
    data = bytearray(path.read_bytes())
    data[40] ^= 4
    path.write_bytes(data)
    with pytest.raises(DamagedChunk):
        read_rows(path)
    with pytest.raises(DamagedChunk):
        read_rows(tmp_path / "absent.parquet")


def test_parts_are_joined_under_the_stated_schema() -> None:
    schema = pa.schema([("id", pa.string()), ("x", pa.float64())])
    parts = [pa.table({"id": ["a"], "x": [1]}), pa.table({"x": [2.5], "id": ["b"]})]
    assert concatenate(parts, schema).to_pylist() == [{"id": "a", "x": 1.0}, {"id": "b", "x": 2.5}]
    assert concatenate([], schema).num_rows == 0


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomic(path, b"old")
    with pytest.raises(TypeError):
        write_atomic(path, "text")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"


def test_only_one_run_writes_at_a_time(tmp_path: Path) -> None:
    with (
        exclusive(tmp_path),
        pytest.raises(StoreBusy, match="another run"),
        exclusive(tmp_path, wait=False),
    ):
        pass
    with exclusive(tmp_path, wait=False):
        pass


def test_store_urls(tmp_path: Path) -> None:
    assert store_root(str(tmp_path)) == tmp_path
    assert local_root(tmp_path.as_uri()) == tmp_path
    assert str(store_root("s3://bucket/x/")) == "s3://bucket/x"
    with pytest.raises(StoreError, match="a training needs a folder, got s3://bucket/x"):
        local_root("s3://bucket/x", "a training")
    with pytest.raises(StoreError, match="expected a folder, a file:// URL or one of s3://"):
        store_root("ftp://bucket/x")
    with pytest.raises(StoreError, match="expected s3://BUCKET/PREFIX"):
        store_root("s3:///x")


def test_a_read_that_fails_in_passing_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    errors = [errno.EIO, errno.ESTALE]
    original = Path.read_bytes

    def faulty(self: Path) -> bytes:
        if self == path and errors:
            raise OSError(errors.pop(), "in passing")
        return original(self)

    monkeypatch.setattr(Path, "read_bytes", faulty)
    assert read_patiently(path) == b"content"
    assert errors == []
    errors += [errno.EACCES]
    with pytest.raises(OSError, match="in passing"):
        read_patiently(path)
    errors += [errno.EIO] * 9
    with pytest.raises(OSError, match="in passing"):
        read_patiently(path)
    assert len(errors) == 5
    with pytest.raises(FileNotFoundError):
        read_patiently(tmp_path / "nothing")


def test_a_write_that_fails_in_passing_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [errno.EIO, errno.EIO]
    original = os.fsync

    def faulty(file: int) -> None:
        if errors:
            raise OSError(errors.pop(), "in passing")
        original(file)

    monkeypatch.setattr(os, "fsync", faulty)
    write_atomic(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"
    errors += [errno.EIO] * 9
    with pytest.raises(StoreFault, match="in passing"):
        write_atomic(tmp_path / "file", b"other")
    errors[:] = [errno.ENOSPC]
    with pytest.raises(StoreError, match="the disk is full"):
        write_atomic(tmp_path / "file", b"other")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"content"


def test_errors_of_writing_tell_what_may_pass(tmp_path: Path) -> None:
    passing = as_store_error(OSError(errno.EIO, "Input/output error"), tmp_path)
    full = as_store_error(OSError(errno.ENOSPC, "No space left on device"), tmp_path)
    assert isinstance(passing, StoreFault)
    assert not isinstance(full, StoreFault)
    assert "the disk is full" in str(full)
