"""Which files a user's own defence must not see."""

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest

from storage.sources import photos
from tasks.unseen import photographs
from tests import toy


def folder_of(path: Path) -> Path:
    path.mkdir(parents=True)
    PIL.Image.new("RGB", (4, 4)).save(path / "1.png")
    return path


def test_every_data_set_of_a_run_and_its_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean, hidden, fitted = (folder_of(tmp_path / name) for name in ("a", "b", "c"))
    (tmp_path / "linked").symlink_to(clean)
    attacks = [
        {"name": "IFGSM", "targets": {"kind": "folder", "path": str(hidden)}, "label": "one"},
        {"name": "UAP", "fit_dataset": {"kind": "folder", "path": "c"}, "label": "two"},
    ]
    given = {"dataset": {"kind": "folder", "path": "linked"}, "attacks": attacks}
    unseen = toy.bench(tmp_path, **given).unseen.resolved()
    assert unseen.stores == (tmp_path / "store",)
    assert set(unseen.data) == {clean, hidden, fitted, *photographs()}
    monkeypatch.setenv("IMAGE_DEFENDER_DATA", str(tmp_path))
    unseen = toy.bench(tmp_path, dataset={"kind": "cifar10"}, attacks=[]).unseen
    assert {tmp_path / "cifar10", tmp_path / "cifar-10-batches-py"} < set(unseen.data)
    assert toy.bench(tmp_path, attacks=[]).unseen.data == photographs()


def test_the_photographs_of_the_built_in_data_set_are_among_them() -> None:
    assert photos._folder().resolve() in photographs()
