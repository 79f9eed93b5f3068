from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from flows import status_table
from flows.cli import Exit, app
from flows.report import render
from flows.watch import Watch, watching
from storage.files import exclusive
from storage.ledger import Ledger, Mark
from tasks.nodes import Node
from tasks.outputs import write_outputs
from tasks.sizes import size_in_words
from tasks.workbench import Workbench
from tests import toy

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC).timestamp()
runner = CliRunner()


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """A run of 40 chunks in each of five stages, none of which is made."""
    return toy.bench(
        tmp_path,
        dataset={"kind": "builtin:shapes", "count": 160, "chunk_size": 4},
        attacks=[{"name": "IFGSM", "label": "attacked", "steps": 2}],
        detectors=[],
        purifiers=[{"name": "Median", "label": "median"}],
        metrics=["accuracy"],
    )


def pretend(watch: Watch, node: Node, index: int, **changes: Any) -> Mark:
    """Mark a chunk as made; its receipt says in how long and when, counted back from ``NOW``."""
    work = watch.state.work(node, index)
    assert work is not None
    ago = changes.pop("ago", 0.0)
    at = datetime.fromtimestamp(NOW - ago, UTC).isoformat()
    mark = Mark(
        key=work.key,
        inputs=work.digests,
        files={},
        content=f"{node.name} {index}",
        images=changes.pop("images", 4),
        receipt={"stage": node.name, "at": at, "seconds": 2.0, **changes},
    )
    watch.bench.store.ledger(node.fingerprint).write(mark)
    return mark


