"""The command ``sweep``: what it finds, and that it can be interrupted anywhere."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections import namedtuple
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.cli import Exit
from flows.evaluate import run
from flows.sweep_page import verdict
from tests.flows.page import Page
from tests.flows.test_cli import invoke, one_line
from tests.flows.test_report import check
from tests.flows.test_restart import finish, keep, start
from tests.tasks.test_sweep_specs import content

TRIALS = 6
OUTPUTS = {"sweep.json", "sweep.html", "run.json", "study.db"}
CLEAN_GAIN = 0.0012
"""A bound that some of the trials keep and some break."""


def write(folder: Path, search: dict[str, Any] | None = None, **changes: Any) -> Path:
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(content({"trials": TRIALS, **(search or {})}, **changes)))
    return path


def words(spec: Path, store: Path, *more: object) -> list[object]:
    return ["sweep", spec, "--store", store, *more]


def summary_of(store: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((store / "toy/sweep.json").read_bytes())
    return found


def chunks(store: Path, kind: str) -> list[Path]:
    """Marks of the chunks of the trials' own stages of a kind."""
    marks = [(path, json.loads(path.read_bytes())) for path in store.glob("data/*/marks/*.json")]
    return [path for path, mark in marks if mark["receipt"]["stage"].startswith(f"{kind}/")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """The specification of a sweep, its store, and what it printed as JSON."""
    folder = tmp_path_factory.mktemp("sweep")
    spec = write(folder, {"constraints": {"clean_gain": CLEAN_GAIN}})
    result = invoke(*words(spec, folder / "store", "--json"))
    assert result.exit_code == Exit.DONE, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith(f"{TRIALS}/{TRIALS}")]
    assert len(lines) == 1, result.stderr
    return spec, folder / "store", json.loads(result.stdout)


Finished = tuple[Path, Path, dict[str, Any]]


def test_the_front_is_what_nothing_else_betters(finished: Finished) -> None:
    _, store, printed = finished
    summary = summary_of(store)
    trials = summary["trials"]
    assert [one["trial"] for one in trials] == list(range(1, TRIALS + 1))
    assert len({one["purifier"] for one in trials}) == TRIALS
    kept = [one for one in trials if one["groups"]["clean"]["gain"] <= CLEAN_GAIN]
    assert 0 < len(kept) < TRIALS
    assert [one["feasible"] for one in trials] == [one in kept for one in trials]
    best = set()
    for one in kept:
        gain, quality = one["mean"]["gain"]["value"], one["mean"]["quality"]["value"]
        assert one["objectives"] == {"gain": gain, "quality": quality}
        better = [
            other
            for other in kept
            if other["objectives"]["gain"] <= gain
            and other["objectives"]["quality"] >= quality
            and other["objectives"] != one["objectives"]
        ]
        if not better:
            best.add(one["trial"])
    assert set(summary["front"]) == best
    assert {one["trial"] for one in trials if one["front"]} == best
    gains = [trials[number - 1]["objectives"]["gain"] for number in summary["front"]]
    assert all(a < b for a, b in pairwise(gains))
    assert printed["front"] == [trials[number - 1] for number in summary["front"]]
    assert (printed["trials"], printed["trials_now"]) == (TRIALS, TRIALS)
    assert {path.name for path in (store / "toy").iterdir()} == OUTPUTS


def test_attacks_are_made_once_and_a_run_of_the_same_purifier_shares_every_chunk(
    finished: Finished, tmp_path: Path
) -> None:
    _, store, printed = finished
    assert len(chunks(store, "attack")) == 2
    # decoded, two attacks; the compared purifier and each trial on three inputs, all scored
    assert printed["chunk_tasks"] == 3 + 3 + (1 + TRIALS) * 6
    trial = printed["front"][0]
    given = content(name="single", purifiers=["resize(0.5)", trial["purifier"]])
    del given["sweep"]
    given["metrics"] = ["gain", "quality", "srcc"]
    path = tmp_path / "single.yaml"
    path.write_text(yaml.safe_dump(given))
    outcome = run(str(path), str(store))
    assert outcome.chunk_tasks == 0
    assert outcome.summary is not None
    (line,) = (o for o in outcome.summary["leaderboard"] if o["purifier"] == trial["purifier"])
    assert {name: line[name] for name in ("mean", "groups", "attacks")} == {
        name: trial[name] for name in ("mean", "groups", "attacks")
    }


