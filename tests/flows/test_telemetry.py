from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from flows import metrics
from flows.cli import Exit, app
from flows.telemetry import RunFigures, StageFigures
from storage.ledger import Mark
from tasks import telemetry
from tasks.errors import SpecError
from tasks.gpu_meter import GpuMeter
from tests import toy

runner = CliRunner()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def marks(store: Path) -> list[Mark]:
    found = [Mark.from_bytes(path.read_bytes()) for path in store.glob("data/*/marks/*.json")]
    assert found
    return [mark for mark in found if mark is not None]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A run with a fault that passes, its log, its figures, and what Prometheus was told."""
    folder = tmp_path_factory.mktemp("logged")
    patch = pytest.MonkeyPatch()
    faults = iter([True])
    original = Mark.to_bytes

    def sometimes(mark: Mark) -> bytes:
        if mark.receipt["stage"].startswith("purify/") and next(faults, False):
            raise OSError(5, "Input/output error")
        return original(mark)

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    scraped: list[str] = []

    def scrape(state: Any, render: Any) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            scraped.append(answer.read().decode())
        return write(state, render)

    from flows import evaluate

    write = evaluate.write_outputs
    patch.setattr(Mark, "to_bytes", sometimes)
    patch.setattr("flows.evaluate.write_outputs", scrape)
    spec, log = toy.write_spec(folder), folder / "logs/log.jsonl"
    words = ["run", spec, "--store", folder / "store", "--log", log, "--metrics-port", port]
    result = runner.invoke(app, [*map(str, words), "--json"], catch_exceptions=False)
    patch.undo()
    assert result.exit_code == Exit.DONE, result.output
    return SimpleNamespace(
        spec=spec,
        store=folder / "store",
        log=lines(log),
        told=json.loads(result.stdout),
        scraped=scraped[0],
        port=port,
        errors=result.stderr,
    )


def test_each_chunk_is_told_of_once_as_it_is_in_its_receipt(logged: SimpleNamespace) -> None:
    told = [line for line in logged.log if line["event"] == "chunk finished"]
    receipts = {(m.receipt["stage"], m.receipt["chunk"]): m for m in marks(logged.store)}
    assert sorted((line["stage"], line["chunk"]) for line in told) == sorted(receipts)
    for line in told:
        mark = receipts[(line["stage"], line["chunk"])]
        assert line["run"] == "toy"
        assert line["images"] == mark.images
        for name in ("seconds", "cpu_seconds", "bytes", "attempt"):
            assert line[name] == mark.receipt[name], name
        assert line["worker"].split("/")[:2] == [socket.gethostname(), str(os.getpid())]
    counted = [line["done"] for line in told]
    assert counted == sorted(counted)
    assert counted[-1] == told[-1]["total"] == len(receipts)


def test_bytes_are_those_of_the_files(logged: SimpleNamespace) -> None:
    for path in logged.store.glob("data/*/marks/*.json"):
        mark = Mark.from_bytes(path.read_bytes())
        assert mark is not None
        files = [path.parent.parent / name for name in mark.files]
        assert mark.receipt["bytes"] == sum(len(file.read_bytes()) for file in files)
        assert 0 < mark.receipt["cpu_seconds"] <= mark.receipt["seconds"] + 0.05


def test_a_retry_is_told_with_its_reason(logged: SimpleNamespace) -> None:
    (failed,) = [line for line in logged.log if line["event"] == "chunk failed"]
    assert failed["level"] == "warning"
    assert failed["attempt"] == 1
    assert failed["reason"] == "OSError: [Errno 5] Input/output error"
    assert failed["stage"].startswith("purify/")
    (again,) = [
        line
        for line in logged.log
        if line["event"] == "chunk finished"
        and (line["stage"], line["chunk"]) == (failed["stage"], failed["chunk"])
    ]
    assert again["attempt"] == 2
    assert "attempt 1 failed: OSError" in logged.errors
    assert logged.told["stages"][failed["stage"]]["failures"] == 1


def test_a_run_is_told_of_from_begin_to_end(logged: SimpleNamespace) -> None:
    assert logged.log[0]["event"] == "run begun"
    assert logged.log[0]["total"] == logged.told["chunks"]
    last = logged.log[-1]
    assert last["event"] == "run finished"
    assert last["stages"] == logged.told["stages"]
    assert {"time", "level", "host", "pid", "thread", "message"} <= last.keys()


def test_figures_by_stage_are_sums_of_receipts(logged: SimpleNamespace) -> None:
    stages = logged.told["stages"]
    for name, stage in stages.items():
        own = [mark for mark in marks(logged.store) if mark.receipt["stage"] == name]
        assert stage["done"] == stage["total"] == len(own) == 3
        assert stage["images"] == sum(mark.images for mark in own)
        assert stage["bytes"] == sum(mark.receipt["bytes"] for mark in own)
        seconds = sum(mark.receipt["seconds"] for mark in own)
        assert stage["seconds"] == pytest.approx(seconds, abs=1e-3)
        assert stage["images_per_second"] == pytest.approx(stage["images"] / seconds, rel=1e-2)
        share = sum(mark.receipt["cpu_seconds"] for mark in own) / seconds
        assert stage["cpu_share"] == pytest.approx(share, abs=1e-3)
    assert stages["ingest"]["images"] == 48


def test_prometheus_reads_the_same_figures(logged: SimpleNamespace) -> None:
    families = {one.name: one for one in text_string_to_metric_families(logged.scraped)}
    sources = {**{k: v[1] for k, v in metrics.COUNTERS.items()}, "chunks_done": "done"}
    for name, source in {**sources, "chunks": "total"}.items():
        family = families[f"image_defender_{name}"]
        found = {
            sample.labels["stage"]: sample.value
            for sample in family.samples
            if sample.labels["run"] == "toy"
        }
        assert found.keys() == logged.told["stages"].keys()
        assert family.type == ("counter" if name in metrics.COUNTERS else "gauge")
        for stage, value in found.items():
            if source in logged.told["stages"][stage]:
                assert value == pytest.approx(logged.told["stages"][stage][source], abs=1e-3)
    assert "process_resident_memory_bytes" in families


def test_the_port_is_closed_and_the_log_forgotten_after_the_run(logged: SimpleNamespace) -> None:
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", logged.port)) != 0
    assert telemetry.VARIABLE not in os.environ
    assert not any(isinstance(one, telemetry.LineFile) for one in telemetry.LOG.handlers)


def test_a_port_that_is_taken_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        words = ["run", str(toy.write_spec(tmp_path)), "--metrics-port", port]
        result = runner.invoke(app, [*words, "--store", str(tmp_path / "store")])
    assert result.exit_code == Exit.INPUT
    assert result.stderr.startswith(f"error: metrics-port: expected a free port, got {port}")


def test_a_port_of_the_environment_that_is_taken_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv(metrics.VARIABLE, str(taken.getsockname()[1]))
        with metrics.serving_as_told():
            pass
    assert "expected a free port" in caplog.text


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    with (
        pytest.raises(SpecError, match=r"log: cannot write .*: Is a directory"),
        telemetry.logging_to(str(tmp_path)),
    ):
        pass
    assert telemetry.VARIABLE not in os.environ


def test_events_know_what_they_are_about(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with telemetry.logging_to(str(path)):
        with telemetry.about(run="one"), telemetry.about(stage="attack/a", chunk=3):
            telemetry.event(logging.INFO, "seen", 'a "quoted"\nünïcode line', reason=None)
            # a record of another module, which knows nothing of events
            logging.getLogger("image_defender").warning("%s is slow", "the store")
        telemetry.event(logging.INFO, "seen", "outside")
    inside, other, outside = lines(path)
    assert (inside["run"], inside["stage"], inside["chunk"]) == ("one", "attack/a", 3)
    assert inside["message"] == 'a "quoted"\nünïcode line'
    assert "reason" not in inside
    assert (other["event"], other["message"], other["run"]) == (
        *("message", "the store is slow"),
        "one",
    )
    assert "run" not in outside


def test_logging_that_is_configured_anew_loses_no_line(tmp_path: Path) -> None:
    """Prefect configures logging when its first flow begins, which closes every handler."""
    path = tmp_path / "log.jsonl"
    with telemetry.logging_to(str(path)):
        telemetry.event(logging.INFO, "seen", "before")
        (handler,) = [one for one in telemetry.LOG.handlers if isinstance(one, telemetry.LineFile)]
        handler.close()
        telemetry.event(logging.INFO, "seen", "after")
    assert [line["message"] for line in lines(path)] == ["before", "after"]


WRITER = """
import logging, sys
from tasks import telemetry
telemetry.listen()
for number in range(400):
    telemetry.event(logging.INFO, "seen", "x" * 500, chunk=number, stage=sys.argv[1])
