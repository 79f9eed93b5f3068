from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from storage.ingest import catalogue, ingest_chunk
from storage.sources import Cifar10, Folder, Parquet, Source, Zip

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def data() -> Path:
    beside = Path(__file__).resolve().parents[2].parent / "shared/data"
    return Path(os.environ.get("IMAGE_DEFENDER_DATA") or beside)


def present(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"no real data at {path}")
    return path


def ingest(source: Source) -> tuple[pa.Table, pa.Table, list[tuple[int, ...]]]:
    rows, rejected, shapes = [], [], []
    for chunk in catalogue(source).chunks():
        found = ingest_chunk(source, chunk.items)
        rows.append(found.rows)
        rejected.append(found.rejected)
        shapes += [image.shape for image in found.images]
    return pa.concat_tables(rows), pa.concat_tables(rejected), shapes


def test_cifar10_in_the_stated_time(data: Path) -> None:
    source = Cifar10(present(data / "cifar10"))
    start = time.process_time()
    listed = catalogue(source)
    listing = time.process_time() - start
    assert len(listed) == 10_000
    assert [item.name for _, item in listed.entries[:1]] == ["test/truck/0770.jpg"]
    start = time.process_time()
    rows, rejected, shapes = ingest(source)
    seconds = time.process_time() - start
    assert rows.num_rows == 10_000
    assert rejected.num_rows == 0
    assert set(shapes) == {(3, 32, 32)}
    counts = pc.value_counts(rows["label"]).to_pylist()
    assert sorted((row["values"], row["counts"]) for row in counts) == [
        (label, 1000) for label in range(10)
    ]
    for name, label in zip(rows["name"].to_pylist(), rows["label"].to_pylist(), strict=True):
        assert source.classes[label] == name.split("/")[1]
    assert listing < 1, "catalogue of 10,000 images"
    assert seconds < 5, "ingestion of 10,000 images"


def test_cifar10_as_plain_parquet(data: Path) -> None:
    path = present(data / "cifar10/test-00000-of-00001.parquet")
    chunk = catalogue(Parquet(path)).chunks()[3]
    one = ingest_chunk(Parquet(path), chunk.items)
    two = ingest_chunk(Cifar10(path), chunk.items)
    assert one.rows.equals(two.rows)
    assert all(np.array_equal(a, b) for a, b in zip(one.images, two.images, strict=True))


def test_cifar10_train(data: Path) -> None:
    assert len(catalogue(Cifar10(present(data / "cifar10"), split="train"))) == 50_000


def test_chest_xrays(data: Path) -> None:
    source = Zip(present(data / "chest_xray.zip"), prefix="chest_xray/test")
    rows, rejected, shapes = ingest(source)
    assert source.classes == ("NORMAL", "PNEUMONIA")
    assert rows.num_rows == 624
    assert rejected.num_rows == 0
    assert set(shapes) == {(3, 224, 224)}
    assert pc.sum(rows["label"]).as_py() == 390


def test_photographs_with_a_labels_file(data: Path) -> None:
    path = present(data / "imagenet_samples.zip")
    source = Zip(path, prefix="imagenet_samples", labels_csv="labels.csv")
    listed = catalogue(source, limit=40)
    assert source.classes is not None
    assert (source.classes[0], source.classes[2]) == ("tench", "great_white_shark")
    found = ingest_chunk(source, listed.chunks()[0].items)
    assert found.rejected.num_rows == 0
    assert found.rows["label"].to_pylist() == list(range(0, 80, 2))
    for image, (_, item) in zip(found.images, listed.entries, strict=True):
        assert item.size_hint in (image.size, image.size // 3)
    assert len(catalogue(source).chunks()) > 2  # bounded by bytes, not by count


def test_grey_faces(data: Path) -> None:
    source = Zip(present(data / "att_faces.zip"), prefix="att_faces")
    assert source.classes is not None
    assert len(source.classes) == 20
    _, rejected, shapes = ingest(source)
    assert rejected.num_rows == 0
    assert set(shapes) == {(3, 112, 92)}


def test_folder_without_labels(data: Path) -> None:
    source = Folder(present(data / "chest_xray_442x302"))
    rows, rejected, _ = ingest(source)
    assert (rows.num_rows, rejected.num_rows) == (16, 0)
    assert source.classes is None
    assert rows["label"].null_count == 16
