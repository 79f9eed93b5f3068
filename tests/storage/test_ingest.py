from __future__ import annotations

import hashlib
import os
import struct
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest

from storage.decode import DecodeOptions
from storage.errors import DamagedChunk, SourceError
from storage.ingest import (
    CATALOGUE_SCHEMA,
    REJECTED_SCHEMA,
    ROWS_SCHEMA,
    Catalogue,
    catalogue,
    content_digest,
    image_id,
    ingest_chunk,
)
from storage.scores import write_rows
from storage.sources import JSON, Content, Folder, Item, Shapes, Zip
from tests.storage.pictures import bomb, encode, gradient, png


@dataclass(frozen=True)
class Listed:
    """A source with a given list of items, and nothing to read."""

    kind: ClassVar[str] = "listed"
    doc: ClassVar[str] = "items as given"

    listed: tuple[Item, ...]

    def identity(self) -> dict[str, JSON]:
        return {"kind": self.kind}

    def items(self) -> Iterator[Item]:
        return iter(self.listed)

    def read(self, items: Sequence[Item]) -> Iterator[Content]:
        return iter(())

    @property
    def classes(self) -> tuple[str, ...] | None:
        return None


def listed(names: Sequence[str], size: int = 10) -> Listed:
    return Listed(tuple(Item(name, None, f"stamp {name}", size) for name in names))


def layout(found: Catalogue) -> dict[int, str]:
    return {chunk.index: "".join(i.name for i in chunk.items) for chunk in found.chunks()}


def keys(found: Catalogue) -> dict[int, str]:
    return {chunk.index: chunk.key("identity") for chunk in found.chunks()}


def test_chunks_are_closed_by_count() -> None:
    found = catalogue(listed("abcdefg"), chunk_size=3)
    assert layout(found) == {0: "abc", 1: "def", 2: "g"}
    assert len(found) == 7
    assert len(catalogue(listed([str(i) for i in range(600)])).chunks()) == 3


def test_chunks_are_closed_by_bytes() -> None:
    assert layout(catalogue(listed("abcde"), chunk_bytes=25)) == {0: "ab", 1: "cd", 2: "e"}
    assert layout(catalogue(listed("abc"), chunk_bytes=5)) == {0: "a", 1: "b", 2: "c"}
    mixed = Listed(tuple(Item(n, None, "", s) for n, s in zip("abcd", (1, 30, 1, 1), strict=True)))
    assert layout(catalogue(mixed, chunk_bytes=20)) == {0: "a", 1: "b", 2: "cd"}


def test_a_limit_takes_the_first_items() -> None:
    assert layout(catalogue(listed("abcdef"), chunk_size=3, limit=4)) == {0: "abc", 1: "d"}
    whole = catalogue(listed("abcdef"), chunk_size=3)
    limited = catalogue(listed("abcdef"), chunk_size=3, limit=3)
    assert keys(limited)[0] == keys(whole)[0]
    assert layout(catalogue(listed("abc"), limit=0)) == {}
    again = catalogue(listed("abcdef"), limited, chunk_size=3)
    assert again == whole
    assert len(catalogue(Shapes(count=10**12), limit=5)) == 5


@pytest.mark.parametrize("new", ["Z", "c1", "zz"])
def test_one_new_image_costs_one_chunk(new: str) -> None:
    names = ["a", "b", "c", "d", "e", "f", "g"]
    before = catalogue(listed(names), chunk_size=3)
    after = catalogue(listed(sorted([*names, new])), before, chunk_size=3)
    assert layout(after) == {0: "abc", 1: "def", 2: f"g{new}"}
    assert {i for i, key in keys(after).items() if keys(before)[i] != key} == {2}


def test_new_images_fill_the_last_chunk_and_then_new_ones() -> None:
    before = catalogue(listed("bdf"), chunk_size=2)
    after = catalogue(listed("abcdefg"), before, chunk_size=2)
    assert layout(after) == {0: "bd", 1: "fa", 2: "ce", 3: "g"}
    full = catalogue(listed("bd"), chunk_size=2)
    assert layout(catalogue(listed("abd"), full, chunk_size=2)) == {0: "bd", 1: "a"}
    heavy = catalogue(listed("bd"), chunk_bytes=25)
    assert layout(catalogue(listed("abd"), heavy, chunk_bytes=25)) == {0: "bd", 1: "a"}


