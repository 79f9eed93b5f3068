from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from flows import gates
from flows.cli import Exit, app
from flows.report import render
from flows.requirement_words import sections, signed, verdict
from flows.requirements import raise_unmet
from flows.scorecard import DASH
from tasks.errors import RequirementError
from tasks.outputs import write_outputs
from tasks.requirements import judged
from tests import toy
from tests.tasks.test_requirements import ATTACK, requirement, row

ROOT = Path(__file__).resolve().parents[2]
MET = {"metric": "accuracy", "min": 0.01}
BROKEN = {"metric": "accuracy", "attack": "pgd", "purifier": "median", "min": 0.9, "drift": 0.5}
SMALL: dict[str, Any] = {
    "dataset": {"kind": "builtin:shapes", "count": 16, "chunk_size": 16},
    "attacks": ATTACK,
    "detectors": [],
    "purifiers": [{"name": "Median", "label": "median"}],
}


class Listener:
    """A server on this machine that keeps what it is sent."""

    def __init__(self, status: int = 200) -> None:
        self.got: list[tuple[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.got.append((self.headers["Content-Type"], json.loads(body)))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook/secret"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = Listener()
    monkeypatch.setenv(gates.NOTIFY, made.url)
    yield made
    made.close()


def finish(folder: Path, *require: dict[str, Any]) -> Path:
    """A finished run, made without the engine; returns its specification."""
    state, _ = toy.run(toy.bench(folder, **SMALL, require=list(require)))
    write_outputs(state, render)
    return toy.write_spec(folder, **SMALL, require=list(require))


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The specification of a finished run that breaks a requirement; the store lies beside it."""
    return finish(tmp_path_factory.mktemp("broken"), MET, BROKEN)


def run(spec: Path, *words: str) -> Result:
    words = ("run", str(spec), "--store", str(spec.parent / "store"), *words)
    return CliRunner().invoke(app, list(words), catch_exceptions=False)


def test_a_run_that_breaks_a_requirement_ends_with_its_own_code(
    broken: Path, listener: Listener
) -> None:
    result = run(broken)
    assert result.exit_code == Exit.REQUIREMENT == 7, result.output
    assert "nothing to do" in result.stdout
    [line] = result.stderr.strip().splitlines()
    assert line.startswith("error: require[1]: accuracy of attack pgd, purifier median: value ")
    assert line.endswith("expected at least 0.9")
    assert "NOT MET" in result.stdout
    assert (broken.parent / "store/toy/report.html").is_file()
    [(kind, told)] = listener.got
    assert kind == "application/json"
    assert told["event"] == "requirements-not-met"
    assert told["run"] == "toy"
    assert told["missed"] == [line.removeprefix("error: ")]
    assert told["missed"][0] in told["text"]
    assert [one["requirement"]["min"] for one in told["requirements"]] == [0.9]


def test_a_verdict_in_json(broken: Path) -> None:
    result = run(broken, "--json")
    assert result.exit_code == Exit.REQUIREMENT
    found = json.loads(result.stdout)
    assert [one["passed"] for one in found["requirements"]] == [True, False]
    assert found["last"] is None


def test_a_run_that_meets_its_requirements_tells_nobody(tmp_path: Path, listener: Listener) -> None:
    result = run(finish(tmp_path, MET))
    assert result.exit_code == Exit.DONE, result.output
    assert "NOT MET" not in result.stdout
    assert "met" in result.stdout
    assert listener.got == []


def test_a_mistake_in_a_requirement_is_found_before_anything_is_computed(tmp_path: Path) -> None:
    wrong = {**BROKEN, "purifier": "medain"}
    result = run(toy.write_spec(tmp_path, **SMALL, require=[wrong]))
    assert result.exit_code == Exit.INPUT
    assert "require[0].purifier: expected median, any or none, got 'medain'" in result.stderr
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:9/secret", ["127.0.0.1 was not told"]),
        ("file:///etc/passwd", ["expected an http:// or https:// address"]),
        ("secret", ["expected an http:// or https:// address"]),
        ("http://[secret", ["expected an http:// or https:// address"]),
        ("http://127.0.0.1/se cret", ["127.0.0.1 was not told: InvalidURL"]),
        ("http://127.0.0.1:x/secret", ["127.0.0.1 was not told: InvalidURL"]),
    ],
)
def test_an_address_that_cannot_be_told_is_a_warning_and_stays_secret(
    broken: Path, monkeypatch: pytest.MonkeyPatch, url: str, words: list[str]
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv(gates.NOTIFY, url)
    result = run(broken)
    assert result.exit_code == Exit.REQUIREMENT
    warning, error = result.stderr.strip().splitlines()
    assert warning.startswith(f"warning: {gates.NOTIFY}: ")
    assert all(word in warning for word in words)
    assert "cret" not in warning
    assert error.startswith("error: require[1]")


def test_an_answer_that_says_no_is_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = Listener(status=500)
    monkeypatch.setenv(gates.NOTIFY, made.url)
    problem = gates.notify({"text": "x"})
    made.close()
    assert problem is not None
    assert "500" in problem or "Internal Server Error" in problem
    assert len(made.got) == 1


def test_requirements_as_a_page_shows_them() -> None:
    rows = [row(value=0.31, attack="pgd", purifier="jpeg"), row(value=0.5)]
    last = [row(value=0.42, attack="pgd", purifier="jpeg")]
    found = judged(
        [requirement(attack="pgd", purifier="jpeg", min=0.4), requirement(drift=0.1)], rows, last
    )
    first, second = sections(found)
    [line] = first["lines"]
    assert line["where"] == "pgd · jpeg"
    assert (line["value"], line["last"], line["difference"]) == (
        "31.0\u00a0%",
        "42.0\u00a0%",
        "-11.0 pp",
    )
    assert line["notes"] == ["value 0.31, expected at least 0.4"]
    assert second["lines"][0]["where"] == "no attack · no purifier"
    assert second["lines"][0]["difference"] == DASH
    assert verdict(found) == [
        "1 of 2 requirements are not met: accuracy, attack pgd, purifier jpeg: at least 0.4."
    ]
    assert verdict(found[1:]) == ["The requirement is met."]
    assert verdict([]) == []
    [gone] = sections(judged([requirement(attack="gone", min=0)], rows, last))
    assert not gone["lines"][0]["passed"]


def test_signs_of_differences() -> None:
    assert signed("psnr", 1.5) == "+1.50"
    assert signed("accuracy", 0.0) == "±0.0 pp"
    assert signed("accuracy", None) == DASH


def test_what_a_scored_defence_misses_is_an_error() -> None:
    raise_unmet(())
    with pytest.raises(RequirementError, match="first; second"):
        raise_unmet(("first", "second"))


def test_the_automation_of_the_docs_is_one_that_prefect_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The code is run, but for what would reach a server; that is given to the server's models."""
    from prefect.automations import Automation
    from prefect.blocks.webhook import Webhook
    from prefect.server.events.schemas.automations import AutomationCore, EventTrigger
    from prefect.server.utilities.user_templates import render_user_template_sync

    text = (ROOT / "docs/gates.md").read_text()
    [code] = [one for one in re.findall(r"```python\n(.*?)```", text, re.S) if "Automation" in one]
    saved: list[Any] = []
    made: list[Automation] = []
    block = "0a1b2c3d-0000-4000-8000-000000000000"
    monkeypatch.setattr(Webhook, "save", lambda hook, *name, **more: saved.append(hook) or block)
    monkeypatch.setattr(Automation, "create", lambda found: made.append(found))
    monkeypatch.setattr("sys.argv", ["automation.py", "https://chat.example/secret"])
    exec(compile(code, "gates.md", "exec"), {})
    assert saved[0].url.get_secret_value() == "https://chat.example/secret"
    found = AutomationCore.model_validate(made[0].model_dump(mode="json", exclude_unset=True))
    assert isinstance(found.trigger, EventTrigger)
    assert found.trigger.expects("prefect.flow-run.Failed")
    assert not found.trigger.expects("prefect.flow-run.Completed")
    [action] = found.actions
    assert str(action.block_document_id) == block
    run = SimpleNamespace(name="nightly/shapes", state=SimpleNamespace(message='value "0.3"\nlow'))
    sent = json.loads(render_user_template_sync(action.payload, {"flow_run": run}))
    assert sent == {"text": 'nightly/shapes: value "0.3"\nlow'}
    related = found.trigger.match_related
    assert related["prefect.resource.id"] == ["prefect.tag.evaluate"]
    assert related["prefect.resource.role"] == ["tag"]


@pytest.mark.slow
def test_the_flow_fails_after_its_outputs_and_artifacts(tmp_path: Path, listener: Listener) -> None:
    from prefect import get_client

    from flows.evaluate import evaluate

    spec = toy.write_spec(tmp_path, **SMALL, require=[MET, BROKEN])
    state = evaluate(str(spec), str(tmp_path / "store"), return_state=True)
    assert state.is_failed()
    assert state.message is not None
    assert "require[1]: accuracy of attack pgd, purifier median: value" in state.message
    assert "expected at least 0.9" in state.message
    summary = json.loads((tmp_path / "store/toy/summary.json").read_text())
    assert [one["passed"] for one in summary["requirements"]] == [True, False]
    assert len(listener.got) == 1
    with get_client(sync_client=True) as client:
        keys = {one.key for one in client.read_artifacts()}
    assert {"toy-requirements", "toy-scores", "toy-report"} <= keys
    result = run(spec)
    assert result.exit_code == Exit.REQUIREMENT
    assert "nothing to do" in result.stdout


@pytest.mark.slow
def test_a_run_that_computes_ends_with_the_code_too(tmp_path: Path) -> None:
    result = run(toy.write_spec(tmp_path, **SMALL, require=[BROKEN]))
    assert result.exit_code == Exit.REQUIREMENT, result.output
    assert "chunks were computed now" in result.stdout
    assert "error: require[0]" in result.stderr
