"""Kill the run anywhere, start it again: the bytes at the end are the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import toy

ROOT = Path(__file__).resolve().parents[2]

MOMENTS = [
    ("tasks.compute:write_images", 3, "before"),
    ("zarr.core.array:Array.__setitem__", 2, "after"),
    ("tasks.compute:write_images", 7, "after"),
    ("tasks.compute:write_rows", 4, "before"),
    ("tasks.compute:write_rows", 9, "after"),
    ("storage.ledger:Ledger.write", 5, "before"),
    ("storage.ledger:Ledger.write", 12, "after"),
    ("storage.ledger:write_atomic", 8, "before"),
    ("storage.files:temporary_name", 20, "after"),
    ("storage.files:os.fsync", 15, "before"),
    ("tasks.outputs:write_rows", 2, "after"),
    ("tasks.outputs:write_atomic", 1, "before"),
    ("flows.report:render", 1, "after"),
    ("tasks.outputs:write_atomic", 4, "before"),
]


def command(spec: Path, store: Path) -> list[str]:
    return ["run", str(spec), "--store", str(store)]


def start(words: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "default"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def servers() -> set[int]:
    """Processes of embedded servers that killed runs have left behind."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
            ours = os.environ["PREFECT_HOME"].encode() in (folder / "environ").read_bytes()
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if ours and parent != os.getpid() and b"prefect.server.api.server:create_app" in words:
            found.add(int(folder.name))
    return found


def finish(process: subprocess.Popen[bytes]) -> int:
    _, errors = process.communicate(timeout=240)
    if process.returncode not in (0, -signal.SIGKILL):
        pytest.fail(errors.decode())
    return process.returncode


def marks(store: Path) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in store.glob("data/*/marks/*.json")}


def results(store: Path) -> dict[str, bytes]:
    """Every stored byte of images, rows and scores; nothing that tells times."""
    found = {}
    for path in store.rglob("*"):
        if path.is_file() and path.parent.name != "marks":
            found[str(path.relative_to(store))] = path.read_bytes()
    for name in (".lock", "toy/report.html", "toy/run.json"):
        found.pop(name, None)
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("undisturbed")
    spec = toy.write_spec(folder)
    assert finish(start(["flows.cli", *command(spec, folder / "store")])) == 0
    return spec, folder / "store"


def check_end(spec: Path, store: Path, expected: Path, seen: dict[str, bytes]) -> None:
    assert finish(start(["flows.cli", *command(spec, store)])) == 0
    final = marks(store)
    assert all(final[name] == content for name, content in seen.items()), "computed twice"
    assert results(store) == results(expected)


def kill_at(spec: Path, store: Path, moment: tuple[str, int, str]) -> int:
    words = ["tests.flows.killed", moment[0], str(moment[1]), moment[2], "--"]
    return finish(start(words + command(spec, store)))


def keep(seen: dict[str, bytes], store: Path) -> None:
    """Marks may appear, and must then stay what they are."""
    now = marks(store)
    assert all(now.get(name) == content for name, content in seen.items()), "computed twice"
    seen.update(now)


def test_a_few_kills(tmp_path: Path, undisturbed: tuple[Path, Path]) -> None:
    spec, expected = undisturbed
    seen: dict[str, bytes] = {}
    for moment in (MOMENTS[1], MOMENTS[5], MOMENTS[12]):
        assert kill_at(spec, tmp_path / "store", moment) == -signal.SIGKILL, moment
        keep(seen, tmp_path / "store")
    deadline = time.monotonic() + 20
    while servers() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert servers() == set(), "a killed run left its server behind"
    check_end(spec, tmp_path / "store", expected, seen)


@pytest.mark.slow
def test_kills_at_every_kind_of_moment(tmp_path: Path, undisturbed: tuple[Path, Path]) -> None:
    spec, expected = undisturbed
    for number, moment in enumerate(MOMENTS):
        store = tmp_path / str(number)
        assert kill_at(spec, store, moment) == -signal.SIGKILL, moment
        seen: dict[str, bytes] = {}
        keep(seen, store)
        check_end(spec, store, expected, seen)


@pytest.mark.slow
def test_twenty_kills_at_random_moments(tmp_path: Path, undisturbed: tuple[Path, Path]) -> None:
    spec, expected = undisturbed
    store = tmp_path / "store"
    choice = random.Random(20)
    seen: dict[str, bytes] = {}
    kills = 0
    for _attempt in range(60):
        process = start(["flows.cli", *command(spec, store)])
        while process.poll() is None and len(marks(store)) <= len(seen):
            time.sleep(0.005)
        time.sleep(choice.uniform(0.0, 0.06))
        if process.poll() is None:
            process.kill()
            kills += 1
        finish(process)
        keep(seen, store)
        if kills == 20:
            break
        if process.returncode == 0:
            for name in choice.sample(sorted(seen), 3):
                (store / name).unlink()
                del seen[name]
            (store / "toy/run.json").unlink(missing_ok=True)
    assert kills == 20
    check_end(spec, store, expected, seen)


def test_a_finished_run_starts_no_task(undisturbed: tuple[Path, Path]) -> None:
    spec, store = undisturbed
    before = {p: p.stat().st_mtime_ns for p in store.rglob("*") if p.is_file()}
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *command(spec, store), "--json"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    assert '"chunk_tasks": 0' in done.stdout
    after = {p: p.stat().st_mtime_ns for p in store.rglob("*") if p.is_file()}
    after.pop(store / ".lock")
    before.pop(store / ".lock")
    assert after == before