def first(watch: Watch) -> Node:
    return next(iter(watch.state.plan))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the marks that are read."""
    seen: list[str] = []
    original = Ledger.read

    def counted(ledger: Ledger, key: str) -> Mark | None:
        seen.append(key)
        return original(ledger, key)

    monkeypatch.setattr(Ledger, "read", counted)
    return seen


def test_a_look_reads_what_is_new_and_hashes_nothing(
    bench: Workbench, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.ledger.sha256_file", lambda path: pytest.fail("was hashed"))
    watch = Watch(bench, lambda: NOW)
    assert watch.look()["done"] == 0
    assert reads == []
    nodes = list(watch.state.plan)
    for index in range(7):
        pretend(watch, nodes[0], index)
    assert watch.look()["done"] == 7
    assert len(reads) == 7
    assert watch.look()["done"] == 7
    assert len(reads) == 7
    for node in nodes[1:]:
        pretend(watch, node, 3)
        watch.look()
    state = watch.look()
    assert len(reads) == 7 + len(nodes) - 1
    assert {stage["stage"]: stage["done"] for stage in state["stages"]} == {
        node.name: 7 if node is nodes[0] else 1 for node in nodes
    }


def test_rates_and_the_time_that_is_left(bench: Workbench) -> None:
    """Two workers, each a chunk of four images in two seconds, for as long as can be seen."""
    watch = Watch(bench, lambda: NOW)
    node = first(watch)
    for index in range(36):
        pretend(watch, node, index, ago=4 + 2.0 * (index // 2), cpu_seconds=1.5, bytes=10)
    with exclusive(bench.store.root):
        state = watch.look()
    stage = state["stages"][0]
    assert (stage["images"], stage["bytes"], stage["cpu_share"]) == (144, 360, 0.75)
    assert stage["images_per_second"] == 2.0
    # all 36 were finished within the last minute
    assert stage["last_minute"] == pytest.approx(144 / 60, abs=1e-3)
    assert stage["left_seconds"] == 8.0
    assert state["workers"] == 2.0
    left = state["total"] - 36
    assert state["eta_seconds"] == left * 2.0 / 2
    assert state["holder"]["pid"] == str(os.getpid())
    later = Watch(bench, lambda: NOW + 30)
    assert later.look()["stages"][0]["last_minute"] == pytest.approx(4 * 26 / 60, abs=1e-3)


def test_nobody_works_so_nobody_knows_when_it_ends(bench: Workbench) -> None:
    watch = Watch(bench, lambda: NOW)
    pretend(watch, first(watch), 0)
    state = watch.look()
    assert state["holder"] is None
    assert state["eta_seconds"] is None
    assert "no run holds the store" in status_table.status_line(state)
    long_ago = Watch(bench, lambda: NOW + 4000)
    with exclusive(bench.store.root):
        state = long_ago.look()
    # somebody holds the store, but has finished nothing for long: it may decode or be stuck
    assert state["workers"] is None
    assert state["eta_seconds"] is None


def test_a_mark_that_vanishes_is_taken_back_and_counted_again(bench: Workbench) -> None:
    watch = Watch(bench, lambda: NOW)
    node = first(watch)
    marks = [pretend(watch, node, index, attempt=2, bytes=5) for index in range(3)]
    assert watch.look()["failures"] == 3
    path = bench.store.ledger(node.fingerprint).path(marks[1].key)
    path.unlink()
    state = watch.look()
    assert (state["done"], state["failures"], state["bytes"]) == (2, 2, 10)
    assert state["stages"][0]["images"] == 8
    pretend(watch, node, 1, bytes=6)
    state = watch.look()
    assert (state["done"], state["failures"], state["bytes"]) == (3, 2, 16)


def test_what_is_made_from_a_chunk_is_found_by_its_new_content(bench: Workbench) -> None:
    watch = Watch(bench, lambda: NOW)
    ingest, second = list(watch.state.plan)[:2]
    old = pretend(watch, ingest, 0)
    watch.look()
    bench.store.ledger(ingest.fingerprint).path(old.key).unlink()
    watch.look()
    new = Mark(old.key, old.inputs, {}, "other content", 4, old.receipt)
    bench.store.ledger(ingest.fingerprint).write(new)
    watch.look()
    pretend(watch, second, 0)
    assert watch.look()["stages"][1]["done"] == 1


def test_rejected_items_are_those_that_gave_no_image(bench: Workbench) -> None:
    watch = Watch(bench, lambda: NOW)
    pretend(watch, first(watch), 0, images=4)
    pretend(watch, first(watch), 1, images=1)
    assert watch.look()["rejected"] == 3


def test_older_marks_say_less(bench: Workbench) -> None:
    watch = Watch(bench, lambda: NOW)
    pretend(watch, first(watch), 0, at="yesterday")
    state = watch.look()
    assert state["stages"][0]["cpu_share"] is None
    assert state["workers"] is None
    assert "1/" in status_table.status_line(state)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """A finished run with its outputs."""
    folder = tmp_path_factory.mktemp("made")
    toy.write_spec(folder)
    bench = toy.bench(folder)
    state, _ = toy.run(bench)
    write_outputs(state, render)
    return bench


def status(bench: Workbench, *words: str) -> Any:
    spec = str(bench.folder / "toy.yaml")
    command = ["status", spec, "--store", str(bench.store.root), *words]
    return runner.invoke(app, command, catch_exceptions=False)


def test_watching_ends_with_the_run(made: Workbench) -> None:
    result = status(made, "--watch", "--json")
    (line,) = result.stdout.splitlines()
    state = json.loads(line)
    assert result.exit_code == Exit.DONE
    assert state["finished"]
    assert state["done"] == state["total"] == sum(one["total"] for one in state["stages"])
    result = status(made, "--watch")
    assert result.exit_code == Exit.DONE
    assert len(result.stdout.splitlines()) == 1
    assert "finished" in result.stdout


def test_watching_goes_on_until_it_is_interrupted(
    made: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    def slowly(bench: Workbench, every: float) -> Iterator[dict[str, Any]]:
        return watching(bench, every, pause)

    monkeypatch.setattr("flows.watch.watching", slowly)
    index = made.store.run("toy") / "run.json"
    content = index.read_bytes()
    index.unlink()
    try:
        result = status(made, "--watch", "--every", "0.5", "--json")
    finally:
        index.write_bytes(content)
    assert result.exit_code == Exit.UNFINISHED
    assert pauses == [0.5, 0.5, 0.5]
    states = [json.loads(line) for line in result.stdout.splitlines()]
    assert [state["finished"] for state in states] == [False] * 3


def test_watching_sees_a_run_end(made: Workbench) -> None:
    index = made.store.run("toy") / "run.json"
    content = index.read_bytes()
    index.unlink()
    states = watching(made, 0.0, lambda seconds: None)
    assert not next(states)["finished"]
    index.write_bytes(content)
    assert next(states)["finished"]
    assert list(states) == []


def shown(state: dict[str, Any], height: int, monkeypatch: pytest.MonkeyPatch) -> str:
    console = Console(force_terminal=True, width=120, height=height, record=True)
    monkeypatch.setattr(status_table, "Console", lambda: console)
    assert status_table.show_live([state]) is state
    return console.export_text()


def test_a_table_fits_the_screen(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(bench, lambda: NOW)
    pretend(watch, first(watch), 0, bytes=2500, attempt=2)
    state = watch.look()
    whole = shown(state, 60, monkeypatch)
    assert all(stage["stage"] in whole for stage in state["stages"])
    assert "2.5 kB" in whole
    purified = next(one["stage"] for one in state["stages"] if one["kind"] == "purify")
    small = shown(state, 14, monkeypatch)
    assert purified not in small
    rows = status_table.by_kind(state["stages"])
    assert sum(row["total"] for row in rows) == state["total"]
    assert [row["stage"] for row in rows] == ["ingest", "attack", "purify", "score"]
    ingest = rows[0]
    assert (ingest["done"], ingest["images"], ingest["bytes"]) == (1, 4, 2500)
    assert ingest["images_per_second"] == 2.0


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2_340_000_000_000, "2.3 TB")],
)
def test_sizes_in_words(count: int, words: str) -> None:
    assert size_in_words(count) == words


@pytest.mark.slow
def test_watching_a_run_of_another_process(tmp_path: Path) -> None:
    """Beside a run: done never falls, the holder is that process, and the end is seen."""
    spec = toy.write_spec(tmp_path)
    words = [str(spec), "--store", str(tmp_path / "store")]
    run = [sys.executable, "-c", "from flows.cli import main; main()", "run", *words]
    root = Path(__file__).resolve().parents[2]
    working = subprocess.Popen(run, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    stopper = threading.Timer(240, working.kill)
    stopper.start()
    try:
        result = runner.invoke(app, ["status", *words, "--watch", "--every", "0.3", "--json"])
        assert working.wait(timeout=240) == 0
    finally:
        stopper.cancel()
        working.kill()
        working.communicate()
    states = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == Exit.DONE
    counts = [state["done"] for state in states]
    assert counts == sorted(counts)
    holders = {state["holder"]["pid"] for state in states if state["holder"]}
    assert holders == {str(working.pid)}
    assert states[-1]["finished"]