def test_vanished_images_leave_gaps() -> None:
    before = catalogue(listed("abcdefg"), chunk_size=2)
    after = catalogue(listed("aefgh"), before, chunk_size=2)
    assert layout(after) == {0: "a", 2: "ef", 3: "gh"}
    assert keys(after)[2] == keys(before)[2]
    assert layout(catalogue(listed("x"), before, chunk_size=2)) == {0: "x"}
    assert layout(catalogue(listed(""), before, chunk_size=2)) == {}


def test_a_changed_image_stays_in_its_place() -> None:
    source = listed("abcdef")
    before = catalogue(source, chunk_size=2)
    changed = tuple(
        item._replace(stamp="new", place="moved") if item.name == "c" else item
        for item in source.listed
    )
    after = catalogue(Listed(changed), before, chunk_size=2)
    assert layout(after) == layout(before)
    assert {i for i, key in keys(after).items() if keys(before)[i] != key} == {1}
    assert after.chunks()[1].items[0].place == "moved"


def test_another_chunk_size_starts_afresh() -> None:
    before = catalogue(listed("bcd"), chunk_size=2)
    assert layout(catalogue(listed("abcd"), before, chunk_size=3)) == {0: "abc", 1: "d"}
    assert layout(catalogue(listed("abcd"), before, chunk_size=2, chunk_bytes=99)) == {
        0: "ab",
        1: "cd",
    }


def test_options_are_checked() -> None:
    with pytest.raises(SourceError, match="expected every name once, got 'a' twice"):
        catalogue(listed("aba"))
    with pytest.raises(ValueError, match="chunk_size: expected an integer of at least 1, got 0"):
        catalogue(listed("a"), chunk_size=0)
    with pytest.raises(ValueError, match="chunk_bytes: expected"):
        catalogue(listed("a"), chunk_bytes=0)
    with pytest.raises(ValueError, match="limit: expected an integer of at least 0, got -1"):
        catalogue(listed("a"), limit=-1)


def test_key_covers_all_that_the_images_depend_on() -> None:
    chunk = catalogue(listed("ab")).chunks()[0]
    item = chunk.items[0]
    others = [
        chunk.key("other"),
        chunk.key("identity", DecodeOptions(colour="grey")),
        chunk.key("identity", DecodeOptions(resize=(8, 8))),
        replace(chunk, items=chunk.items[::-1]).key("identity"),
        *(
            replace(chunk, items=(changed, chunk.items[1])).key("identity")
            for changed in (
                item._replace(name="A"),
                item._replace(label=0),
                item._replace(stamp="s"),
            )
        ),
    ]
    assert len({chunk.key("identity"), *others}) == len(others) + 1
    unchanged = replace(chunk, index=7, items=(item._replace(size_hint=1), chunk.items[1]))
    assert unchanged.key("identity") == chunk.key("identity")
    assert len(chunk.key("identity")) == 64


def test_catalogue_in_a_file(tmp_path: Path) -> None:
    items = (Item("ä/1.png", 3, "s", 12, "p#0"), Item("b", None, "", 0), Item("c", 0, "t", 1))
    found = catalogue(Listed(items), chunk_size=2, chunk_bytes=1000)
    found.write(tmp_path / "one.parquet")
    found.write(tmp_path / "two.parquet")
    again = Catalogue.read(tmp_path / "one.parquet")
    assert again == found
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    empty = catalogue(listed(""))
    empty.write(tmp_path / "empty.parquet")
    assert Catalogue.read(tmp_path / "empty.parquet") == empty


def test_what_is_no_catalogue(tmp_path: Path) -> None:
    with pytest.raises(DamagedChunk, match="cannot read"):
        Catalogue.read(tmp_path / "none.parquet")
    write_rows(tmp_path / "other.parquet", pa.table({"name": ["x"]}))
    with pytest.raises(DamagedChunk, match="expected a catalogue"):
        Catalogue.read(tmp_path / "other.parquet")
    write_rows(tmp_path / "bare.parquet", CATALOGUE_SCHEMA.empty_table())
    with pytest.raises(DamagedChunk, match="expected a catalogue"):
        Catalogue.read(tmp_path / "bare.parquet")