def test_a_second_call_computes_nothing_and_keeps_every_byte(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, store, printed = finished
    before = {path.name: path.read_bytes() for path in (store / "toy").iterdir()}
    monkeypatch.setattr("flows.embedded.start", lambda: pytest.fail("the engine was started"))
    again = json.loads(invoke(*words(spec, store, "--json")).stdout)
    assert again == {**printed, "trials_now": 0, "chunk_tasks": 0}
    assert {path.name: path.read_bytes() for path in (store / "toy").iterdir()} == before
    told = invoke(*words(spec, store)).stdout
    assert "0 of 6 trials were done now, 0 chunks were computed" in told
    assert verdict(summary_of(store)) in told
    assert all(one["purifier"] in told for one in printed["front"])


def test_the_page_holds_the_front_and_every_trial(finished: Finished) -> None:
    summary = summary_of(finished[1])
    text = (finished[1] / "toy/sweep.html").read_text()
    page = Page(text)
    check(page, text)
    for one in summary["trials"]:
        assert one["purifier"] in page.text()
    assert page.text().count("breaks a constraint") == sum(
        not one["feasible"] for one in summary["trials"]
    )
    assert "clean gain at most 0.0012" in page.text("verdict")
    assert "no purifier" in page.text()
    assert "half" in page.text()


def test_more_trials_go_on_from_those_that_are_done(finished: Finished, tmp_path: Path) -> None:
    spec, store = finished[0], tmp_path / "store"
    shutil.copytree(finished[1], store)
    before = summary_of(store)["trials"]
    more = json.loads(invoke(*words(spec, store, "--trials", TRIALS + 1, "--json")).stdout)
    assert (more["trials"], more["trials_now"], more["chunk_tasks"]) == (TRIALS + 1, 1, 6)
    assert [one["purifier"] for one in summary_of(store)["trials"][:TRIALS]] == [
        one["purifier"] for one in before
    ]


@pytest.mark.parametrize("keep_images", [True, False])
def test_an_interrupted_sweep_comes_to_the_same(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep_images: bool
) -> None:
    """The third trial is interrupted when its chunks are made and nothing is noted of it."""
    from flows import sweep as flow

    original, calls = flow.measure, []

    def broken(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args)

    search = {"constraints": {"clean_gain": CLEAN_GAIN}, "keep_images": keep_images}
    spec = write(tmp_path, search)
    with monkeypatch.context() as patched:
        patched.setattr("flows.sweep.measure", broken)
        result = invoke(*words(spec, tmp_path / "store"))
    assert result.exit_code == Exit.INTERRUPTED
    assert result.stderr.splitlines()[-1].startswith("error: interrupted; run the same command")
    assert not (tmp_path / "store/toy/sweep.json").exists()
    made = len(chunks(tmp_path / "store", "purify/ifgsm"))
    assert made == (4 if keep_images else 2)
    again = json.loads(invoke(*words(spec, tmp_path / "store", "--json")).stdout)
    assert again["trials_now"] == TRIALS - 2
    assert again["chunk_tasks"] == (TRIALS - 3) * 6
    found, expected = summary_of(tmp_path / "store"), summary_of(finished[1])
    assert found["trials"] == expected["trials"]
    assert found["front"] == expected["front"]
    assert found["baselines"] == expected["baselines"]
    kept = chunks(tmp_path / "store", "purify/ifgsm")
    assert len(kept) == (TRIALS + 1 if keep_images else 1)


def test_a_model_is_defended_by_accuracy(tmp_path: Path) -> None:
    search = {"trials": 2, "space": ["median({window})"], "ranges": {"window": [3, 5]}}
    given = content(
        search,
        metric=None,
        model={"name": "python:tests.toy:make_model"},
        attacks=[{"name": "FGSM", "epsilon": "8/255", "label": "fgsm"}],
        purifiers=[],
    )
    spec = tmp_path / "toy.yaml"
    spec.write_text(yaml.safe_dump({**given, "sweep": search}))
    result = invoke(*words(spec, tmp_path / "store", "--trials", 9))
    assert result.exit_code == Exit.DONE, result.output
    assert "2 of 2 trials were done now" in result.stdout
    summary = summary_of(tmp_path / "store")
    for one in summary["trials"]:
        accuracy = {"accuracy": one["attacks"]["fgsm"]["accuracy"]}
        accuracy["clean_accuracy"] = one["attacks"]["none"]["accuracy"]
        assert one["objectives"] == accuracy
    run_of = {**given, "metrics": ["accuracy"], "purifiers": ["median(3)", "median(5)"]}
    del run_of["sweep"]
    spec.write_text(yaml.safe_dump(run_of))
    outcome = run(str(spec), str(tmp_path / "store"))
    assert outcome.summary is not None
    found = {(r["purifier"], r["attack"]): r["value"] for r in outcome.summary["rows"]}
    for one in summary["trials"]:
        assert one["attacks"]["fgsm"]["accuracy"] == found[(one["purifier"], "fgsm")]
        assert one["attacks"]["none"]["accuracy"] == found[(one["purifier"], "none")]


def test_what_cannot_be_swept_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    spec = write(tmp_path, {"space": ["jpge({quality})"], "ranges": {"quality": [50]}})
    one_line(invoke(*words(spec, store)), Exit.INPUT, "sweep.space[0]", "jpge")
    one_line(invoke(*words(tmp_path / "no.yaml", store)), Exit.INPUT, "no.yaml", "found none")
    spec = write(tmp_path)
    one_line(invoke(*words(spec, store, "--set", "sweep.seed=x")), Exit.INPUT, "sweep.seed")
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "optuna", None)
        one_line(invoke(*words(spec, store)), Exit.INPUT, "image-defender[sweep]")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("storage.files.shutil.disk_usage", lambda path: usage(1, 1, 70_000))
    result = invoke(*words(spec, store, "--trials", 400))
    one_line(result, Exit.BUDGET, "disk:")
    assert not list(store.glob("data/*/marks/*"))


