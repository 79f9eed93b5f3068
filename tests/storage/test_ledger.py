from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from storage.errors import DamagedChunk, StorageError
from storage.images import content_digest, read_images, write_images
from storage.ledger import Ledger, Mark

INPUTS = {"images": "abc"}


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "stage"
    folder.mkdir(parents=True)
    return folder


def make_chunk(folder: Path, key: str = "chunk", *, value: int = 7) -> Mark:
    images = [np.full((3, 4, 5), value, np.uint8) for _ in range(6)]
    written = write_images(folder / "images" / key, images)
    files = {f"images/{key}/{name}": one.sha256 for name, one in written.items()}
    mark = Mark(key, INPUTS, files, content_digest([str(i) for i in range(6)], images), 6)
    Ledger(folder).write(mark)
    return mark


def chunk_file(folder: Path, key: str = "chunk") -> Path:
    return folder / "images" / key / "c/0/0/0/0"


def test_a_written_chunk_is_vouched_for(stage: Path) -> None:
    mark = make_chunk(stage)
    assert Ledger(stage).vouches("chunk", INPUTS) == mark
    assert Ledger(stage).keys() == ["chunk"]
    assert Ledger(stage).findings("stage", "chunk") == []


def test_other_inputs_are_not_vouched_for(stage: Path) -> None:
    make_chunk(stage)
    assert Ledger(stage).vouches("chunk", {"images": "other"}) is None


def test_data_without_a_mark_is_not_done(stage: Path) -> None:
    make_chunk(stage)
    Ledger(stage).path("chunk").unlink()
    assert Ledger(stage).vouches("chunk", INPUTS) is None


def test_an_all_zero_chunk_is_written(stage: Path) -> None:
    make_chunk(stage, value=0)
    assert chunk_file(stage).is_file()
    assert Ledger(stage).vouches("chunk", INPUTS) is not None


@pytest.mark.parametrize("damage", ["delete", "flip", "cut", "grow"])
def test_any_change_of_a_chunk_is_found(stage: Path, damage: str) -> None:
    make_chunk(stage)
    path = chunk_file(stage)
    data = bytearray(path.read_bytes())
    if damage == "delete":
        path.unlink()
    elif damage == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "cut":
        path.write_bytes(data[:-1])
    else:
        path.write_bytes(data + b"x")
    ledger = Ledger(stage)
    assert ledger.vouches("chunk", INPUTS) is None
    found = ledger.findings("stage", "chunk")
    assert [f.path for f in found] == ["images/chunk/c/0/0/0/0"]
    assert found[0].problem == ("missing" if damage == "delete" else "digest differs")


def test_every_flipped_byte_of_a_mark_is_found(stage: Path) -> None:
    make_chunk(stage)
    ledger = Ledger(stage)
    path = ledger.path("chunk")
    whole = path.read_bytes()
    for position in range(len(whole)):
        data = bytearray(whole)
        data[position] ^= 1
        path.write_bytes(data)
        mark = ledger.read("chunk")
        assert mark is None or mark == Mark.from_bytes(whole)
    path.write_bytes(whole.replace(b'"images": 6', b'"images": 5'))
    assert ledger.read("chunk") is None
    assert ledger.findings("stage", "chunk")[0].problem == "the mark itself is damaged"


def test_a_mark_is_refused_before_its_data(stage: Path) -> None:
    with pytest.raises(StorageError, match="before its mark"):
        Ledger(stage).write(Mark("k", {}, {"images/k/c": "0"}, "c", 1))


def test_withdrawing_removes_mark_and_data(stage: Path) -> None:
    make_chunk(stage)
    (stage / "marks" / ".chunk.json.0123.tmp").write_text("half")
    Ledger(stage).withdraw("chunk")
    assert [p for p in stage.rglob("*") if p.is_file()] == []


def test_a_mark_holds_no_more_than_json(stage: Path) -> None:
    mark = make_chunk(stage)
    assert json.loads(mark.to_bytes())["content"] == mark.content
    assert Mark.from_bytes(b"[]") is None
    assert Mark.from_bytes(b"{}") is None
    assert Mark.from_bytes(b"\xff") is None


def test_reading_a_damaged_chunk_raises(stage: Path) -> None:
    make_chunk(stage)
    path = chunk_file(stage)
    data = bytearray(path.read_bytes())
    data[-6] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(DamagedChunk):
        read_images(stage / "images/chunk")


def test_a_missing_chunk_is_an_error_and_not_zeros(stage: Path) -> None:
    make_chunk(stage)
    chunk_file(stage).unlink()
    with pytest.raises(DamagedChunk, match="got nothing"):
        read_images(stage / "images/chunk")
