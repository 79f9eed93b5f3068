"""A run that is still going, or was killed: what is there of it can be looked at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from flows.schedule import drive
from storage.errors import DamagedChunk
from storage.files import exclusive
from storage.images import read_images
from tasks import begun
from tasks.outputs import write_outputs
from tasks.stored_runs import NotStored
from tasks.survey import survey
from tasks.views import View
from tests.tasks.stored import PAGE, decoded, gallery_of, library
from tests.toy import Finished, bench, compute


def begin(folder: Path, lanes: int) -> Any:
    """A run that was killed when it had finished some lanes."""
    made = bench(folder)
    made.catalogue(keep=True)
    state = survey(made)
    begun.note(state)

    def submit(work: Any) -> Finished:
        return Finished(lambda: compute(state, work))

    drive(state, list(range(lanes)), submit, window=2, finished=lambda work, receipt: None)
    return state


def test_a_run_that_is_going_shows_what_is_there(tmp_path: Path) -> None:
    state = begin(tmp_path, 1)
    shelf = library(tmp_path / "store")
    (run,) = shelf.runs()
    assert (run.name, run.kind, run.state) == ("toy", "evaluation", "not finished")
    assert run.images == 48
    opened = shelf.open("toy")
    stages = len(list(state.plan))
    assert (opened.status["done"], opened.status["total"]) == (stages, 3 * stages)
    assert opened.status["finished"] is False
    gallery = gallery_of(opened)
    view = gallery.settled(View(gallery.attacks[0], "median", by="psnr", order="worst"))
    page = gallery.page(view)
    assert (page.found, page.total) == (16, 16)
    ref = state.done[("score/none/none", 0)].ref
    rows = pq.read_table(state.bench.store.rows(ref))
    assert gallery.run.column(gallery.run.node("score", "none", purifier="none"), "confidence")[
        3
    ] == pytest.approx(rows["confidence"][3].as_py())
    png = shelf.picture("toy", 1, 3, version="")
    ref = state.done[(gallery.run.nodes[1].name, 0)].ref
    assert np.array_equal(
        decoded(png), read_images(state.bench.store.images(ref))[3].transpose(1, 2, 0)
    )
    with pytest.raises(NotStored, match="finished chunk"):
        shelf.picture("toy", 1, 16, version="")
    with exclusive(tmp_path / "store"):
        assert shelf.runs()[0].state == "going on"


def test_a_run_that_goes_on_and_ends_is_followed(tmp_path: Path) -> None:
    shelf = library(tmp_path / "store")
    begin(tmp_path, 0)
    assert shelf.open("toy").gallery is None
    # the third chunk before the others: places are those that it will keep
    state = begin(tmp_path, 3)
    for (name, index), given in list(state.done.items()):
        if name == "score/none/none" and index == 0:
            state.bench.store.ledger(given.ref.stage).withdraw(given.ref.key)
    gallery = gallery_of(shelf.open("toy"))
    places = [shot.place for shot in gallery.page(gallery.settled(View())).shots]
    assert places == list(range(16, 40))
    state = begin(tmp_path, 3)
    write_outputs(state, lambda *_: PAGE)
    assert shelf.open("toy").status["finished"] is True
    begun.finish(state)
    opened = shelf.open("toy")
    assert opened.status == {}
    assert opened.overview.state == "finished"
    assert opened.gallery is not None
    assert opened.gallery.page(View()).total == 48


def test_stages_that_lag_behind_are_left_out(tmp_path: Path) -> None:
    state = begin(tmp_path, 2)
    attack = next(node.attack for node in state.plan if node.kind == "attack")
    given = state.done[(f"score/{attack}/median", 1)]
    state.bench.store.ledger(given.ref.stage).withdraw(given.ref.key)
    gallery = gallery_of(library(tmp_path / "store").open("toy"))
    whole = gallery.settled(View(attack, "none"))
    assert gallery.page(whole).found == 32
    assert gallery.page(replace(whole, purifier="median")).found == 16


def test_a_damaged_note_gives_a_sentence(tmp_path: Path) -> None:
    begin(tmp_path, 0)
    (tmp_path / "store" / "toy" / begun.NOTE).write_text("{}")
    shelf = library(tmp_path / "store")
    assert [run.state for run in shelf.runs()] == ["damaged"]
    with pytest.raises(DamagedChunk, match=begun.NOTE):
        shelf.open("toy")


def test_what_a_killed_note_left_goes_with_the_note(tmp_path: Path) -> None:
    state = begin(tmp_path, 0)
    folder = state.bench.store.run("toy")
    (folder / f".{begun.NOTE}.0123456789ab.tmp").write_bytes(b"{")
    begun.finish(state)
    assert list(folder.iterdir()) == []
