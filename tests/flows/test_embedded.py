from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from flows import embedded

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was launched, in place of servers."""
    seen: list[str] = []
    monkeypatch.setattr(embedded, "launch", lambda: seen.append("server"))
    return seen


@pytest.mark.parametrize(
    ("assignments", "finished", "count"),
    [
        ([], "other", 1),
        ([], "named", 0),
        (["name=other"], "other", 0),
        (["seed=3", "name=third"], "named", 1),
    ],
)
def test_a_run_that_was_finished_once_starts_no_server_early(
    tmp_path: Path, launched: list[str], assignments: list[str], finished: str, count: int
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump({"name": "named"}))
    (tmp_path / "store" / finished).mkdir(parents=True)
    (tmp_path / "store" / finished / "run.json").write_text("{}")
    for store in (str(tmp_path / "store"), f"file://{tmp_path}/store"):
        launched.clear()
        embedded.launch_for(spec, store, assignments)
        assert len(launched) == count, store


@pytest.mark.parametrize("content", ["", "a: [", "- a list", "seed: 1"])
def test_what_is_wrong_with_a_specification_is_for_others_to_say(
    tmp_path: Path, launched: list[str], content: str
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(content)
    embedded.launch_for(spec, str(tmp_path / "store"))
    embedded.launch_for(tmp_path / "none.yaml", str(tmp_path / "store"))
    assert len(launched) == 2


def test_no_server_is_launched_beside_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "Server", lambda: pytest.fail("a server was started"))
    monkeypatch.setattr(embedded, "_servers", [])
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    embedded.launch()


STEPS = """
import os, signal, sys, time
from flows import embedded, engine
engine.settle()
embedded.launch()
early = embedded._servers[-1]
assert "prefect" not in sys.modules and "torch" not in sys.modules
if sys.argv[1] == "never":
    print(early.process.pid)
    sys.exit()
embedded.start()
from prefect.settings import get_current_settings
assert get_current_settings().api.url == early.url
assert "PREFECT_API_URL" not in os.environ
embedded.launch()
embedded.start()
assert embedded._servers == [early]
early.process.kill()
early.process.wait()
embedded.start()
assert get_current_settings().api.url == embedded._servers[-1].url != early.url
print(embedded._servers[-1].process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("use", ["never", "always"])
def test_a_server_lives_as_long_as_its_run(tmp_path: Path, use: str) -> None:
    """It is there before Prefect, is replaced if it dies, and ends with a run that is killed."""
    done = subprocess.run(
        [sys.executable, "-c", STEPS, use],
        cwd=ROOT,
        env={**os.environ, "PREFECT_HOME": str(tmp_path / "home")},
        stdout=subprocess.PIPE,
        text=True,
        timeout=280,
    )
    assert done.returncode == (0 if use == "never" else -signal.SIGKILL)
    until = time.monotonic() + 120
    # one that was never used comes up first, so that its database is whole
    while runs(int(done.stdout)):
        assert time.monotonic() < until
        time.sleep(0.2)
