"""What scans, trainings and purified folders leave on a dashboard, and limits of scans."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import flows.deployed
import flows.purify
import flows.scan
import flows.train
from flows.cli import Exit
from flows.evaluate import Outcome, Prepared
from tasks.errors import RequirementError
from tests import toy
from tests.flows.test_cli import invoke, one_line
from tests.tasks import scanned_images

RESIZE = {"target": "12x12", "library": "torch", "detectors": ["PeakSpectrum"], "fpr": 0.06}
WORDS = ["--target", "12x12", "--library", "torch", "--detector", "PeakSpectrum", "--fpr", 0.06]


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Artifacts of a flow run by their keys, in place of a server that keeps them."""
    made: dict[str, Any] = {}

    def keep(key: str, **given: Any) -> str:
        made[key] = given
        return key

    for kind in ("table", "link", "markdown", "progress"):
        name = f"create_{kind}_artifact"
        for module in ("prefect.artifacts", "flows.artifacts", "flows.train", "flows.purify"):
            monkeypatch.setattr(f"{module}.{name}", keep, raising=False)
    monkeypatch.setattr(flows.scan, "in_flow_run", lambda: True)
    return made


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scans are computed without the engine."""

    def scan(spec: str, store: str) -> Outcome:
        ready, write = flows.scan._prepared.pop((spec, store))
        state, made = toy.run(ready.bench)
        content = write(state)
        flows.scan._publish(Prepared(spec, ready.folder, store, ready.bench, state))
        folder = ready.bench.store.run(ready.bench.spec.name)
        return Outcome(folder, len(made), state.total, {}, content)

    monkeypatch.setattr(flows.scan, "scan", scan)
    monkeypatch.setattr(Prepared, "start", lambda ready: None)


@pytest.mark.usefixtures("direct")
def test_a_scan_keeps_limits_and_publishes_what_it_has_each_time(
    tmp_path: Path, left: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr("flows.gates.notify", told.append)
    scanned_images.benign(tmp_path / "benign")
    scanned_images.mixed(tmp_path / "mixed")
    where = {name: str(tmp_path / name) for name in ("benign", "store")}
    given = {"path": str(tmp_path / "mixed"), **where, **RESIZE}
    scan = flows.deployed.scan.fn
    outcome = scan(**given, max_suspects=3, max_share=0.2, max_drift=0)
    assert (outcome.summary["suspects"], outcome.summary["images"]) == (3, 15)
    assert outcome.missed == ()
    kept = {"scan-mixed-report", "scan-mixed-suspects", "scan-mixed-rejected"}
    assert kept <= set(left)
    table = left["scan-mixed-requirements"]["table"]
    assert [line["met"] for line in table] == ["yes"] * 3
    left.clear()

    with pytest.raises(RequirementError) as caught:
        scan(**given, max_suspects=2, max_share=0.1)
    assert caught.value.outcome.chunk_tasks == 0
    assert str(caught.value) == (
        "max_suspects: suspects of 15 images: value 3, expected at most 2; "
        "max_share: suspect_share of 15 images: value 0.2, expected at most 0.1"
    )
    stages = {*kept, "scan-mixed-progress", "scan-mixed-stages", "scan-mixed-requirements"}
    assert stages <= set(left)
    assert left["scan-mixed-progress"]["progress"] == 100
    assert [one["event"] for one in told] == ["requirements-not-met"]

    for name in scanned_images.ATTACKED[:2]:
        (tmp_path / "mixed" / name).unlink()
    with pytest.raises(RequirementError) as caught:
        scan(**given, max_suspects=2, max_drift=0.1)
    assert str(caught.value) == (
        "max_drift: suspect_share of 13 images: drift 0.1231, expected at most 0.1 "
        "(last run 0.2, difference -0.1231)"
    )
    assert told[-1]["last"]["name"].endswith(".json")
    assert told[-1]["missed"] == [str(caught.value)]

    words = ["scan", tmp_path / "mixed", *WORDS, "--benign", tmp_path / "benign"]
    words += ["--store", tmp_path / "store"]
    assert invoke(*words, "--max-drift", 0.2).exit_code == Exit.DONE
    one_line(invoke(*words, "--max-drift", 0.1), Exit.REQUIREMENT, "difference -0.1231")
    one_line(invoke(*words, "--max-share", 3), Exit.INPUT, "max_share")


def test_a_finished_training_publishes_its_card_again(
    tmp_path: Path, left: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SimpleNamespace(root=tmp_path / "store")
    spec = SimpleNamespace(name="small", compute=SimpleNamespace(retries=0))
    opened = SimpleNamespace(
        **{"spec": spec, "store": store, "outputs": store.root / "small"},
        **dict.fromkeys(("check", "check_images"), lambda: None),
    )
    done = flows.train.TrainOutcome(opened.outputs, tmp_path / "weights", 0, 3, {"name": "small"})
    nothing = SimpleNamespace(with_options=lambda **given: lambda call, part: {})
    for name, stub in {
        "call_of": lambda *given: [],
        "open_trainer": lambda *call: opened,
        "ingest": nothing,
        "_finished": lambda opened: done,
        "in_words": lambda card: f"# {card['name']}",
    }.items():
        monkeypatch.setattr(flows.train, name, stub)
    assert flows.train.train.fn("small.yaml", str(store.root)) is done
    assert left["small-card"]["markdown"] == "# small"
    assert left["small-report"]["link"].endswith("/small/card.md")
    assert left["small-report"]["link_text"] == "model card"


def test_a_purified_folder_publishes_its_log(
    tmp_path: Path, left: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "purified.parquet"
    one = {"label": "median", "folder": "out", "images": 2, "purifier": "Median()"}
    summary = {"images": 2, "source": "in", "out": "out", "log": str(log), "purifiers": [one]}
    outcome = Outcome(tmp_path, 1, 1, {}, summary)
    monkeypatch.setattr(flows.purify, "compute", lambda ready, write: outcome)
    rows = [{"name": "bad.png", "reason": "no image"}]
    monkeypatch.setattr(flows.purify, "refused", lambda found, count: rows)
    bench = SimpleNamespace(spec=SimpleNamespace(name="purify-in"))
    found: Any = SimpleNamespace(bench=bench, folder=tmp_path, changed=[], begin=lambda: None)
    ready: Any = None
    flows.purify._purify(found, ready)
    assert set(left) == {"purify-in-purified", "purify-in-report", "purify-in-rejected"}
    assert left["purify-in-report"]["link"] == log.as_uri()
    assert json.dumps(left["purify-in-purified"]["table"]) == json.dumps(
        [{name: value for name, value in one.items() if name != "purifier"}]
    )
