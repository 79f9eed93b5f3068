"""The commands ``scan`` and ``calibrate`` over folders of images."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from flows.cli import Exit
from flows.scan_page import chance, rule_in_words, short, verdict
from storage.scores import read_rows
from tests.flows.page import Page
from tests.flows.test_cli import invoke, one_line
from tests.flows.test_report import check
from tests.tasks import scanned_images

ROOT = Path(__file__).resolve().parents[2]
RESIZE = ["--library", "torch", "--algorithm", "linear", "--target", "12x12"]
TWO = ["--detector", "PeakSpectrum", "--detector", "DecamouflageScaling"]
OUTPUTS = {
    *("scan.parquet", "suspects.csv", "rejected.parquet", "scan.html", "scan.json"),
    *("thresholds.json", "stages.json", "run.json"),
}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def suspects(folder: Path) -> list[dict[str, str]]:
    with (folder / "suspects.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scan")
    scanned_images.benign(root / "benign")
    scanned_images.mixed(root / "mixed")
    return root


def words(folder: Path, store: Path, *more: object) -> list[object]:
    given = ["scan", folder / "mixed", *RESIZE, *TWO, "--store", store]
    return [*given, "--benign", folder / "benign", "--fpr", 0.06, *more]


@pytest.fixture(scope="module")
def finished(folder: Path) -> tuple[dict[str, Any], Path]:
    """A scan, what it printed as JSON, and its store."""
    result = invoke(*words(folder, folder / "store", "--json"))
    assert result.exit_code == Exit.DONE, result.output
    return json.loads(result.stdout), folder / "store"


def test_suspects_are_the_attacked_images_worst_first(
    finished: tuple[dict[str, Any], Path],
) -> None:
    printed, store = finished
    rows = suspects(store / "scan-mixed")
    assert sorted(row["name"] for row in rows) == scanned_images.ATTACKED
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert list(rows[0]) == [
        *("rank", "name", "height", "width", "count"),
        *("score_PeakSpectrum", "score_DecamouflageScaling"),
        *("flag_PeakSpectrum", "flag_DecamouflageScaling"),
        *("calibrated", "id"),
    ]
    assert all((row["height"], row["width"]) == ("48", "48") for row in rows)
    assert (printed["images"], printed["suspects"], printed["rejected"]) == (15, 3, 1)
    assert printed["expected_rate"] <= 0.06
    assert printed["expected_by_chance"] == pytest.approx(15 * printed["expected_rate"])
    assert {path.name for path in (store / "scan-mixed").iterdir()} == OUTPUTS


def test_every_image_is_a_row_and_every_other_file_has_a_reason(
    finished: tuple[dict[str, Any], Path],
) -> None:
    folder = finished[1] / "scan-mixed"
    table = read_rows(folder / "scan.parquet")
    assert table.num_rows == 15
    listed = read_rows(folder / "rejected.parquet").to_pylist()
    assert [row["name"] for row in listed] == ["x/bad<img>.png"]
    assert listed[0]["reason"]
    limits = json.loads((folder / "thresholds.json").read_text())["thresholds"]
    for one in limits:
        scores = table[f"score_{one['label']}"].to_pylist()
        flags = table[f"flag_{one['label']}"].to_pylist()
        assert flags == [score > one["value"] for score in scores]


def test_the_page_shows_each_suspect_as_it_is_and_as_the_model_gets_it(
    finished: tuple[dict[str, Any], Path],
) -> None:
    text = (finished[1] / "scan-mixed/scan.html").read_text()
    page = Page(text)
    check(page, text)
    assert "3 of 15 images are suspect." in page.text("verdict")
    assert "bad<img>.png" in page.text()
    shown = page.all("img")
    assert [picture["width"] for picture in shown] == ["48", "12"] * 3
    assert all(picture["class"] == "crisp" for picture in shown)
    for name in scanned_images.ATTACKED:
        assert name in page.text("suspect")
        assert any(f"as the model gets it of {name}" == picture["alt"] for picture in shown)
    assert "b&b/00.png" not in page.text("suspect")


def test_a_second_scan_computes_nothing_and_keeps_every_byte(
    folder: Path, finished: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(finished[1] / "scan-mixed")
    monkeypatch.setattr("flows.embedded.start", lambda: pytest.fail("the engine was started"))
    result = invoke(*words(folder, finished[1], "--json"))
    printed = json.loads(result.stdout)
    assert printed == {**finished[0], "chunk_tasks": 0, "seconds": {}}
    assert contents(finished[1] / "scan-mixed") == before
    told = invoke(*words(folder, finished[1]))
    assert "3 of 15 images are suspect" in told.stdout
    assert f"0 of {printed['chunks']} chunks were computed now" in told.stdout
    assert "suspects.csv" in told.stdout


def test_suspects_are_an_error_only_where_that_is_asked_for(
    folder: Path, finished: tuple[dict[str, Any], Path]
) -> None:
    asked = words(folder, finished[1], "--fail-on-suspects")
    assert invoke(*asked).exit_code == Exit.DAMAGE


def test_a_new_image_costs_one_chunk_of_each_stage(
    folder: Path, finished: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    shutil.copytree(finished[1], tmp_path / "store")
    shutil.copytree(folder / "mixed", tmp_path / "mixed")
    shutil.copytree(folder / "benign", tmp_path / "benign")
    scanned_images.save(scanned_images.fields(1, 9), tmp_path / "mixed", ["new.png"])
    first = invoke(*words(tmp_path, tmp_path / "store", "--json"))
    scanned_images.save(scanned_images.fields(1, 10), tmp_path / "mixed", ["newer.png"])
    second = json.loads(invoke(*words(tmp_path, tmp_path / "store", "--json")).stdout)
    assert json.loads(first.stdout)["images"] == 16
    assert second["images"] == 17
    assert second["chunk_tasks"] == second["chunks"] // 2


def test_calibrated_thresholds_can_be_kept_and_given(
    folder: Path, finished: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    kept = tmp_path / "kept.json"
    resize = [*RESIZE, "--store", finished[1]]
    made = invoke(
        "calibrate", folder / "benign", *resize, *TWO, "--fpr", "0.06", "--out", kept, "--json"
    )
    assert made.exit_code == Exit.DONE, made.output
    printed = json.loads(made.stdout)
    assert (printed["chunk_tasks"], printed["images"], printed["fpr"]) == (0, 40, 0.06)
    assert list(printed["thresholds"]) == ["PeakSpectrum", "DecamouflageScaling"]
    told = invoke("calibrate", folder / "benign", *resize, *TWO, "--fpr", "0.06")
    assert "2 detectors calibrated on 40 images" in told.stdout

    result = invoke("scan", folder / "mixed", *resize, "--thresholds", kept, "--name", "given")
    assert result.exit_code == Exit.DONE, result.output
    before, after = (finished[1] / name for name in ("scan-mixed", "given"))
    assert (after / "suspects.csv").read_bytes() == (before / "suspects.csv").read_bytes()
    one = ["--detector", "decamouflage-scaling", "--rule", "DecamouflageScaling", "--name", "one"]
    result = invoke("scan", folder / "mixed", *resize, "--thresholds", kept, *one, "--json")
    assert json.loads(result.stdout)["deciding"] == ["DecamouflageScaling"]
    assert json.loads(result.stdout)["expected_rate"] < 0.06


def test_thresholds_of_a_run_serve_with_the_rates_they_were_set_for(
    folder: Path, finished: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    spec = {
        "name": "benign",
        "dataset": {"kind": "folder", "path": str(folder / "benign")},
        "pipeline": {"library": "torch", "algorithm": "linear", "target": "12x12"},
        "detectors": [
            {"name": "PeakSpectrum", "radius": 3, "fpr": 0.1, "label": "peaks"},
            {"name": "DecamouflageScaling", "fpr": 0.12},
        ],
        "metrics": [],
    }
    (tmp_path / "run.yaml").write_text(json.dumps(spec))
    store = ["--store", finished[1]]
    assert invoke("run", tmp_path / "run.yaml", *store).exit_code == Exit.DONE
    kept = finished[1] / "benign/thresholds.json"
    asked = ["scan", folder / "mixed", *RESIZE, *store, "--thresholds", kept, "--name", "by-run"]
    result = invoke(*asked, "--json")
    assert result.exit_code == Exit.DONE, result.output
    printed = json.loads(result.stdout)
    assert printed["expected_rate"] == pytest.approx(0.22)
    assert [one["label"] for one in printed["detectors"]] == ["peaks", "DecamouflageScaling"]
    assert "radius=3" in printed["detectors"][0]["detector"]
    assert set(scanned_images.ATTACKED) <= {row["name"] for row in suspects(finished[1] / "by-run")}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--target", "16x16"], "this scan has PeakSpectrum(pipeline=torch linear 16x16"),
        (["--algorithm", "cubic"], "this scan has PeakSpectrum(pipeline=torch cubic 12x12"),
        (["--detector", "CleanFilter"], "one that was calibrated: PeakSpectrum, Decamouf"),
        (["--rule", "most"], "--rule: expected one of any, majority, PeakSpectrum"),
        (["--fpr", "0.5"], "--fpr is for --benign"),
    ],
)
def test_thresholds_that_do_not_fit_are_refused(
    folder: Path, finished: tuple[dict[str, Any], Path], given: list[str], message: str
) -> None:
    kept = finished[1] / "scan-mixed/thresholds.json"
    asked = ["scan", folder / "mixed", *RESIZE, "--store", finished[1], "--thresholds", kept]
    one_line(invoke(*asked, "--name", "refused", *given), Exit.INPUT, message)
    assert not (finished[1] / "refused").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "expected --thresholds FILE"),
        (["--thresholds", "nowhere.json"], "expected a file of thresholds, found none"),
        (["--benign", "nowhere"], "expected a dataset 'nowhere'"),
        (["--benign", "BENIGN", "--detector", "GradientMask"], "--detector: expected one of"),
        (["--benign", "BENIGN", "--fpr", "0.01"], "expected 99 benign images or more"),
        (["--benign", "BENIGN", "--fpr", "1"], "fpr: "),
        (["--benign", "BENIGN", "--library", "cv"], "pipeline.library"),
        (["--benign", "BENIGN", "--target", "12"], "--target: expected height x width"),
        (["--benign", "BENIGN", "--name", "data"], "name: "),
    ],
)
def test_wrong_input_is_one_line(
    folder: Path, tmp_path: Path, given: list[str], message: str
) -> None:
    given = [str(folder / "benign") if word == "BENIGN" else word for word in given]
    asked = ["scan", folder / "mixed", *RESIZE, "--store", tmp_path / "store", *given]
    one_line(invoke(*asked), Exit.INPUT, message)
    assert not list((tmp_path / "store").glob("data/*/marks/*"))


def test_a_folder_of_clean_images_in_a_zip(
    folder: Path, finished: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for path in sorted((folder / "mixed").rglob("*.png")):
            archive.write(path, path.relative_to(folder / "mixed").as_posix())
    kept = finished[1] / "scan-mixed/thresholds.json"
    result = invoke(
        *("scan", tmp_path / "images.zip", *RESIZE, "--store", tmp_path / "store"),
        *("--thresholds", kept, "--include", "b&b/*", "--fail-on-suspects"),
    )
    assert result.exit_code == Exit.DONE, result.output
    assert "None of 12 images is suspect." in result.stdout
    assert suspects(tmp_path / "store/scan-images") == []
    text = (tmp_path / "store/scan-images/scan.html").read_text()
    page = Page(text)
    check(page, text)
    assert page.all("img") == []
    assert "No image was flagged" in page.text()


def test_a_scan_that_was_killed_goes_on_and_ends_the_same(
    folder: Path, finished: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    command = [str(word) for word in words(folder, tmp_path / "store", "--json")]
    for moment in (
        ["storage.ledger:Ledger.write", "5", "before"],
        ["tasks.scan:write_json", "2", "after"],
    ):
        killed = subprocess.run(
            [sys.executable, "-m", "tests.flows.killed", *moment, "--", *command],
            cwd=ROOT,
            env={**os.environ, "PYTHONWARNINGS": "default"},
            capture_output=True,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    printed = json.loads(invoke(*command).stdout)
    assert printed["chunk_tasks"] < printed["chunks"]
    ended, whole = (contents(store / "scan-mixed") for store in (tmp_path / "store", finished[1]))
    assert ended == whole


def test_words() -> None:
    summary = {"images": 1200, "suspects": 1, "expected_rate": 0.0123, "expected_by_chance": 14.8}
    assert verdict(summary) == "1 of 1\u202f200 images is suspect."
    assert chance(summary) == (
        "Had no image been attacked, 1.23 % of them at most, about 15 here, would be flagged "
        "by chance."
    )
    assert "fewer than one here" in chance({**summary, "expected_by_chance": 0.4})
    several = {"deciding": ["A", "B", "C"], "least": 1}
    assert rule_in_words(several) == "any of 3 detectors flags it"
    assert rule_in_words({**several, "least": 2}) == "2 or more of 3 detectors flag it"
    assert rule_in_words({**several, "deciding": ["A"]}) == "A flags it"
    assert [short(value) for value in (None, 0.012345, 25307.06, -3.0)] == [
        *("none", "0.01235", "25\u202f307", "-3"),
    ]
