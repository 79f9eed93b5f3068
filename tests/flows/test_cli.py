from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from prefect.logging.configuration import setup_logging
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from flows.cli import Exit, app
from tests import toy

runner = CliRunner()


@pytest.fixture(scope="module", autouse=True)
def _prefect_logs() -> None:
    """Prefect's handlers keep the stream that they are made with: not one that a runner closes."""
    setup_logging()


def invoke(*words: object) -> Result:
    return runner.invoke(app, [str(word) for word in words], catch_exceptions=False)


def one_line(result: Result, code: Exit, *words: str) -> None:
    assert result.exit_code == code, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attacks": [{"name": "IFGMS"}]}, ["attacks[0].name", "did you mean IFGSM?"]),
        ({"attacks": [{"name": "IFGSM", "epsilon": -1}]}, ["attacks[0].epsilon", "got -1"]),
        ({"atacks": []}, ["atacks: unknown field (did you mean attacks?)"]),
        ({"dataset": {"kind": "folder", "path": "not/here"}}, ["not/here"]),
        ({"model": {"name": "cifar-rasnet"}}, ["model.name", "cifar-rasnet"]),
        ({"model": {"name": "shapes-cnn", "weights": "w.pt"}}, ["model.weights", "w.pt"]),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(
    tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    spec = toy.write_spec(tmp_path, **changes)
    one_line(invoke("run", spec, "--store", tmp_path / "store"), Exit.INPUT, *words)
    assert not list((tmp_path / "store").glob("data/*/marks/*"))
    assert not (tmp_path / "store/toy").exists()


def test_weights_with_wrong_shapes_are_named(tmp_path: Path) -> None:
    state = toy.make_model().state_dict()
    state["head.weight"] = torch.zeros(3, 3)
    save_file(state, tmp_path / "w.safetensors")
    spec = toy.write_spec(tmp_path, model={"name": "shapes-cnn", "weights": "w.safetensors"})
    result = invoke("run", spec, "--store", tmp_path / "store")
    one_line(result, Exit.INPUT, "head.weight: expected shape (10, 32), got (3, 3)")


def test_a_missing_spec(tmp_path: Path) -> None:
    one_line(invoke("run", tmp_path / "none.yaml"), Exit.INPUT, "none.yaml", "found none")


def test_another_scheme_of_store(tmp_path: Path) -> None:
    spec = toy.write_spec(tmp_path)
    one_line(invoke("run", spec, "--store", "gopher://x/y"), Exit.STORE, "gopher://x/y")


def test_a_store_that_is_a_file(tmp_path: Path) -> None:
    spec = toy.write_spec(tmp_path)
    (tmp_path / "store").write_text("a file")
    one_line(invoke("run", spec, "--store", tmp_path / "store"), Exit.STORE, "cannot write")


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A file system of four mebibytes; needs the right to mount."""
    folder = tmp_path / "small"
    folder.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small file system: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_read_only_store(tmp_path: Path, mounted: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    spec = toy.write_spec(tmp_path)
    result = invoke("run", spec, "--store", mounted / "store")
    one_line(result, Exit.STORE, "cannot write", "read-only")


def test_a_full_disk(tmp_path: Path, mounted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = {"kind": "builtin:shapes", "count": 2000, "chunk_size": 500}
    spec = toy.write_spec(tmp_path, dataset=dataset)
    result = invoke("run", spec, "--store", mounted / "store")
    one_line(result, Exit.BUDGET, "disk: the run would write about")
    filler = mounted / "filler"
    monkeypatch.setattr("flows.evaluate.check_budget", lambda bench, state: None)
    small = toy.write_spec(tmp_path, dataset={"kind": "builtin:shapes", "count": 80})
    filler.write_bytes(bytes(3700 << 10))
    result = invoke("run", small, "--store", mounted / "store")
    one_line(result, Exit.STORE, "cannot write", "the disk is full")
    filler.unlink()
    assert invoke("run", small, "--store", mounted / "store").exit_code == Exit.DONE
    assert invoke("verify", small, "--store", mounted / "store").exit_code == Exit.DONE


def test_too_little_memory(tmp_path: Path) -> None:
    spec = toy.write_spec(tmp_path, compute={"memory": 1 << 20, "batch": 8})
    result = invoke("run", spec, "--store", tmp_path / "store")
    one_line(result, Exit.BUDGET, "memory: the", "lower compute.batch")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("finished")
    spec = toy.write_spec(folder)
    result = invoke("run", spec, "--store", folder / "store")
    assert result.exit_code == Exit.DONE, result.output
    return spec, folder / "store"


@pytest.fixture
def own(finished: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """A finished run of the test's own to damage."""
    shutil.copytree(finished[1], tmp_path / "store")
    return finished[0], tmp_path / "store"


def test_outputs_and_summary_rows(finished: tuple[Path, Path]) -> None:
    folder = finished[1] / "toy"
    names = {p.name for p in folder.iterdir()}
    assert {"summary.json", "report.html", "rejected.parquet", "scores", "stages.json"} <= names
    summary = json.loads((folder / "summary.json").read_text())
    columns = (
        "model attack threat through detector policy purifier knowledge draws metric value "
        "ci_low ci_high n"
    )
    assert all(list(row) == columns.split() for row in summary["rows"])
    seen = {(row["attack"] == "none", row["purifier"], row["knowledge"]) for row in summary["rows"]}
    assert (True, "none", "none") in seen
    assert (True, "median", "blind") in seen
    assert (False, "reference", "reference") in seen
    for row in summary["rows"]:
        if row["value"] is not None and row["ci_low"] is not None:
            assert row["ci_low"] <= row["value"] <= row["ci_high"]
    assert (folder / "report.html").read_text().startswith("<!doctype html>")


def test_status(finished: tuple[Path, Path], tmp_path: Path) -> None:
    done = invoke("status", finished[0], "--store", finished[1], "--json")
    assert done.exit_code == Exit.DONE
    state = json.loads(done.stdout)
    assert state["done"] == state["total"] == sum(s["done"] for s in state["stages"])
    empty = invoke("status", finished[0], "--store", tmp_path / "other", "--json")
    assert empty.exit_code == Exit.UNFINISHED
    assert json.loads(empty.stdout)["done"] == 0
    assert "ingest" in invoke("status", finished[0], "--store", finished[1]).stdout


@pytest.mark.parametrize("what", ["images", "rows", "marks", "scores", "report"])
def test_verify_names_damage_and_repair_mends_just_that(own: tuple[Path, Path], what: str) -> None:
    spec, store = own
    patterns = {
        "images": "data/*/images/*/c/0/0/0/0",
        "rows": "data/*/rows/*.parquet",
        "marks": "data/*/marks/*.json",
        "scores": "toy/scores/*.parquet",
        "report": "toy/report.html",
    }
    victim = sorted(store.glob(patterns[what]))[0]
    whole = victim.read_bytes()
    victim.write_bytes(whole[:30] + bytes([whole[30] ^ 1]) + whole[31:])
    result = invoke("verify", spec, "--store", store)
    assert result.exit_code == Exit.DAMAGE
    assert str(victim.relative_to(store)) in result.stdout
    repaired = invoke("verify", spec, "--store", store, "--repair", "--json")
    assert repaired.exit_code == Exit.DONE, repaired.output
    expected = 1 if what in ("images", "rows", "marks") else 0
    assert json.loads(repaired.stdout)["repaired"] == expected
    if what != "marks":
        assert victim.read_bytes() == whole
    assert invoke("verify", spec, "--store", store).exit_code == Exit.DONE


def test_a_deleted_chunk_and_a_deleted_mark_are_named(own: tuple[Path, Path]) -> None:
    spec, store = own
    chunk = sorted(store.glob("data/*/images/*/c/0/0/0/0"))[-1]
    chunk.unlink()
    mark = sorted(store.glob("data/*/marks/*.json"))[0]
    mark.unlink()
    result = invoke("verify", spec, "--store", store)
    assert result.exit_code == Exit.DAMAGE
    assert str(chunk.relative_to(store)) in result.stdout
    assert str(mark.relative_to(store)) in result.stdout


def test_report_is_written_anew(own: tuple[Path, Path]) -> None:
    spec, store = own
    before = (store / "toy/report.html").read_bytes()
    (store / "toy/report.html").unlink()
    result = invoke("report", spec, "--store", store)
    assert result.exit_code == Exit.DONE
    assert Path(result.stdout.strip()) == store / "toy/report.html"
    assert (store / "toy/report.html").read_bytes() == before


def test_a_report_of_an_unfinished_run(finished: tuple[Path, Path], tmp_path: Path) -> None:
    result = invoke("report", finished[0], "--store", tmp_path / "other")
    one_line(result, Exit.INPUT, "expected a finished run")


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("datasets", "builtin:shapes"),
        ("models", "cifar-resnet"),
        ("quality-metrics", "linearity-small"),
        ("encoders", "iresnet100"),
        ("priors", "prior-cifar10"),
        ("attacks", "IFGSM"),
        ("detectors", "GradientMask"),
        ("purifiers", "SeparateCorrectCombine"),
        ("metrics", "psnr"),
    ],
)
def test_lists(what: str, name: str) -> None:
    assert name in invoke("list", what).stdout
    listed = json.loads(invoke("list", what, "--json").stdout)
    entry = next(entry for entry in listed if entry["name"] == name)
    assert entry["doc"]
    if what in ("attacks", "detectors", "purifiers"):
        assert entry["paper"]
        assert all(p["doc"] and p["range"] for p in entry["parameters"])


def test_an_unknown_list() -> None:
    one_line(invoke("list", "atacks"), Exit.INPUT, "expected one of datasets")
