"""`image-defender score-defense`: a user's file against every attack, in figures and failures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner, Result

from flows.cli import Exit, app

IDENTITY = """
class Defense:
    def apply_defense(self, images):
        return images
"""
HALF = """
class Defense:
    def apply_defense(self, images):
        return (images[:, :, ::2, ::2] + images[:, :, 1::2, 1::2]) / 2
"""
NANS = """
class Defense:
    def apply_defense(self, images):
        return images * float("nan")
"""
STATEFUL = """
class Defense:
    calls = 0
    def apply_defense(self, images):
        self.calls += 1
        return images * (0.5 if self.calls > 1 else 1.0)
"""
METRIC = "python:tests.tasks.test_quality_runs:make_metric"
runner = CliRunner()


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "iqa.yaml"
    content = {
        "name": "iqa",
        "dataset": {"kind": "builtin:shapes", "count": 24, "chunk_size": 12},
        "metric": METRIC,
        "attacks": [
            {"name": "IFGSM", "label": "ifgsm", "epsilon": "8/255", "steps": 3},
            {"name": "AdvCF", "label": "adv-cf", "step_size": 0.01, "steps": 3},
        ],
        "compute": {"workers": 1, "device": "cpu"},
    }
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store") / "store"


def invoke(folder: Path, source: str, spec: Path, store: Path, *words: object) -> Result:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.py").write_text(source)
    given = ["score-defense", folder / "mine.py", "--spec", spec, "--store", store, *words]
    return runner.invoke(app, [str(word) for word in given], catch_exceptions=False)


def scored(folder: Path, source: str, spec: Path, store: Path, *words: object) -> dict[str, Any]:
    result = invoke(folder, source, spec, store, "--json", *words)
    assert result.exit_code == Exit.DONE, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_doing_nothing_costs_nothing_and_helps_nothing(
    tmp_path: Path, spec: Path, store: Path
) -> None:
    found = scored(tmp_path, IDENTITY, spec, store)
    assert list(found)[:4] == ["attacks", "mean", "baseline", "difference"]
    assert set(found["attacks"]) == {"clean", "ifgsm", "adv-cf"}
    clean = found["attacks"]["clean"]
    assert clean == {"gain": 0.0, "quality": 1.0, "srcc": pytest.approx(1.0), "status": "ok"}
    for name in ("ifgsm", "adv-cf"):
        row = found["attacks"][name]
        assert row["status"] == "ok"
        assert row["gain"] > 0
        assert row["quality"] < 1
    attacks = [found["attacks"][name] for name in ("ifgsm", "adv-cf")]
    for measure in ("gain", "quality", "srcc"):
        mean = np.mean([row[measure] for row in attacks])
        assert found["mean"][measure] == pytest.approx(mean, rel=1e-9)
        less = found["mean"][measure] - found["baseline"][measure]
        assert found["difference"][measure] == pytest.approx(less, abs=1e-9)
    low, high = found["mean"]["gain_interval"]
    assert low < found["mean"]["gain"] < high
    about = found["defense"]
    assert about["parameters"] == 0
    assert about["notes"] == []
    assert about["seconds_per_image"] > 0
    assert set(about["enforcement"]) >= {"network", "files", "memory", "processes", "time"}
    assert Path(found["report"]).is_file()


def test_one_that_fails_leaves_the_baseline_and_says_why(
    tmp_path: Path, spec: Path, store: Path
) -> None:
    fine = scored(tmp_path / "fine", HALF, spec, store)
    found = scored(tmp_path / "nan", NANS, spec, store)
    for row in found["attacks"].values():
        assert row["gain"] is row["quality"] is row["srcc"] is None
        assert row["status"].startswith("failed on 24 of 24 images: ")
        assert "nan" in row["status"].lower()
    assert found["mean"]["gain"] is None
    assert found["difference"]["gain"] is None
    assert found["baseline"] == fine["baseline"]
    shown = invoke(tmp_path / "nan", NANS, spec, store)
    assert shown.exit_code == Exit.DONE
    assert "no means: the defence failed" in shown.stdout


def test_what_keeps_state_between_batches_is_noted(tmp_path: Path, spec: Path, store: Path) -> None:
    notes = scored(tmp_path, STATEFUL, spec, store)["defense"]["notes"]
    assert any("the same batch again" in note for note in notes)


def test_a_baseline_of_ones_own_and_a_limit(tmp_path: Path, spec: Path, store: Path) -> None:
    found = scored(tmp_path, HALF, spec, store, "--baseline", "jpeg(50)", "--limit", 12)
    assert found["baseline"]["name"] == "jpeg(50)"
    assert found["dataset"]["images"] == 12
    assert found["difference"]["gain"] is not None


def test_images_that_were_attacked_already(tmp_path: Path, spec: Path, store: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("clean", "zhang-ssim", "korhonen"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for i in range(5):
        coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        clean = np.asarray(Image.fromarray(coarse).resize((24, 24), Image.Resampling.BICUBIC))
        for name, shift in (("clean", 0), ("zhang-ssim", 6), ("korhonen", 3)):
            changed = np.clip(clean.astype(int) + shift, 0, 255).astype(np.uint8)
            Image.fromarray(changed).save(tmp_path / "data" / name / f"{i}.png")
    found = scored(tmp_path, HALF, spec, store, "--dataset", tmp_path / "data")
    assert set(found["attacks"]) == {"clean", "zhang-ssim", "korhonen"}
    assert found["dataset"]["kind"] == "paired"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("class Other: pass", ["mine.py", "class Defense"]),
        ("def broken(:", ["mine.py"]),
        ("class Defense: pass", ["mine.py", "apply_defense"]),
    ],
)
def test_a_file_that_holds_no_defence_is_one_line(
    tmp_path: Path, spec: Path, store: Path, source: str, words: list[str]
) -> None:
    result = invoke(tmp_path, source, spec, store)
    assert result.exit_code == Exit.INPUT
    (line,) = result.stderr.strip().splitlines()
    assert all(word in line for word in words), line


def test_other_wrong_input(tmp_path: Path, spec: Path, store: Path) -> None:
    given = ["score-defense", str(tmp_path / "absent.py"), "--spec", str(spec)]
    result = runner.invoke(app, given, catch_exceptions=False)
    assert result.exit_code == Exit.INPUT
    assert "absent.py" in result.stderr
    result = invoke(tmp_path, HALF, spec, store, "--dataset", tmp_path / "nowhere")
    assert result.exit_code == Exit.INPUT
    assert "nowhere" in result.stderr
