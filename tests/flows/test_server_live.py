"""A server as it is used: up, runs from the command line, a form and a schedule, kills, down."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.processes import end, marked
from flows.server import MARK
from tests.toy import write_spec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = {"toy-scores", "toy-detectors", "toy-report", "toy-example", "toy-progress"}
BROWSER = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
BROWSER += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
PICTURES = os.environ.get("IMAGE_DEFENDER_PICTURES")
"""Folder to which the pages that are looked at are written as pictures, for the docs."""


class Server:
    """A server of the test's own, with its settings in the environment of its commands."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.address = f"http://127.0.0.1:{self.port}"
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        self.environment |= {"PREFECT_HOME": str(folder / "client"), "OMP_NUM_THREADS": "1"}

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """``image-defender``, without a word of a server in its environment."""
        return self._run([sys.executable, "-m", "flows.cli", *words], self.environment)

    def prefect(self, *words: str) -> str:
        """``prefect``, told of this server."""
        done = self._run([sys.executable, "-m", "prefect", *words], self.told)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def told(self) -> dict[str, str]:
        return {**self.environment, "PREFECT_API_URL": f"{self.address}/api"}

    def ask(self, path: str, content: Any = None) -> Any:
        """What the server answers."""
        request = urllib.request.Request(
            f"{self.address}/api/{path}",
            json.dumps(content or {}).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def runs(self) -> list[dict[str, Any]]:
        """All flow runs, the latest first."""
        found = self.ask("flow_runs/filter", {"sort": "EXPECTED_START_TIME_DESC"})
        return [run for run in found if run["state_type"] != "SCHEDULED" or run["parameters"]]

    def artifacts(self, run: dict[str, Any]) -> dict[str, dict[str, Any]]:
        asked = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
        return {one["key"]: one for one in self.ask("artifacts/filter", asked)}

    def _run(self, command: list[str], variables: dict[str, str]) -> Any:
        return subprocess.run(
            command,
            cwd=ROOT,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=400,
        )


def until(found: Callable[[], Any], seconds: float) -> Any:
    """Wait until there is something."""
    limit = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < limit, f"expected it within {seconds} s"
        time.sleep(0.3)
    return answer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    began = time.monotonic()
    done = made.command("up", "--port", str(made.port), "--home", str(made.home))
    assert done.returncode == 0, done.stdout + done.stderr
    print(f"up: {time.monotonic() - began:.1f} s")
    assert f"dashboard {made.address}" in done.stdout
    yield made
    end(marked(MARK, str(made.home)), 10)


@pytest.fixture(scope="module")
def spec(server: Server) -> str:
    attack = {"name": "IFGSM", "label": "I-FGSM", "epsilon": "8/255", "step_size": "2/255"}
    changes = {"model": {"name": "shapes-cnn"}, "attacks": [{**attack, "steps": 10}]}
    return str(write_spec(server.folder, **changes))


@pytest.fixture(scope="module")
def store(server: Server) -> str:
    return str(server.folder / "store")


def last(server: Server, state: str, known: set[str]) -> Any:
    """The flow run that was not there before, once it has a state."""
    new = [run for run in server.runs() if run["id"] not in known]
    ended = {"Failed", "Crashed"} - {state}
    assert not [run for run in new if run["state_name"] in ended]
    return next((run for run in new if run["state_name"] == state), None)


def test_up_again_says_that_it_is_up(server: Server) -> None:
    done = server.command("up", "--home", str(server.home), "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["address"] == server.address
    assert (said["started"], said["deployed"], said["lost"]) == (False, False, [])


def test_a_run_from_the_command_line(server: Server, spec: str, store: str) -> None:
    began = time.monotonic()
    given = ["--param", f"spec={json.dumps(spec)}", "--param", f"store={json.dumps(store)}"]
    said = server.prefect("deployment", "run", "evaluate/evaluate", *given, "--watch")
    print(f"deployment run: {time.monotonic() - began:.1f} s")
    assert "Completed" in said
    run = server.runs()[0]
    assert run["name"].startswith("toy/shapes/20")
    assert {"evaluate", "gradient"} <= set(run["tags"])
    made = server.artifacts(run)
    assert set(made) >= ARTIFACTS
    stages = json.loads(made["toy-stages"]["data"])
    assert all(one["done"] == one["chunks"] == 3 for one in stages)
    assert made["toy-progress"]["data"] == 100
    told = json.loads(made["toy-scores-given-the-clean-original"]["data"])
    assert {line["knowledge"] for line in told} == {"reference"}
    logs = server.ask("logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}}})
    assert any("Finished in state Completed" in line["message"] for line in logs)
    tasks = server.ask("task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    assert "purify/none/median/2" in {one["name"] for one in tasks}


def test_a_scan_of_the_images_that_come_along(server: Server, store: str) -> None:
    known = {run["id"] for run in server.runs()}
    server.prefect("deployment", "run", "scan/scan", "--param", f"store={json.dumps(store)}")
    run = until(lambda: last(server, "Completed", known), 240)
    assert run["name"].startswith("scan/scan-incoming/20")
    made = server.artifacts(run)
    assert len(json.loads(made["scan-scan-incoming-suspects"]["data"])) == 3
    rejected = json.loads(made["scan-scan-incoming-rejected"]["data"])
    assert [line["name"] for line in rejected] == ["inbox/broken.png"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as tool:
        found = tool.chromium.launch(executable_path=program, args=BROWSER)
        yield found
        found.close()


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    """A page that asks nobody but the server."""
    found = browser.new_page(viewport={"width": 1280, "height": 860})
    asked: list[str] = []
    found.on("request", lambda request: asked.append(request.url))
    yield found
    found.close()
    outside = {u for u in asked if u.startswith("http") and not u.startswith(server.address)}
    assert not outside


def picture(page: Any, name: str) -> None:
    if PICTURES:
        page.wait_for_timeout(1500)
        page.screenshot(path=str(Path(PICTURES) / f"{name}.png"))


def test_a_run_from_the_form(page: Any, server: Server, spec: str) -> None:
    known = {run["id"] for run in server.runs()}
    listed = server.ask("deployments/filter")
    deployment = next(one for one in listed if one["name"] == "evaluate")
    page.goto(f"{server.address}/deployments/deployment/{deployment['id']}/run")
    page.get_by_text("path of the specification file").wait_for(timeout=60_000)
    fields = page.locator("textarea")
    assert fields.nth(0).input_value() == "examples/demo.yaml"
    picture(page, "server-form")
    fields.nth(0).fill(spec)
    fields.nth(1).fill(store := str(server.folder / "form"))
    page.get_by_role("button", name="int", exact=True).click()
    page.locator("input[type=number]").last.fill("32")
    page.get_by_role("button", name="Submit").click()
    run = until(lambda: last(server, "Completed", known), 240)
    assert run["parameters"] == {"spec": spec, "store": store, "assignments": [], "limit": 32}
    page.goto(f"{server.address}/runs/flow-run/{run['id']}")
    page.get_by_text("Completed", exact=True).first.wait_for(timeout=60_000)
    assert page.get_by_text(run["name"]).first.is_visible()
    page.wait_for_timeout(3000)  # the timeline is drawn, and has no text to wait for
    picture(page, "server-run")
    page.get_by_text("Artifacts", exact=True).last.click()
    page.get_by_text("toy-example", exact=True).first.wait_for(timeout=60_000)
    for key in ARTIFACTS:
        assert page.get_by_text(key, exact=True).first.is_visible(), key
    page.get_by_text("toy-example", exact=True).first.scroll_into_view_if_needed()
    picture(page, "server-artifacts")
    made = server.artifacts(run)
    page.goto(f"{server.address}/artifacts/artifact/{made['toy-example']['id']}")
    page.locator("img[src^='data:image']").first.wait_for(timeout=60_000)
    page.wait_for_timeout(500)
    widths = page.evaluate(
        "[...document.images].filter(i => i.src.startsWith('data:')).map(i => i.naturalWidth)"
    )
    assert len(widths) >= 4
    assert min(widths) >= 96
    picture(page, "server-example")
    page.goto(f"{server.address}/artifacts/artifact/{made['toy-scores']['id']}")
    page.get_by_text("attack_success").first.wait_for(timeout=60_000)
    assert page.get_by_text("median", exact=True).first.is_visible()
    picture(page, "server-scores")


def test_a_schedule_fires(server: Server, spec: str, store: str) -> None:
    known = {run["id"] for run in server.runs()}
    first = datetime.now(UTC) + timedelta(seconds=80)
    # a new schedule is noticed within a minute
    when = ["--interval", "86400", "--anchor-date", first.isoformat(), "--timezone", "UTC"]
    server.prefect("deployment", "schedule", "create", "verify/verify", *when)

    def fired() -> Any:
        runs = server.ask("flow_runs/filter", {"sort": "EXPECTED_START_TIME_ASC"})
        return [
            run
            for run in runs
            if run["id"] not in known and run["auto_scheduled"] and run["state_type"] in DONE
        ]

    run = until(fired, 240)[0]
    # the demo has not been run in this store: there is nothing to verify, and no damage
    assert run["state_name"] == "Completed", run["state"]
    late = datetime.fromisoformat(run["start_time"]) - first
    print(f"scheduled run: began {late.total_seconds():.1f} s after its time")
    server.prefect("deployment", "schedule", "clear", "verify/verify", "--accept-yes")


DONE = ("COMPLETED", "FAILED", "CRASHED")


def test_a_run_that_is_killed_is_marked(server: Server) -> None:
    known = {run["id"] for run in server.runs()}
    store = server.folder / "killed"
    server.prefect("deployment", "run", "evaluate/evaluate", "--param", f'store="{store}"')
    run = until(lambda: last(server, "Running", known), 120)
    time.sleep(2)
    os.kill(int(run["infrastructure_pid"]), signal.SIGKILL)
    began = time.monotonic()
    until(lambda: last(server, "Crashed", known), 60)
    print(f"killed, its worker alive: marked after {time.monotonic() - began:.1f} s")


def test_a_run_that_nobody_watches_is_marked(server: Server) -> None:
    known = {run["id"] for run in server.runs()}
    command = [sys.executable, "-m", "flows.cli", "run", "examples/demo.yaml"]
    with subprocess.Popen(
        [*command, "--store", str(server.folder / "alone")],
        cwd=ROOT,
        env=server.told,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        until(lambda: last(server, "Running", known), 120)
        time.sleep(2)
        process.kill()
    began = time.monotonic()
    run = until(lambda: last(server, "Crashed", known), 240)
    print(f"killed, nobody watching: marked after {time.monotonic() - began:.1f} s")
    assert "No heartbeat" in run["state"]["message"]


def test_up_marks_what_its_worker_left_behind(server: Server) -> None:
    known = {run["id"] for run in server.runs()}
    store = server.folder / "left"
    server.prefect("deployment", "run", "evaluate/evaluate", "--param", f'store="{store}"')
    run = until(lambda: last(server, "Running", known), 120)
    worker = json.loads((server.home / "worker.json").read_text())["pid"]
    for pid in (worker, int(run["infrastructure_pid"])):
        os.kill(pid, signal.SIGKILL)
    done = server.command("up", "--home", str(server.home), "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["started"], said["lost"]) == (True, [run["name"]])
    assert last(server, "Crashed", known)["id"] == run["id"]


def test_down_leaves_nothing(server: Server) -> None:
    known = {run["id"] for run in server.runs()}
    store = server.folder / "down"
    server.prefect("deployment", "run", "evaluate/evaluate", "--param", f'store="{store}"')
    until(lambda: last(server, "Running", known), 120)
    before = marked(MARK, str(server.home))
    assert len(before) >= 3
    began = time.monotonic()
    done = server.command("down", "--home", str(server.home))
    print(f"down: {time.monotonic() - began:.1f} s: {done.stdout.strip()}")
    assert done.returncode == 0, done.stderr
    assert "worker" in done.stdout
    assert "server" in done.stdout
    assert marked(MARK, str(server.home)) == []
    assert not any(one.alive for one in before)
    again = server.command("down", "--home", str(server.home))
    assert "nothing runs" in again.stdout
