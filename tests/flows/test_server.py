"""Deployments, their names and tags, and the processes of a server, without a server."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.flows import Flow
from prefect.utilities.callables import parameter_schema

from flows import artifacts, engine, names, server
from flows.cli import Exit
from flows.names import run_name
from flows.processes import Process, end, launch, marked, note, noted, process_of
from storage.errors import StoreBusy
from storage.files import exclusive
from tasks.encoding import Picture
from tasks.families import content_of, dataset_word, families
from tasks.pictures import Strip
from tasks.spec_files import load_spec
from tests.flows.test_cli import invoke, one_line
from tests.toy import write_spec

ROOT = Path(__file__).resolve().parents[2]
CONTENT = yaml.safe_load((ROOT / "prefect.yaml").read_text())
DEPLOYMENTS = {one["name"]: one for one in CONTENT["deployments"]}
EXAMPLES = {
    "demo": (("gradient",), "shapes"),
    "cifar10": (("gradient",), "cifar10"),
    "iqa": (("quality",), "imagenet_samples"),
    "xray-scaling": (("scaling",), "chest_xray"),
    "patch-cifar10": (("patch",), "cifar10"),
    "face-att": (("face",), "att_faces"),
    "train-shapes": ((), "shapes"),
}
IDLE = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); "
    "time.sleep(60)",
]


def flow_of(name: str) -> Flow[..., Any]:
    path, _, function = DEPLOYMENTS[name]["entrypoint"].partition(":")
    assert (ROOT / path).is_file()
    found = getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), function)
    assert isinstance(found, Flow)
    return found


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Process]:
    """A process that would run for a minute."""
    found = running(IDLE, tmp_path)
    yield found
    end([found], 5)


def running(command: list[str], folder: Path, **variables: str) -> Process:
    log = folder / f"{len(list(folder.iterdir()))}.txt"
    found = launch(command, {**os.environ, **variables}, folder, log)
    until = time.monotonic() + 20
    while "up" not in log.read_text():
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


def test_everything_that_is_promised_is_deployed() -> None:
    assert {"evaluate", "sweep", "train", "purify", "scan", "verify"} <= set(DEPLOYMENTS)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_parameters_of_a_deployment_are_those_of_its_flow(name: str) -> None:
    found, given = flow_of(name), DEPLOYMENTS[name].get("parameters", {})
    known = inspect.signature(found.fn).parameters
    assert set(given) <= set(known)
    missing = {n for n, one in known.items() if one.default is one.empty} - set(given)
    # pairs and images of people are nothing that could come along
    assert missing == ({"pairs", "dataset"} if name == "verify-faces" else set())
    if not missing:
        found.validate_parameters(given)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_form_has_words_and_a_type_for_every_parameter(name: str) -> None:
    found = flow_of(name)
    shown = parameter_schema(found).properties
    assert set(shown) == set(inspect.signature(found.fn).parameters)
    for parameter, field in shown.items():
        assert field.get("description"), parameter
        assert {"type", "anyOf", "$ref"} & set(field), parameter


def test_the_form_offers_choices_and_limits() -> None:
    scan = parameter_schema(flow_of("scan")).properties
    assert scan["library"]["enum"] == ["opencv", "pillow", "torch"]
    assert scan["limit"]["anyOf"][0] == {"minimum": 1, "type": "integer"}
    purify = parameter_schema(flow_of("purify"))
    options = purify.definitions["PurifyOptions"]
    assert "chunk_size" in options["properties"]
    assert options["additionalProperties"] is False


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_paths_that_a_deployment_is_given_are_there(name: str) -> None:
    given = DEPLOYMENTS[name].get("parameters", {})
    for parameter in ("spec", "source", "path", "benign"):
        if parameter in given:
            assert (ROOT / given[parameter]).exists()


def test_schedules_are_there_switched_off_and_have_limits() -> None:
    schedules = {name: one["schedules"] for name, one in DEPLOYMENTS.items() if "schedules" in one}
    assert set(schedules) == {"evaluate", "scan"}
    assert all(one["active"] is False for listed in schedules.values() for one in listed)
    for name, listed in schedules.items():
        for one in listed:
            given = {**DEPLOYMENTS[name]["parameters"], **one["parameters"]}
            flow_of(name).validate_parameters(given)
            if name == "evaluate":
                required = load_spec(ROOT / given["spec"]).require
                assert any(spec.drift is not None for spec in required)
            else:
                assert {"max_share", "max_drift"} <= set(given)


@pytest.mark.parametrize("name", EXAMPLES)
def test_families_and_images_of_a_specification(name: str) -> None:
    content = content_of(str(ROOT / "examples" / f"{name}.yaml"))
    assert (families(content), dataset_word(content)) == EXAMPLES[name]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"attacks": ["square", {"name": "I-FGSM"}, {"name": "what"}]}, {"gradient", "query"}),
        ({"attacks": ["Square", "GridPatch"], "encoder": "mobilefacenet"}, {"patch", "face"}),
        ({"attacks": None, "pipeline": {"target": "8x8"}}, {"scaling"}),
        ({"attacks": "not a list"}, set()),
        ([], set()),
    ],
)  # fmt: skip
def test_families_of_odd_specifications(content: Any, expected: set[str]) -> None:
    assert set(families(content)) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"dataset": {"kind": "folder", "path": "/data/my.photos/"}}, "my"),
        ({"dataset": {"kind": "builtin:photos"}}, "photos"),
        ({"dataset": "cifar10"}, "cifar10"),
        ({}, "images"),
        (None, "images"),
    ],
)
def test_words_for_images(content: Any, expected: str) -> None:
    assert dataset_word(content) == expected


def test_a_run_is_named_by_specification_images_and_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"spec": str(write_spec(tmp_path)), "assignments": ["dataset.kind=builtin:photos"]}
    monkeypatch.setattr("flows.names.runtime.flow_run.get_parameters", lambda: given)
    name, images, date = run_name().split("/")
    assert (name, images) == ("toy", "photos")
    time.strptime(date, "%Y-%m-%d %H:%M")
    monkeypatch.setattr(
        "flows.names.runtime.flow_run.get_parameters", lambda: {"spec": "gone.yaml"}
    )
    assert run_name().startswith("gone/images/")


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_every_deployed_flow_is_tagged_and_noted_when_it_begins(name: str) -> None:
    found = flow_of(name)
    assert found.on_running_hooks == names.BEGUN
    assert found.name == name


def test_a_process_is_known_by_more_than_its_number(tmp_path: Path, idle: Process) -> None:
    path = tmp_path / "note.json"
    note(path, idle)
    assert noted(path) == idle
    other = Process(idle.pid, idle.started + 1, idle.boot)
    assert not other.alive
    note(path, other)
    assert noted(path) is None
    other.send(signal.SIGKILL)
    assert end([Process(idle.pid, idle.started, "another start of the system")], 0.1) == 0
    assert idle.alive


@pytest.mark.parametrize("content", ["", "{}", "12", '{"pid": 1}', '{"pid": '])
def test_a_damaged_note_names_no_process(tmp_path: Path, content: str) -> None:
    path = tmp_path / "note.json"
    path.write_text(content)
    assert noted(path) is None


def test_a_process_that_does_not_end_is_killed(tmp_path: Path) -> None:
    gentle, stubborn = running(IDLE, tmp_path), running(STUBBORN, tmp_path)
    assert end([gentle, stubborn], 0.5) == 1
    assert not gentle.alive
    assert not stubborn.alive
    assert process_of(stubborn.pid) is None


def test_processes_are_found_by_their_environment(tmp_path: Path) -> None:
    mine = running(IDLE, tmp_path, IMAGE_DEFENDER_TEST=str(tmp_path))
    try:
        assert marked("IMAGE_DEFENDER_TEST", str(tmp_path)) == [mine]
        assert marked("IMAGE_DEFENDER_TEST", f"{tmp_path}x") == []
    finally:
        end([mine], 5)
    assert marked("IMAGE_DEFENDER_TEST", str(tmp_path)) == []


def test_down_leaves_a_stranger_alone_that_has_the_number(tmp_path: Path, idle: Process) -> None:
    place = server.place_of(tmp_path / "home")
    place.home.mkdir()
    for path in (place.server, place.worker):
        path.write_text(json.dumps({"pid": idle.pid, "started": 1, "boot": idle.boot}))
    found = invoke("down", "--home", str(place.home))
    assert found.exit_code == 0
    assert "nothing runs" in found.output
    assert idle.alive
    assert not place.server.exists()


def test_down_stops_what_a_worker_left_behind(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    orphan = running(IDLE, tmp_path, **{server.MARK: str(home)})
    assert server.stop(home) == ["1 processes of flow runs"]
    assert not orphan.alive
    assert server.stop(home) == []
    assert server.stop(tmp_path / "never") == []


def test_up_says_that_its_port_is_taken(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind((server.HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        found = invoke("up", "--home", str(tmp_path / "home"), "--port", str(port))
    one_line(found, Exit.FAILED, f"expected a free port, got {port}")
    assert not (tmp_path / "home" / "server.json").exists()


def test_up_says_that_it_runs_at_another_port(tmp_path: Path, idle: Process) -> None:
    place = server.place_of(tmp_path / "home")
    place.home.mkdir()
    note(place.server, idle)
    place.remember(4300)
    found = invoke("up", "--home", str(place.home), "--port", "4301")
    one_line(found, Exit.FAILED, "expected 4300")
    assert idle.alive


def test_up_needs_deployments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flows.server.flows.__file__", str(tmp_path / "site" / "flows" / "x.py"))
    found = invoke("up", "--home", str(tmp_path / "home"))
    one_line(found, Exit.FAILED, "expected prefect.yaml")


def test_two_ups_at_once_wait_for_each_other(tmp_path: Path) -> None:
    with exclusive(tmp_path), pytest.raises(StoreBusy), exclusive(tmp_path, wait=False):
        pass


def test_the_environment_of_a_server_is_of_this_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere/api")
    monkeypatch.setenv("PREFECT_API_KEY", "secret")
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "DEBUG")
    found = server.environment(server.place_of(tmp_path), 4300)
    assert found["PREFECT_API_URL"] == found["PREFECT_SERVER_UI_API_URL"]
    assert found["PREFECT_API_URL"] == "http://127.0.0.1:4300/api"
    assert found["PREFECT_HOME"] == str(tmp_path)
    assert found["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert found["PREFECT_SERVER_UI_V2_ENABLED"] == "false"
    assert found["PREFECT_LOGGING_LEVEL"] == "DEBUG"
    assert "PREFECT_API_KEY" not in found


QUESTION = (
    "from flows import engine; engine.settle(); import logging; from prefect.logging import "
    "get_run_logger, get_logger; from prefect.settings import get_current_settings as s; "
    "from prefect.logging.configuration import setup_logging; setup_logging(); "
    "log = logging.getLogger('prefect.flow_runs'); "
    "print(log.isEnabledFor(logging.INFO), s().logging.to_api.enabled)"
)


@pytest.mark.parametrize("how", ["nothing", "environment", "profile"])
def test_logs_reach_a_server_where_there_is_one(tmp_path: Path, how: str) -> None:
    variables = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    variables |= {"PREFECT_HOME": str(tmp_path)}
    if how == "environment":
        variables["PREFECT_API_URL"] = "http://127.0.0.1:1/api"
    if how == "profile":
        (tmp_path / "profiles.toml").write_text(
            'active = "here"\n[profiles.here]\nPREFECT_API_URL = "http://127.0.0.1:1/api"\n'
        )
    answer = subprocess.run(
        [sys.executable, "-c", QUESTION],
        env=variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.split() == (["False"] * 2 if how == "nothing" else ["True"] * 2)


@pytest.mark.parametrize("content", ["", "active = 1", "active = 'x'\n[profiles]\nx = 2", "]["])
def test_odd_profiles_are_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    (tmp_path / "profiles.toml").write_text(content)
    assert not engine.has_server()


def row(**changes: Any) -> dict[str, Any]:
    base = {"attack": "PGD", "detector": "none", "policy": "none", "purifier": "median"}
    return base | {"knowledge": "blind", "metric": "accuracy", "value": 0.5, "n": 4} | changes


def test_the_score_card_is_a_line_a_combination() -> None:
    rows = [row(), row(metric="psnr", value=31.256), row(purifier="none", value=None)]
    rows += [row(purifier="oracle", knowledge="reference", value=1.0)]
    rows += [row(detector="GradientMask", policy="observe", metric="roc_auc", value=0.75)]
    tables = dict(artifacts.score_tables(rows))
    line = {"attack": "PGD", "knowledge": "blind"}
    assert tables["scores"] == [
        line | {"purifier": "median", "accuracy": "0.5000", "psnr": "31.26"},
        line | {"purifier": "none", "accuracy": "-", "psnr": ""},
    ]
    assert [line["roc_auc"] for line in tables["detectors"]] == ["0.7500"]
    assert [line["purifier"] for line in tables["scores given the clean original"]] == ["oracle"]
    assert "policies" not in tables


def test_tables_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(artifacts, "create_table_artifact", lambda **given: made.append(given))
    artifacts.publish_rejected("My_run", [{"name": str(i), "reason": "?"} for i in range(60_000)])
    artifacts.publish_rejected("fine", [])
    assert len(made) == 1
    assert made[0]["key"] == "my-run-rejected"
    assert len(made[0]["table"]) == artifacts.LISTED
    assert "first 200 of 60000" in made[0]["description"]


def test_pictures_are_a_table_that_needs_nothing_else() -> None:
    pixel = "data:image/jpeg;base64,AAAA"
    shown = [Picture("original", "a | b", pixel, 200, 200, False, "cat, 99\u00a0%")]
    shown += [Picture("attacked", "c", pixel, 200, 200, False)]
    strip = Strip("best", 1, "x|y.png", "cat", "PSNR 30 dB", shown)
    lines = artifacts.strip_markdown(strip).splitlines()
    assert lines[0] == "x y.png: best, PSNR 30 dB"
    assert lines[2:4] == ["| original | attacked |", "| --- | --- |"]
    assert lines[4] == f"| ![a   b]({pixel}) | ![c]({pixel}) |"