"""


def test_processes_share_a_log_without_mixing_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    environment = {**os.environ, telemetry.VARIABLE: str(path)}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, name], env=environment)
        for name in ("a", "b", "c")
    ]
    assert [one.wait(timeout=60) for one in writers] == [0, 0, 0]
    found = [(line["stage"], line["chunk"]) for line in lines(path)]
    for name in ("a", "b", "c"):
        assert [chunk for stage, chunk in found if stage == name] == list(range(400))


def test_nothing_listens_and_nothing_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.event(logging.INFO, "seen", "nobody is interested")
    assert capsys.readouterr() == ("", "")


def test_figures_of_other_processes_count_their_failures_by_attempt(tmp_path: Path) -> None:
    state, made = toy.run(toy.bench(tmp_path))
    work = made[0]
    figures = RunFigures(state, 1)
    before = figures.stages[work.node.name].done
    with figures:
        own = {"host": telemetry.HOST, "pid": os.getpid(), "attempt": 3, "seconds": 1.0}
        figures.failed(work.node.name, work.index)
        figures.failed(work.node.name, work.index)
        figures.finished(work, own)
        assert figures.stages[work.node.name].failures == 2
        figures.finished(work, {**own, "host": "elsewhere"})
        assert figures.stages[work.node.name].failures == 4
        figures.finished(work, {})
    assert figures.stages[work.node.name].done == before + 3
    assert figures.stages[work.node.name].counted == 2


def test_older_receipts_leave_shares_to_those_that_tell_them() -> None:
    stage = StageFigures("purify", total=4, done=2)
    stage.add({"seconds": 2.0}, 10)
    stage.add({"seconds": 4.0, "cpu_seconds": 3.0, "bytes": 7, "gpu_share": 0.25}, 20)
    told = stage.plain()
    assert (told["images"], told["seconds"], told["bytes"]) == (30, 6.0, 7)
    assert (told["images_per_second"], told["cpu_share"], told["gpu_share"]) == (5.0, 0.75, 0.25)
    assert stage.left_seconds == 6.0
    stage.add({"seconds": 4.0, "cpu_seconds": 3.0, "bytes": 7, "gpu_share": 0.25}, 20, sign=-1)
    assert (stage.images, stage.seconds, stage.measured, stage.gpu_seconds) == (10, 2.0, 0.0, 0.0)


class Driver:
    """An NVML whose GPU computes 0, 50, 100 % of the time, then goes away."""

    def __init__(self) -> None:
        self.seen = iter([0, 50, 100])

    def nvmlDeviceGetUtilizationRates(self, handle: object) -> SimpleNamespace:
        return SimpleNamespace(gpu=next(self.seen))


def test_the_gpu_meter_takes_means_over_its_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.gpu_meter.EVERY", 0.0)
    meter = GpuMeter(Driver(), None)
    while meter.sums()[1] < 3:
        pass
    assert meter.since((0.0, 0)) == {"gpu_share": 0.5}
    assert meter.since((0.5, 2)) == {"gpu_share": 1.0}
    assert meter.since(meter.sums()) == {}


ON_SERVER = """
import json, sys, time
from flows import engine
engine.settle()
from storage.ledger import Mark
faults, original = iter([True]), Mark.to_bytes
def sometimes(mark):
    if mark.receipt["stage"].startswith("purify/") and next(faults, False):
        raise OSError(5, "Input/output error")
    return original(mark)