def test_a_damaged_study_is_named(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished[1], tmp_path / "store")
    (tmp_path / "store/toy/study.db").write_bytes(b"not a database at all " * 500)
    one_line(invoke(*words(finished[0], tmp_path / "store")), Exit.DAMAGE, "study.db", "remove")


@pytest.mark.slow
def test_kills_anywhere_change_no_trial(finished: Finished, tmp_path: Path) -> None:
    spec, store = finished[0], tmp_path / "store"
    seen: dict[str, bytes] = {}
    moments = [
        ("storage.ledger:Ledger.write", 2, "before"),
        ("tasks.compute:write_images", 3, "after"),
        ("tasks.sweep_study:Study.ask", 1, "after"),
        ("tasks.sweep_study:Study.tell", 1, "before"),
        ("optuna.storages._rdb.storage:RDBStorage.set_trial_state_values", 3, "before"),
        ("tasks.sweep_study:Study.tell", 2, "after"),
        ("tasks.outputs:write_atomic", 1, "after"),
    ]
    command = words(spec, store, "--trials", TRIALS)
    for moment in moments:
        killed = ["tests.flows.killed", moment[0], str(moment[1]), moment[2], "--"]
        process = start([*killed, *map(str, command)])
        assert finish(process) == -signal.SIGKILL, moment
        keep(seen, store)
    assert finish(start(["flows.cli", *map(str, command)])) == 0
    keep(seen, store)
    assert summary_of(store) == summary_of(finished[1])
