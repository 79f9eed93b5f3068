"""A run whose store is a cloud: the same bytes as in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.report import render
from storage.files import store_root
from storage.objects import ObjectPath
from tasks.outputs import finished, output_findings, write_outputs
from tasks.spec_files import parse_spec
from tasks.survey import Survey, survey
from tasks.workbench import Workbench
from tests import toy
from tests.cloud import TIMED, everything, fresh_url, run_cloud

__all__ = ["run_cloud"]


def run(folder: Path, store: str) -> Survey:
    state, made = toy.run(Workbench(parse_spec(toy.content()), folder, store))
    assert made
    write_outputs(state, render)
    return state


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("local")
    run(folder, str(folder / "store"))
    return everything(folder / "store")


def test_the_bytes_are_those_of_a_folder(
    run_cloud: str, local: dict[str, bytes], tmp_path: Path
) -> None:
    url = fresh_url(run_cloud)
    state = run(tmp_path, url)
    stored = everything(store_root(url))
    assert stored.keys() == local.keys()
    differing = {name for name in stored if stored[name] != local[name]}
    assert differing <= {f"toy/{name}" for name in TIMED}
    assert finished(survey(state.bench))
    assert not list(output_findings(state.bench.store.run("toy")))


def test_what_is_damaged_is_made_again(run_cloud: str, tmp_path: Path) -> None:
    url = fresh_url(run_cloud)
    run(tmp_path, url)
    root = store_root(url)
    assert isinstance(root, ObjectPath)
    before = everything(root)
    images = sorted(name for name in before if "/c/0" in name)
    rows = sorted(name for name in before if name.startswith("data/") and "/rows/" in name)
    (root / images[0]).unlink()
    (root / images[-1]).write_bytes(before[images[-1]][:-1])
    (root / rows[0]).write_bytes(b"")
    state, made = toy.run(Workbench(parse_spec(toy.content()), tmp_path, url))
    assert len(made) == 3
    write_outputs(state, render)
    after = everything(root)
    assert {n for n in before if after[n] != before[n]} <= {f"toy/{name}" for name in TIMED}
