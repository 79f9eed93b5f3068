"""The command audit-resize."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from flows.cli import Exit, app

runner = CliRunner()
ASKED = "--library opencv --algorithm linear --source 1024x1024 --target 224x224"


def invoke(words: str) -> Result:
    return runner.invoke(app, ["audit-resize", *words.split()], catch_exceptions=False)


@pytest.fixture(autouse=True)
def without_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    """The audit needs no library that it audits."""
    monkeypatch.setitem(sys.modules, "cv2", None)


def test_an_audit() -> None:
    result = invoke(ASKED)
    assert result.exit_code == Exit.DONE
    assert not result.stderr
    for words in (
        "opencv linear, 1024x1024 to 224x224",
        "12.0 dB",
        "19.1 %",
        "10.9 %",
        "open",
        "use opencv area (0.0 dB)",
    ):
        assert words in result.stdout


def test_an_audit_as_json() -> None:
    found = json.loads(invoke(f"{ASKED} --json").stdout)
    assert found["hiding_gain"] == pytest.approx(12.0, abs=0.1)
    assert found["considered_fraction"] == pytest.approx((2 * 224 / 1024) ** 2, abs=1e-4)
    assert found["effective_fraction"] < found["considered_fraction"]
    assert found["verdict"] == "open"
    assert found["change"] == {
        "library": "opencv",
        "algorithm": "area",
        "antialias": False,
        "hiding_gain": 0.0,
    }


def test_antialias_and_a_square_in_one_number() -> None:
    words = "--library torch --algorithm cubic --antialias --source 896x448 --target 224 --json"
    found = json.loads(invoke(words).stdout)
    assert (found["source"], found["target"]) == ([896, 448], [224, 224])
    assert found["antialias"]
    assert found["verdict"] == "safe in general"
    assert found["change"] is None


def test_the_table() -> None:
    lines = invoke("--table").stdout.splitlines()
    row = next(line for line in lines if "opencv linear" in line)
    assert row.replace("│", " ").split()[2:] == ["0.0", "6.8", "9.5", "6.0", "12.0"]
    assert any("torch cubic antialiased" in line for line in lines)
    assert any("ratio 2.23" in line for line in lines)


def test_the_table_of_a_library_at_a_size() -> None:
    words = "--table --library torch --source 442x302 --target 112x112 --json"
    found: list[dict[str, Any]] = json.loads(invoke(words).stdout)
    assert {one["library"] for one in found} == {"torch"}
    assert len(found) == 7
    assert all(one["source"] == [442, 302] for one in found)
    assert {one["verdict"] for one in found} == {
        "open",
        "safe for unrelated pairs",
        "safe in general",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "--library: expected opencv | pillow | torch, got nothing"),
        ("--library pillow", "--algorithm: expected nearest | linear | cubic"),
        ("--library cv2 --algorithm x --source 9 --target 3", "--library: expected opencv"),
        ("--library torch --algorithm lanczos --source 9 --target 3", "--algorithm: expected near"),
        (f"{ASKED} --antialias", "--antialias: opencv has no antialiased linear"),
        ("--library torch --algorithm area --source 9", "--target: expected HEIGHTxWIDTH"),
        ("--library torch --algorithm area --source 9x --target 3", "got '9x'"),
        ("--library torch --algorithm area --source 9x0 --target 3", "got '9x0'"),
        ("--library torch --algorithm area --source 99999x9 --target 3", "from 1 to 32768"),
        ("--table --source 9x9", "--target: expected HEIGHTxWIDTH"),
        (
            "--table --library cv2",
            "--table: expected a library and algorithm that exist, got 'cv2'",
        ),
    ],
)
def test_wrong_input_is_one_line(words: str, message: str) -> None:
    result = invoke(words)
    assert result.exit_code == Exit.INPUT
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not result.stdout