def test_images_and_rows_of_a_chunk(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    image = gradient(8, 12)
    files = {
        "a/1.png": encode(image),
        "a/2.jpg": b"text",
        "a/3.png": bomb(60_000, 60_000),
        "a/4.jpg": encode(gradient(64, 64), "JPEG")[:-300],
        "a/5.png": encode(gradient(5, 4, 1)),
        "a/6.png": encode(image),
        "a/7.png": b"",
        "top.png": png(),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    source = Folder(tmp_path)
    chunk = catalogue(source).chunks()[0]
    found = ingest_chunk(source, chunk.items)
    assert found.rows.schema == ROWS_SCHEMA
    assert found.rejected.schema == REJECTED_SCHEMA
    rows = found.rows.to_pylist()
    assert [row["name"] for row in rows] == ["a/1.png", "a/5.png", "a/6.png", "top.png"]
    assert [row["label"] for row in rows] == [0, 0, 0, None]
    shapes = [(row["channels"], row["height"], row["width"]) for row in rows]
    assert (
        shapes
        == [picture.shape for picture in found.images]
        == [
            (3, 8, 12),
            (3, 5, 4),
            (3, 8, 12),
            (3, 8, 12),
        ]
    )
    reasons = {row["name"]: row["reason"] for row in found.rejected.to_pylist()}
    assert list(reasons) == ["a/2.jpg", "a/3.png", "a/4.jpg", "a/7.png"]
    assert [text.split()[1] for text in reasons.values()] == ["not", "too", "truncated:", "empty:"]
    # duplicates are allowed: same content, another name, another id
    assert rows[0]["sha256"] == rows[2]["sha256"]
    assert len({row["id"] for row in rows}) == 4
    digest = hashlib.sha256(struct.pack("<3I", 3, 8, 12) + image.transpose(2, 0, 1).tobytes())
    assert rows[0]["sha256"] == digest.hexdigest()
    identifier = hashlib.sha256(b"a/1.png\0" + digest.hexdigest().encode()).hexdigest()[:16]
    assert rows[0]["id"] == identifier == image_id("a/1.png", digest.hexdigest())


def test_digest_tells_shapes_apart() -> None:
    flat = np.arange(24, dtype=np.uint8)
    digests = {content_digest(flat.reshape(shape)) for shape in [(1, 4, 6), (1, 6, 4), (3, 2, 4)]}
    assert len(digests) == 3
    strided = gradient().transpose(2, 0, 1)
    assert content_digest(strided) == content_digest(np.ascontiguousarray(strided))


def test_decode_options_reach_the_images() -> None:
    source = Shapes(count=3)
    options = DecodeOptions(colour="grey", resize=(10, 20))
    found = ingest_chunk(source, list(source.items()), options)
    assert {picture.shape for picture in found.images} == {(1, 10, 20)}
    small = ingest_chunk(source, list(source.items()), DecodeOptions(max_pixels=1000))
    assert (small.images, small.rows.num_rows, small.rejected.num_rows) == ([], 0, 3)


def test_ingestion_does_not_depend_on_the_chunks(tmp_path: Path) -> None:
    source = Shapes(count=20)
    tables = []
    for size in (3, 20):
        parts = catalogue(source, chunk_size=size).chunks()
        tables.append(pa.concat_tables(ingest_chunk(source, p.items).rows for p in parts))
    assert tables[0].equals(tables[1])


def test_a_source_that_ends_early() -> None:
    source = listed("ab")
    with pytest.raises(SourceError, match="expected the content of a, got the end"):
        ingest_chunk(source, source.listed)


def test_errors_of_items_are_rejections(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    source = Folder(tmp_path)
    items = list(source.items())
    (tmp_path / "a.png").unlink()
    found = ingest_chunk(source, items)
    assert found.images == []
    assert found.rejected.to_pylist() == [
        {"name": "a.png", "reason": "cannot be read: No such file or directory"}
    ]


def test_an_image_added_to_a_folder(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{number:02d}.png").write_bytes(png(number))
        os.utime(tmp_path / f"{number:02d}.png", ns=(0, 0))
    source = Folder(tmp_path)
    before = catalogue(source, chunk_size=4)
    before.write(tmp_path / "catalogue.json")  # a sidecar, so no item
    assert catalogue(source, before, chunk_size=4) == before
    (tmp_path / "03b.png").write_bytes(png(99))
    after = catalogue(source, Catalogue.read(tmp_path / "catalogue.json"), chunk_size=4)
    changed = [i for i, key in keys(after).items() if keys(before)[i] != key]
    assert changed == [2]
    assert [item.name for item in after.chunks()[2].items] == ["08.png", "09.png", "03b.png"]


def test_kinds_with_the_same_files_give_the_same_images(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as stream:
        for number in range(3):
            (tmp_path / f"set/{number}.png").write_bytes(png(number))
            stream.writestr(f"{number}.png", png(number))
    folder, packed = Folder(tmp_path / "set"), Zip(tmp_path / "set.zip")
    one = ingest_chunk(folder, list(folder.items()))
    two = ingest_chunk(packed, list(packed.items()))
    assert one.rows.equals(two.rows)
