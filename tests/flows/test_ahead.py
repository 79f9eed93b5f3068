"""Images that are decoded before the server is there count as any other chunk."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from flows import ahead, embedded
from flows.evaluate import run
from tasks.survey import survey
from tests import toy
from tests.cloud import TIMED, everything


def wait_for(count: int, made: list[Any]) -> None:
    until = time.monotonic() + 60
    while len(made) < count:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_chunks_are_made_in_order_and_the_state_is_left_alone(tmp_path: Path) -> None:
    state = survey(toy.bench(tmp_path))
    with ahead.decoding(state, [2, 0, 1]) as made:
        wait_for(3, made)
    assert [(work.node.name, work.index) for work, _ in made] == [
        ("ingest", 2),
        ("ingest", 0),
        ("ingest", 1),
    ]
    assert [mark.images for _, mark in made] == [16, 16, 16]
    assert state.done == {}
    found = survey(toy.bench(tmp_path))
    assert set(found.done) == {("ingest", 0), ("ingest", 1), ("ingest", 2)}
    with ahead.decoding(found, [0, 1, 2]) as again:
        pass
    assert again == []


def test_it_ends_with_the_chunk_in_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    compute = ahead.compute_chunk

    def slow(*given: Any) -> Any:
        begun.append(given[2])
        time.sleep(0.2)
        return compute(*given)

    monkeypatch.setattr(ahead, "compute_chunk", slow)
    with ahead.decoding(survey(toy.bench(tmp_path)), [0, 1, 2]) as made:
        wait_for(1, begun)
    assert len(made) == len(begun) < 3


def test_failures_are_left_to_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def fails(*given: Any) -> Any:
        tried.append(given[2])
        raise OSError("no such luck")

    monkeypatch.setattr(ahead, "compute_chunk", fails)
    with ahead.decoding(survey(toy.bench(tmp_path)), [0, 1, 2]) as made:
        wait_for(1, tried)
    assert made == []
    assert tried == [0]


@pytest.mark.slow
def test_a_run_counts_what_was_made_ahead_and_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = toy.write_spec(tmp_path)
    early: list[int] = []
    start = embedded.start

    def patient(meanwhile: Callable[[], AbstractContextManager[object]]) -> None:
        with meanwhile():
            until = time.monotonic() + 60
            while len(list((tmp_path / "a").glob("data/*/marks/*.json"))) < 2:
                assert time.monotonic() < until
                time.sleep(0.01)
        early.append(len(list((tmp_path / "a").glob("data/*/marks/*.json"))))
        start()

    monkeypatch.setattr(embedded, "start", patient)
    outcome = run(str(spec), str(tmp_path / "a"))
    assert early[0] >= 2
    assert outcome.chunk_tasks == outcome.chunks
    assert outcome.stages["ingest"]["images"] == 48
    monkeypatch.setattr(embedded, "start", lambda _meanwhile: start())
    other = run(str(spec), str(tmp_path / "b"))
    assert other.chunk_tasks == other.chunks
    made, expected = everything(tmp_path / "a"), everything(tmp_path / "b")
    assert made.keys() == expected.keys()
    assert {name for name in made if made[name] != expected[name]} <= {f"toy/{n}" for n in TIMED}
    again = run(str(spec), str(tmp_path / "a"))
    assert again.chunk_tasks == 0
