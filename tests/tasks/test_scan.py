"""Rules, thresholds and rows of a scan, without the engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from defender.metrics.rates import conformal_threshold
from defender.scaling import Pipeline
from flows.scan_page import render
from storage.scores import read_rows
from tasks.columns import Columns
from tasks.decision import Decision, Rule, calibrate, calibrated_detectors, matched
from tasks.errors import SpecError
from tasks.outputs import finished
from tasks.scan import (
    made_from,
    scan_table,
    suspects_of,
    usable_columns,
    write_calibration,
    write_scan,
)
from tasks.scan_specs import ScanRequest, parse_request, usable
from tasks.specs import DetectorSpec
from tasks.survey import Survey
from tasks.suspects import PICTURED, histograms, pictured
from tasks.thresholds import Threshold, read_thresholds, write_thresholds
from tasks.workbench import Workbench
from tests import toy
from tests.tasks import scanned_images

DETECTORS = [{"name": "PeakSpectrum"}, {"name": "DecamouflageScaling"}]
LABELS = ["PeakSpectrum", "DecamouflageScaling"]


def request(path: Path, **changes: Any) -> ScanRequest:
    pipeline = {"library": "torch", "algorithm": "linear", "target": "12x12"}
    return parse_request({"path": path, "pipeline": pipeline, **changes}, "scan")


def run(asked: ScanRequest, store: Path, prefix: str = "scan") -> Survey:
    bench = Workbench(asked.spec(prefix, DETECTORS), asked.folder.parent, str(store))
    bench.check()
    state, _ = toy.run(bench)
    return state


def threshold(label: str, value: float | None, fpr: float = 0.01, **more: Any) -> Threshold:
    return Threshold(label, f"{label}()", 1, value, fpr, 100, "*", "digest", **more)


def decision(rule: str, *thresholds: Threshold) -> Decision:
    by_label = {one.label: one for one in thresholds}
    return Decision(Rule.of(rule, list(by_label)), by_label)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scan")
    scanned_images.benign(folder / "benign")
    scanned_images.mixed(folder / "mixed")
    return folder


@pytest.fixture(scope="module")
def calibrated(store: Path) -> tuple[Survey, list[Threshold]]:
    state = run(request(store / "benign"), store / "store", "calibration")
    write_calibration(state, "any", 0.06)
    return state, read_thresholds(store / "store/calibration-benign/thresholds.json")


@pytest.fixture(scope="module")
def scanned(store: Path, calibrated: tuple[Survey, list[Threshold]]) -> tuple[Survey, Decision]:
    return run(request(store / "mixed"), store / "store"), decision("any", *calibrated[1])


def test_rules() -> None:
    labels = ["A", "B", "C", "D"]
    assert Rule.of("any", labels) == Rule("any", ("A", "B", "C", "D"), 1)
    assert Rule.of("majority", labels).least == 3
    assert Rule.of("b", labels) == Rule("B", ("B",), 1)
    with pytest.raises(SpecError, match="--rule: expected one of any, majority, A, B, C, D"):
        Rule.of("E", labels)


def test_expected_rates_by_hand() -> None:
    apart = [threshold(label, 1.0, fpr) for label, fpr in (("A", 0.01), ("B", 0.02), ("C", 0.06))]
    assert decision("any", *apart).expected == pytest.approx(0.09)
    assert decision("majority", *apart).expected == pytest.approx(0.045)
    assert decision("C", *apart).expected == pytest.approx(0.06)
    assert decision("any", apart[0], threshold("Z", None, 0.5)).expected == pytest.approx(0.01)
    assert decision("any", threshold("A", 1.0, 0.7), threshold("B", 1.0, 0.7)).expected == 1.0


def test_a_rate_that_was_set_together_holds_for_fewer_detectors_and_stricter_rules() -> None:
    jointly = {"joint": 0.05, "least": 2}
    three = [threshold(label, 1.0, 0.04, **jointly) for label in "ABC"]
    assert decision("majority", *three).expected == pytest.approx(0.05)
    assert decision("majority", *three[:2]).expected == pytest.approx(0.04)
    assert decision("any", *three).expected == pytest.approx(0.12)
    other = replace(three[0], label="D", joint=None)
    assert decision("majority", *three, other).expected == pytest.approx(0.16 / 3)


def test_a_decision_needs_thresholds() -> None:
    decision("any", threshold("A", None), threshold("B", 1.0)).check("file")
    for rule in ("A", "majority"):
        with pytest.raises(SpecError, match=r"file: expected thresholds to decide by.* A"):
            decision(rule, threshold("A", None), threshold("B", 1.0)).check("file")


def test_one_that_decides_takes_the_rate_and_the_others_keep_theirs() -> None:
    rng = np.random.default_rng(0)
    scores = {label: rng.normal(size=200) for label in LABELS}
    pipeline = scanned_images.PIPELINE
    bench = [(DetectorSpec(name=name), _Detector(name, pipeline)) for name in LABELS]
    rule = Rule.of("PeakSpectrum", LABELS)
    made = calibrate(scores, bench, rule, 0.02, "digest", [[1, 1], [2, 2]])
    for one in made:
        assert one.value == conformal_threshold(scores[one.label], 0.02)
        assert (one.fpr, one.joint, one.images, one.pattern) == (0.02, None, 200, "*")


class _Detector:
    version = 3

    def __init__(self, name: str, pipeline: Pipeline) -> None:
        self.text = f"{name}(pipeline={pipeline!r})"

    def __repr__(self) -> str:
        return self.text


def test_thresholds_keep_their_provenance(
    store: Path, calibrated: tuple[Survey, list[Threshold]]
) -> None:
    state, made = calibrated
    columns = Columns(state)
    flagged = np.zeros(40, dtype=bool)
    for one, spec in zip(made, DETECTORS, strict=True):
        scores = columns.column(f"detect/none/{one.label}", "score")
        flagged |= scores > one.value
        assert one.settings == spec
        assert (one.images, one.pattern, one.joint, one.least) == (40, "*", 0.06, 1)
        assert one.sizes == [[48, 48], [48, 48]]
        assert "torch linear 12x12" in one.detector
    assert flagged.mean() <= 0.06
    rows = read_rows(store / "store/calibration-benign/scores.parquet")
    assert rows.schema.names[-2:] == [f"score_{label}" for label in LABELS]
    assert rows.num_rows == 40


def test_too_few_benign_images_say_what_would_do(store: Path) -> None:
    state = run(request(store / "benign"), store / "store", "calibration")
    with pytest.raises(SpecError, match=r"or more for a rate of 0.01 .* got 40; .*--fpr"):
        write_calibration(state, "any", 0.01)
    with pytest.raises(SpecError, match=r"expected 99 benign images or more for a rate of 0.01, "):
        write_calibration(state, "PeakSpectrum", 0.01)


def test_the_rate_that_is_offered_is_one_that_works(store: Path) -> None:
    state = run(request(store / "benign"), store / "store", "calibration")
    with pytest.raises(SpecError) as raised:
        write_calibration(state, "any", 0.01)
    offered = float(
        str(raised.value).partition("a rate of 0.01")[2].split("rate of ")[1].split()[0]
    )
    write_calibration(state, "any", offered)
    with pytest.raises(SpecError):
        write_calibration(state, "any", offered - 0.002)
    write_calibration(state, "any", 0.06)


def test_suspects_are_those_that_were_attacked(scanned: tuple[Survey, Decision]) -> None:
    table = scan_table(Columns(scanned[0]), scanned[1])
    assert sorted(suspects_of(table)["name"].to_pylist()) == scanned_images.ATTACKED
    assert suspects_of(table)["rank"].to_pylist() == [1, 2, 3]
    assert sorted(table["rank"].to_pylist()) == list(range(1, 16))
    assert all(table["calibrated"].to_pylist())


def test_rows_are_scores_flags_and_an_order(scanned: tuple[Survey, Decision]) -> None:
    columns = Columns(scanned[0])
    first, second = (columns.column(f"detect/none/{label}", "score") for label in LABELS)
    limits = [threshold("PeakSpectrum", float(np.sort(first)[-5])), threshold(LABELS[1], None)]
    table = scan_table(columns, decision("any", *limits))
    assert table.schema.names == [
        *("id", "name", "height", "width"),
        *(f"score_{label}" for label in LABELS),
        *(f"flag_{label}" for label in LABELS),
        *("count", "suspect", "calibrated", "rank"),
    ]
    assert table[f"score_{LABELS[1]}"].to_numpy().tolist() == second.tolist()
    assert table["flag_PeakSpectrum"].to_pylist() == (first > np.sort(first)[-5]).tolist()
    assert not any(table[f"flag_{LABELS[1]}"].to_pylist())
    assert table["suspect"].to_pylist() == table["flag_PeakSpectrum"].to_pylist()
    alone = scan_table(columns, decision(LABELS[0], *limits))
    by_rank = np.argsort(alone["rank"].to_numpy())
    assert (np.diff(first[by_rank]) <= 0).all()


def test_images_of_other_sizes_are_told_apart(scanned: tuple[Survey, Decision]) -> None:
    columns = Columns(scanned[0])
    limits = [replace(one, sizes=[[49, 20], [90, 90]]) for one in scanned[1].thresholds.values()]
    assert not any(scan_table(columns, decision("any", *limits))["calibrated"].to_pylist())
    limits = [replace(one, sizes=None) for one in limits]
    assert all(scan_table(columns, decision("any", *limits))["calibrated"].to_pylist())


def test_pictures_are_the_image_and_what_the_model_gets(scanned: tuple[Survey, Decision]) -> None:
    state, made = scanned
    table = scan_table(Columns(state), made)
    shown = pictured(state, table, made)
    assert [one.rank for one in shown] == [1, 2, 3]
    for one in shown:
        assert [(p.width, p.height, p.crisp) for p in one.pictures] == [
            (48, 48, True),
            (12, 12, True),
        ]
        assert all(one.name in picture.alt for picture in one.pictures)
        assert [score.label for score in one.scores] == LABELS
        assert all(score.flagged == (score.value > score.threshold) for score in one.scores)
    assert len(pictured(state, table, made, count=2)) == 2
    assert PICTURED == 200


def test_the_page_counts_suspects_that_it_does_not_show(
    scanned: tuple[Survey, Decision], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, made = scanned
    monkeypatch.setattr("flows.scan_page.pictured", lambda *given: pictured(*given, count=1))
    write_scan(state, made, render)
    page = (state.bench.store.run(state.bench.spec.name) / "scan.html").read_text()
    assert "and 2 more, listed in suspects.csv" in page
    assert page.count("<article") == 1


def test_a_score_at_the_threshold_is_not_drawn_beyond_it() -> None:
    table = pa.table({"score_A": [0.0] * 5 + [1.0] * 3 + [2.0] * 2})
    drawn = histograms(table, decision("any", threshold("A", 1.0)))["A"]
    assert [bar.beyond for bar in drawn.bars] == [False, False, True]
    assert [round(bar.height, 6) for bar in drawn.bars] == [20.0, 12.0, 8.0]
    assert drawn.line is not None
    assert drawn.bars[1].place < drawn.line <= drawn.bars[2].place
    constant = histograms(pa.table({"score_A": [3.0, 3.0]}), decision("any", threshold("A", None)))
    assert len(constant["A"].bars) == 1
    assert constant["A"].line is None
    nothing = histograms(pa.table({"score_A": [np.nan]}), decision("any", threshold("A", 1.0)))
    assert nothing["A"].bars == []


def test_outputs_are_written_anew_where_the_decision_changes(
    scanned: tuple[Survey, Decision],
) -> None:
    state, made = scanned
    write_scan(state, made, lambda *_: "page")
    assert finished(state, made_from(**made.identity))
    other = decision("PeakSpectrum", *made.thresholds.values())
    assert not finished(state, made_from(**other.identity))
    assert not finished(state)


def test_a_folder_without_a_usable_image_names_the_first_reason(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.png").write_bytes(b"no")
    state = run(request(tmp_path / "bad"), tmp_path / "store")
    rejected = pa.table({"name": ["a.png"], "reason": ["no image"]})
    with pytest.raises(SpecError, match=r"none of 1 files can be used; a\.png: no image"):
        usable_columns(state, rejected)


def test_detectors_that_fit_need_neither_model_nor_original() -> None:
    fit = usable(scanned_images.PIPELINE)
    assert "GradientMask" not in fit
    assert {"PeakSpectrum", "DecamouflageFiltering", "CleanFilter"} <= set(fit)


def test_detectors_by_name(store: Path) -> None:
    asked = request(store / "mixed", detectors=["peak-spectrum", "PeakSpectrum"])
    assert asked.named_detectors() == [{"name": "PeakSpectrum"}]
    assert len(request(store / "mixed").named_detectors()) == len(usable(scanned_images.PIPELINE))
    with pytest.raises(SpecError, match=r"--detector: .*got 'GradientMask'"):
        request(store / "mixed", detectors=["GradientMask"]).named_detectors()


def test_a_detector_with_parameters_comes_back_from_its_thresholds(tmp_path: Path) -> None:
    pipeline = scanned_images.PIPELINE
    settings = {"name": "PeakSpectrum", "radius": 3}
    text = f"PeakSpectrum(pipeline={pipeline!r}, radius=3)"
    stated = Threshold("peaks", text, 1, 70.0, 0.01, 100, "*", "digest", settings)
    write_thresholds(tmp_path / "t.json", [stated, threshold("GradientMask", 1.0)])
    thresholds = read_thresholds(tmp_path / "t.json")
    for names in (["peaks"], ["PeakSpectrum"]):
        entries = calibrated_detectors(thresholds, names)
        assert entries == [{**settings, "label": "peaks"}]
        assert matched(thresholds, entries, pipeline, tmp_path) == {"peaks": stated}
    with pytest.raises(SpecError, match=r"expected one that was calibrated: peaks, GradientMask"):
        calibrated_detectors(thresholds, ["CleanFilter"])
    with pytest.raises(SpecError, match=r"GradientMask works on a model.*--detector"):
        matched(thresholds, calibrated_detectors(thresholds, []), pipeline, tmp_path)


@pytest.mark.parametrize(
    ("changes", "pipeline"),
    [
        ({}, Pipeline("torch", "linear", target=(16, 16))),
        ({}, Pipeline("torch", "cubic", target=(12, 12))),
        ({"version": 2}, scanned_images.PIPELINE),
        ({"settings": {"name": "PeakSpectrum", "radius": 4}}, scanned_images.PIPELINE),
    ],
)
def test_thresholds_of_another_detector_are_refused(
    changes: dict[str, Any], pipeline: Pipeline
) -> None:
    text = f"PeakSpectrum(pipeline={scanned_images.PIPELINE!r}, radius=5)"
    stated = replace(threshold("PeakSpectrum", 1.0), detector=text, **changes)
    entries = calibrated_detectors([stated], [])
    with pytest.raises(SpecError, match=r"was calibrated as PeakSpectrum\(.*; this scan has "):
        matched([stated], entries, pipeline, Path("t.json"))


def test_names_of_runs_come_from_folders(tmp_path: Path) -> None:
    folder = tmp_path / "röntgen bilder (neu)"
    folder.mkdir()
    assert request(folder).run_name("scan") == "scan-r-ntgen-bilder-neu"
    assert request(folder, name="mine").run_name("scan") == "mine"
    assert request(folder, benign=tmp_path).calibration().name == "scan-r-ntgen-bilder-neu-benign"
    assert request(folder).spec("scan", DETECTORS).dataset.kind == "folder"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "--thresholds FILE.* --benign FOLDER"),
        ({"thresholds": "t.json", "benign": "b"}, "got both"),
        ({"thresholds": "t.json", "fpr": 0.1}, "--fpr is for --benign"),
    ],
)
def test_where_thresholds_come_from_has_to_be_said(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpecError, match=words):
        request(tmp_path, **changes).check_source()


def test_images_are_not_calibrated_on_themselves(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="expected other images than those that are scanned"):
        request(tmp_path, benign=tmp_path / "." / ".." / tmp_path.name).check_source()


@pytest.mark.parametrize("target", ["224", "0x3", "axb"])
def test_a_target_that_is_no_size(tmp_path: Path, target: str) -> None:
    pipeline = {"library": "torch", "target": target}
    with pytest.raises(SpecError, match="target"):
        parse_request({"path": tmp_path, "pipeline": pipeline}, "scan")
