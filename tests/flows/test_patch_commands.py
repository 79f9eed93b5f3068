"""The commands that print patches and paste them on pictures."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from flows.cli import Exit, app
from tasks import printing_pdf

runner = CliRunner()


def invoke(*words: object) -> Result:
    return runner.invoke(app, [str(word) for word in words], catch_exceptions=False)


def one_line(result: Result, code: Exit, *words: str) -> None:
    assert result.exit_code == code, result.output
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    path = tmp_path / "theta.safetensors"
    theta = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(7))
    save_file({"values": theta}, path)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(1)
    for name in ("a.png", "b.png"):
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / name)
    return folder


def test_print_as_pdf(tmp_path: Path, artefact: Path) -> None:
    pypdf = pytest.importorskip("pypdf")
    out = tmp_path / "new/patch.pdf"
    result = invoke("print-patch", artefact, "--size-cm", "10", "--out", out)
    assert result.exit_code == 0, result.output
    first, second = result.stdout.strip().splitlines()
    assert "100.00 x 100.00 mm, 4 x 4 cells of 25 mm, 1 on 1 page(s), a4" in first
    assert "print at 100 %" in second
    assert float(pypdf.PdfReader(out).pages[0].mediabox.width) == pytest.approx(595.276, abs=1e-3)


def test_print_again_replaces(tmp_path: Path, artefact: Path) -> None:
    pypdf = pytest.importorskip("pypdf")
    out = tmp_path / "patch.pdf"
    invoke("print-patch", artefact, "--size-cm", "10", "--out", out)
    result = invoke(
        "print-patch", artefact, "--size-cm", 2, "--out", out, "--page", "fit", "--no-chart",
        *("--copies", 3, "--json"),
    )  # fmt: skip
    facts = json.loads(result.stdout)
    assert (facts["size_mm"], facts["pages"], facts["colours"]) == (20, 3, 0)
    assert len(pypdf.PdfReader(out).pages) == 3
    assert [path.name for path in tmp_path.iterdir() if "patch" in path.name] == ["patch.pdf"]


def test_print_as_png(tmp_path: Path, artefact: Path) -> None:
    out = tmp_path / "patch.png"
    words = ("--size-cm", 5, "--out", out, "--dpi", 100)
    result = invoke("print-patch", artefact, *words)
    assert "50.00 x 50.00 mm" in result.stdout
    assert "(49 pixels at 99.57 dpi)" in result.stdout
    with Image.open(out) as image:
        assert image.size == (196, 196)
    assert invoke("print-patch", artefact, *words, "--marks").exit_code == 0
    with Image.open(out) as image:
        # 7 mm of paper on each side are 27.4 pixels
        assert image.size == (196 + 2 * 27, 196 + 2 * 27)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--size-cm", "40"], ["--size-cm: expected at most 18.2 cm on a4, or --page fit"]),
        (["--size-cm", "-1"], ["--size-cm: expected a number above 0"]),
        (["--size-cm", "5", "--page", "a0"], ["--page: expected a4, letter or fit, got 'a0'"]),
    ],
)
def test_prints_that_are_refused(
    tmp_path: Path, artefact: Path, words: list[str], expected: list[str]
) -> None:
    out = tmp_path / "patch.pdf"
    one_line(invoke("print-patch", artefact, "--out", out, *words), Exit.INPUT, *expected)
    assert not out.exists()


def test_what_is_no_patch_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "uap.safetensors"
    save_file({"values": torch.full((3, 8, 8), -0.02)}, path)
    for words in (("print-patch", path, "--size-cm", 5), ("apply-patch", path, tmp_path)):
        result = invoke(*words, "--out", tmp_path / "x.pdf")
        one_line(result, Exit.INPUT, str(path), "expected values in [0, 1], got -0.02 to -0.02")
    result = invoke("print-patch", tmp_path / "none", "--size-cm", 5, "--out", tmp_path / "x.pdf")
    one_line(result, Exit.INPUT, "artefact: expected a file")


def test_without_reportlab_it_is_said_how_to_get_it(
    tmp_path: Path, artefact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = importlib.import_module

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("reportlab"):
            raise ModuleNotFoundError("No module named 'reportlab'")
        return whole(name, *rest)

    monkeypatch.setattr(printing_pdf.importlib, "import_module", without)
    words = ("print-patch", artefact, "--size-cm", 5, "--out")
    one_line(
        invoke(*words, tmp_path / "x.pdf"),
        Exit.INPUT,
        "No module named 'reportlab'; pip install 'image-defender[print]'",
    )
    assert invoke(*words, tmp_path / "x.png").exit_code == 0


def test_paste_and_paste_again(tmp_path: Path, artefact: Path, pictures: Path) -> None:
    words = ("apply-patch", artefact, pictures, "--out", tmp_path / "out", "--size", 0.25)
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    assert "2 images patched now, 0 were there already" in result.stdout
    assert result.stderr == ""
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "a.png",
        "b.png",
        "boxes.csv",
        "patch.json",
        "rejected.csv",
    ]
    assert "0 images patched now, 2 were there already" in invoke(*words).stdout
    found = json.loads(invoke(*words, "--place", "centre", "--json").stdout)
    assert (found["images"], found["pasted"], found["reasons"]) == (2, 2, {})


def test_pictures_that_cannot_be_used_are_told(
    tmp_path: Path, artefact: Path, pictures: Path
) -> None:
    (pictures / "c.png").write_bytes(b"nothing")
    result = invoke("apply-patch", artefact, *sorted(pictures.iterdir()), "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert "1 could not be used, see rejected.csv" in result.stderr
    assert "c.png is not an image" in result.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--place", "nowhere"], "--place: expected"),
        (["--size", "0"], "--size: expected"),
        (["--out", "pictures/out"], "--out: expected a folder that is not among the pictures"),
    ],
)
def test_pastings_that_are_refused(
    tmp_path: Path,
    artefact: Path,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("apply-patch", artefact, pictures, "--out", "out", *words)
    one_line(result, Exit.INPUT, expected)
    assert sorted(path.name for path in pictures.iterdir()) == ["a.png", "b.png"]
