from __future__ import annotations

from pathlib import Path

import pytest

from storage.errors import DatasetNotFound
from storage.sources import paths
from storage.sources.paths import data_folder, places, resolve


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("specs", "data", "shared/data", "here", "other/project", "other/shared/data"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(paths, "_PROJECT", tmp_path / "other/project")
    return tmp_path


@pytest.mark.parametrize(
    "order",
    [["specs", "data", "shared/data", "other/shared/data", "here"]],
)
def test_order_of_the_places(layout: Path, order: list[str]) -> None:
    environment = {"IMAGE_DEFENDER_DATA": str(layout / "data")}
    wanted = [layout / folder / "set" for folder in order]
    assert places("set", layout / "specs", environment) == wanted
    for place in reversed(wanted):
        place.mkdir()
        assert resolve("set", layout / "specs", environment) == place


def test_absolute_paths_are_taken_as_they_are(layout: Path) -> None:
    assert places(layout / "data", layout / "specs", {}) == [layout / "data"]
    assert resolve(layout / "data", None, {}) == layout / "data"
    with pytest.raises(DatasetNotFound, match="/nowhere/at/all"):
        resolve("/nowhere/at/all", None, {})


def test_home_is_expanded(layout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(layout))
    assert resolve("~/data", None, {}) == layout / "data"


def test_every_place_is_named_where_nothing_is_found(layout: Path) -> None:
    environment = {"IMAGE_DEFENDER_DATA": str(layout / "data")}
    with pytest.raises(DatasetNotFound) as caught:
        resolve("missing", layout / "specs", environment)
    for place in places("missing", layout / "specs", environment):
        assert str(place) in str(caught.value)
    assert "IMAGE_DEFENDER_DATA" not in str(caught.value)
    with pytest.raises(DatasetNotFound, match="IMAGE_DEFENDER_DATA can name a folder"):
        resolve("missing", layout / "specs", {})


def test_folder_of_downloads(layout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(layout))
    assert data_folder({"IMAGE_DEFENDER_DATA": "~/data"}) == layout / "data"
    assert data_folder({}) == layout / ".cache/image-defender"
