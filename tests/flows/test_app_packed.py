"""What the executable cannot do ends with a sentence that is right there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.app.packed import as_packed, is_packed
from flows.cli import Exit, app

RUNNER = CliRunner()


def told(*words: str) -> str:
    """What the command says before it ends, in one line."""
    done = RUNNER.invoke(app, ["app", "--no-open", *words])
    assert done.exit_code == Exit.INPUT, done.output
    (line,) = done.output.strip().splitlines()
    return line


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)


@pytest.mark.parametrize("url", ["s3://bucket/prefix", "gs://bucket", "az://bucket/x"])
@pytest.mark.usefixtures("packed")
def test_stores_in_a_cloud(url: str, tmp_path: Path) -> None:
    line = told("--store", url, "--data", str(tmp_path))
    assert line.startswith("error: --store: the executable opens stores in folders only, got ")
    assert url in line
    assert "pip" not in line


@pytest.mark.usefixtures("packed")
def test_a_window_in_the_executable(tmp_path: Path) -> None:
    line = told("--window", "--data", str(tmp_path))
    assert line.startswith("error: --window: the executable opens in the browser only")
    assert "pip" not in line


def test_a_window_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "webview" else find(name)
    )
    line = told("--window", "--data", str(tmp_path))
    assert line.endswith("the package pywebview: pip install 'image-defender[window]'")


def test_messages_in_the_executable(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "prior: x needs the package diffusers: none; pip install 'image-defender[diffusion]'"
    assert not is_packed()
    assert as_packed(said) == said
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    expected = "prior: x needs the package diffusers: none; the executable comes without it"
    assert as_packed(said) == expected
    piq = "piq is not installed: pip install piq"
    assert as_packed(piq) == "piq is not installed; the executable comes without it"
    assert as_packed("epsilon: expected a number") == "epsilon: expected a number"