Mark.to_bytes = sometimes
from flows.evaluate import run
run(sys.argv[1], sys.argv[2])
from prefect.client.orchestration import get_client
from prefect.logging.handlers import APILogWorker
APILogWorker.drain_all(timeout=60)
with get_client(sync_client=True) as client:
    found = [one for n in range(5) for one in client.read_logs(limit=200, offset=200 * n)]
keys = ("name", "level", "message", "flow_run_id", "task_run_id")
print(json.dumps([{key: str(getattr(one, key)) for key in keys} for one in found]))
"""


@pytest.mark.slow
def test_the_same_events_are_in_the_log_of_the_run_on_a_server(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PREFECT_HOME": str(tmp_path / "home"),
        "PREFECT_LOGGING_TO_API_ENABLED": "true",
        "PREFECT_LOGGING_LEVEL": "INFO",
    }
    done = subprocess.run(
        [sys.executable, "-c", ON_SERVER, str(toy.write_spec(tmp_path)), str(tmp_path / "store")],
        cwd=Path(__file__).resolve().parents[2],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0
    own = [one for one in json.loads(done.stdout) if one["name"] == "image_defender"]
    assert len({one["flow_run_id"] for one in own}) == 1
    chunks = [one for one in own if " images in " in one["message"]]
    assert len(chunks) == len(marks(tmp_path / "store"))
    (failed,) = [one for one in own if "attempt 1 failed: OSError" in one["message"]]
    assert failed["level"] == str(logging.WARNING)
    assert failed["task_run_id"] != "None"
