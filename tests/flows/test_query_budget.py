"""The option ``--query-budget``, of every command that takes a specification with query attacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.cli import Exit
from flows.command import with_budget
from flows.inspect import open_run
from tasks.survey import survey
from tests import toy
from tests.flows.test_cli import invoke, one_line


def write(folder: Path) -> Path:
    return toy.write_spec(
        folder,
        dataset={"kind": "builtin:shapes", "count": 4},
        attacks=[
            {"name": "FGSM", "epsilon": "8/255"},
            {"name": "Square", "label": "square", "epsilon": "8/255", "queries": 500},
        ],
        detectors=[],
        purifiers=[],
    )


def stages(spec: Path, changes: list[str]) -> dict[str, str]:
    bench = open_run(str(spec), str(spec.parent / "store"), changes, None)
    return {node.name: node.fingerprint for node in survey(bench).plan}


def test_results_are_those_of_the_parameter(tmp_path: Path) -> None:
    spec = write(tmp_path)
    plain, budgeted = stages(spec, []), stages(spec, with_budget(spec, [], 3))
    assert budgeted == stages(spec, ["attacks.1.queries=3"])
    changed = {name for name, fingerprint in budgeted.items() if fingerprint != plain[name]}
    assert changed == {"attack/square"}


@pytest.mark.slow
def test_a_run_is_found_again_with_either(tmp_path: Path) -> None:
    spec, store = write(tmp_path), tmp_path / "store"
    made = invoke("run", spec, "--store", store, "--query-budget", 3, "--json")
    assert made.exit_code == Exit.DONE, made.output
    assert json.loads(made.stdout)["chunk_tasks"] > 0
    again = invoke("run", spec, "--store", store, "--set", "attacks.1.queries=3", "--json")
    assert json.loads(again.stdout)["chunk_tasks"] == 0
    there = ["--store", store, "--query-budget", 3]
    assert invoke("status", spec, *there).exit_code == Exit.DONE
    assert invoke("status", spec, "--store", store).exit_code == Exit.UNFINISHED
    assert invoke("verify", spec, *there).exit_code == Exit.DONE
    assert invoke("report", spec, *there).exit_code == Exit.DONE


@pytest.mark.parametrize("command", ["run", "status", "verify", "report", "sweep"])
def test_a_specification_without_a_query_attack(tmp_path: Path, command: str) -> None:
    spec = toy.write_spec(tmp_path)
    result = invoke(command, spec, "--store", tmp_path / "store", "--query-budget", 100)
    one_line(result, Exit.INPUT, "--query-budget: expected an attack", "NES, Square", "toy.yaml")
    assert invoke(command, spec, "--query-budget", 0).exit_code == Exit.INPUT


@pytest.mark.parametrize(
    ("command", "more", "taker"),
    [
        ("run", ["--runner", "threads"], "flows.evaluate.run"),
        ("status", [], "flows.inspect.run_status"),
        ("verify", [], "flows.inspect.verify_run"),
        ("report", [], "flows.inspect.rewrite_report"),
        ("sweep", ["--trials", 2], "flows.sweep.run_sweep"),
    ],
)
def test_every_command_sets_the_parameter_last(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    more: list[Any],
    taker: str,
) -> None:
    spec = write(tmp_path)
    told: list[list[str]] = []

    def take(path: str, store: str, changes: list[str], *rest: Any, **named: Any) -> Any:
        told.append(changes)
        raise ValueError("taken")

    monkeypatch.setattr(taker, take)
    monkeypatch.setattr("flows.embedded.launch_for", lambda *given: None)
    given = [spec, *more, "--set", "seed=1", "--query-budget", 84]
    one_line(invoke(command, *given), Exit.FAILED, "taken")
    assert (told[0][0], told[0][-1]) == ("seed=1", "attacks.1.queries=84")
