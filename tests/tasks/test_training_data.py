from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from storage.errors import StorageError
from tasks.errors import SpecError
from tasks.specs import DatasetSpec
from tasks.training_data import TrainingData, shuffled
from tests import toy
from tests.tasks import small_training as small

SHAPES = DatasetSpec.model_validate(small.content()["dataset"])
CHUNK_BYTES = 64 * 3 * 32 * 32


def data_of(folder: Path, spec: DatasetSpec = SHAPES) -> TrainingData:
    data = TrainingData(spec, folder, str(folder / "store"), "dataset")
    data.ingest()
    return data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    return data_of(tmp_path_factory.mktemp("data"))


def epoch_of(
    data: TrainingData, epoch: int, *, seed: int = 0, batch: int = 50, window: int = 1 << 30
) -> list[tuple[Tensor, Tensor]]:
    return list(data.batches(epoch, seed=seed, batch=batch, window_bytes=window))


def images_of(batches: list[tuple[Tensor, Tensor]]) -> list[bytes]:
    return [image.numpy().tobytes() for pixels, _ in batches for image in pixels]


@pytest.mark.parametrize("batch", [1, 7, 50, 64, 100, 300])
@pytest.mark.parametrize("window", [1, CHUNK_BYTES, 2 * CHUNK_BYTES + 5, 1 << 30])
def test_every_image_is_visited_once(data: TrainingData, batch: int, window: int) -> None:
    batches = epoch_of(data, 0, batch=batch, window=window)
    images = images_of(batches)
    assert len(batches) == 300 // batch
    assert all(len(pixels) == len(labels) == batch for pixels, labels in batches)
    assert len(set(images)) == len(images) == 300 // batch * batch


def test_labels_stay_with_their_images(data: TrainingData) -> None:
    chunks = [image for i in range(data.chunk_count) for image in data.chunk(i)]
    truth = {image.tobytes(): i % 10 for i, image in enumerate(chunks)}
    for window in (CHUNK_BYTES, 1 << 30):
        for pixels, labels in epoch_of(data, 1, window=window):
            assert labels.tolist() == [truth[image.numpy().tobytes()] for image in pixels]


@pytest.mark.parametrize("window", [2 * CHUNK_BYTES, 1 << 30])
def test_the_order_depends_on_seed_and_epoch_alone(data: TrainingData, window: int) -> None:
    first = images_of(epoch_of(data, 1, window=window))
    assert images_of(epoch_of(data, 1, window=window)) == first
    assert images_of(epoch_of(data, 2, window=window)) != first
    assert images_of(epoch_of(data, 1, seed=1, window=window)) != first


def test_a_data_set_in_the_window_is_permuted_as_a_whole(data: TrainingData) -> None:
    everything = [image.tobytes() for i in range(data.chunk_count) for image in data.chunk(i)]
    order = torch.randperm(300, generator=torch.Generator().manual_seed(5 * 1_000_003 + 2))
    got = images_of(epoch_of(data, 2, seed=5, batch=100))
    assert got == [everything[i] for i in order.tolist()]


def test_windows_bound_the_images_in_memory(
    data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    gather = TrainingData._gather

    def counted(self: TrainingData, chunks: list[int]) -> tuple[Tensor, Tensor]:
        window = gather(self, chunks)
        sizes.append(window[0].numel())
        return window

    monkeypatch.setattr(TrainingData, "_gather", counted)
    epoch_of(data, 0, window=2 * CHUNK_BYTES)
    assert len(sizes) == 3
    assert max(sizes) <= 2 * CHUNK_BYTES
    assert sum(sizes) == 300 * 3 * 32 * 32


def test_images_of_several_chunks_are_mixed_within_a_window(data: TrainingData) -> None:
    home = {
        image.tobytes(): index for index in range(data.chunk_count) for image in data.chunk(index)
    }
    batches = epoch_of(data, 0, window=2 * CHUNK_BYTES)
    chunks = {home[image.numpy().tobytes()] for image in batches[0][0]}
    assert len(chunks) == 2


def test_windows_smaller_than_a_batch() -> None:
    values = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1)
    windows = iter([(values[i : i + 2], torch.arange(i, i + 2)) for i in range(0, 10, 2)])
    got = list(shuffled(windows, torch.Generator().manual_seed(0), 5))
    assert [len(labels) for _, labels in got] == [5, 5]
    assert sorted(torch.cat([labels for _, labels in got]).tolist()) == list(range(10))
    assert all(pixels.flatten().tolist() == labels.tolist() for pixels, labels in got)


@pytest.mark.parametrize("window", [1 << 30, 2 * CHUNK_BYTES])
def test_a_windowed_training_goes_on_to_the_same_bytes(tmp_path: Path, window: int) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = small.finish(small.trainer(tmp_path / "a", window_bytes=window))
    small.trainer(tmp_path / "b", window_bytes=window).advance(2)
    assert small.finish(small.trainer(tmp_path / "b", window_bytes=window)) == whole


def test_chunks_are_shared_with_runs_over_the_same_images(tmp_path: Path) -> None:
    bench = toy.bench(tmp_path)
    state, _ = toy.run(bench)
    data = TrainingData(bench.spec.dataset, tmp_path, str(tmp_path / "store"), "dataset")
    assert data.ingested(), "what a run has decoded is not decoded again"
    assert data.node.fingerprint == state.plan.nodes["ingest"].fingerprint


def test_ingestion_is_noticed_and_damage_repaired(tmp_path: Path) -> None:
    fresh = TrainingData(SHAPES, tmp_path, str(tmp_path / "store"), "dataset")
    assert not fresh.ingested()
    with pytest.raises(SpecError, match="expected to be ingested"):
        _ = fresh.count
    seen: list[tuple[int, int]] = []
    fresh.ingest(lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, 5) for i in range(5)]
    assert fresh.ingested()
    chunk = next(p for p in (tmp_path / "store").rglob("images/*/c/0/0/0/0"))
    chunk.write_bytes(chunk.read_bytes()[:-1])
    again = TrainingData(SHAPES, tmp_path, str(tmp_path / "store"), "dataset")
    assert not again.ingested()
    again.ingest()
    assert again.digest == fresh.digest
    assert again.seconds > 0


def folder_of_images(root: Path, sizes: list[tuple[int, int]], *, broken: int = 0) -> DatasetSpec:
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (root / label).mkdir(parents=True)
        for i, (height, width) in enumerate(sizes):
            pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{i}.png")
    for i in range(broken):
        (root / "cat" / f"broken-{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    return DatasetSpec.model_validate({"kind": "folder", "path": str(root)})


def test_rejected_images_are_counted_and_left_out(tmp_path: Path) -> None:
    data = data_of(tmp_path, folder_of_images(tmp_path / "images", [(8, 8)] * 3, broken=2))
    assert (data.count, data.rejected) == (6, 2)
    assert len(images_of(epoch_of(data, 0, batch=2))) == 6


def test_images_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    spec = folder_of_images(tmp_path / "images", [(8, 8), (8, 9)])
    with pytest.raises(SpecError, match=r"dataset.resize: expected images of one size .* set resi"):
        _ = data_of(tmp_path, spec).shape
    resized = spec.model_copy(update={"resize": (8, 8)})
    assert data_of(tmp_path, resized).shape == (3, 8, 8)


def test_images_without_a_label_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    spec = DatasetSpec.model_validate({"kind": "folder", "path": str(tmp_path)})
    with pytest.raises((SpecError, StorageError), match=r"label|class"):
        _ = data_of(tmp_path, spec).labels
