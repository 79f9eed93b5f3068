"""The soak test: a run on two Dask workers and a Prefect server, under faults of every kind."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from flows import server
from flows.processes import noted as noted_process
from storage.ledger import Mark
from tests import toy
from tests.cloud import TIMED, everything
from tests.dask_cluster import ROOT, end, scheduler, start_worker
from tests.soak.faults import BEGUN, FAILED, MADE, REFUSED, noted, settings

SHARE = 1 / 20
"""Share of the store's operations that fail."""
STUCK = 240.0
"""Seconds in which a run must finish a chunk while no fault is on."""
SETTLED = 240.0
"""Seconds in which every flow run must have ended on the dashboard, after the last process did."""
WORKERS = 2
SECOND, WORKER, BYTE, RUN, DISK, SERVER = (
    "a second run is started",
    "a worker is killed",
    "a byte of a stored file is flipped",
    "the run is killed",
    "the disk is full until a write meets it",
    "the server is killed",
)
FAULTS = {SECOND: 2, WORKER: 4, BYTE: 4, RUN: 3, DISK: 2, SERVER: 1}
"""Every fault once, in this order: a second run waits when the first is killed. Then at random, as
often as their weights say."""


class Soak:
    """One soak.

    Args:
        folder: of everything.
        seed: of the faults.
        images: of the run.
    """

    def __init__(self, folder: Path, seed: int, images: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.chance = random.Random(seed)
        self.store = folder / "disk" / "store"
        self.store.mkdir(parents=True)
        self.full = folder / "full"
        changes = {
            "dataset": {"kind": "builtin:shapes", "count": images, "chunk_size": 20},
            "compute": {"batch": 8, "workers": WORKERS, "device": "cpu"},
        }
        self.spec = toy.write_spec(folder, **changes)
        self.log: Counter[str] = Counter()
        self.began = time.monotonic()
        self.runs: list[subprocess.Popen[bytes]] = []
        self.workers: list[subprocess.Popen[str]] = []
        self.scheduler = ""
        self.home = folder / "server"
        self.port = _free_port()
        self.chunks = 0

    def run(self, seconds: float) -> list[str]:
        """Disturb a run for so long, let it finish, and say what is wrong in the end."""
        self.say("undisturbed run")
        calm = self.folder / "calm"
        self._finish([*_command(self.spec, calm)], {**os.environ})
        expected = everything(calm)
        self.chunks = len(list(calm.glob("data/*/marks/*.json")))
        self.say(f"{self.chunks} chunks")
        with contextlib.ExitStack() as stack:
            stack.callback(self._server, "down")
            self.say("starting the server")
            self._server("up")
            stack.enter_context(self._cluster())
            stack.callback(self._end_runs)
            self._disturb(seconds)
            self._end_runs()
            self.full.unlink(missing_ok=True)
            self.say("no more faults; the run goes on to its end")
            self._server("up")
            self._finish(self._words(), self._environment(0.0))
            problems = self._compare(expected)
            checked = subprocess.run(
                _command(self.spec, self.store, "verify"), cwd=ROOT, capture_output=True, text=True
            )
            if checked.returncode:
                problems.append(f"verify: {checked.stdout}{checked.stderr}")
            problems += self._unended()
        return problems

    def table(self) -> str:
        """Faults, chunks and runs in words."""
        lines = [f"{kind:<40} {count}" for kind, count in sorted(self.log.items())]
        notes = noted(self.folder)
        lines += [
            f"{'chunks of the run':<40} {self.chunks}",
            f"{'operations that failed in passing':<40} {notes[FAILED].total()}",
            f"{'writes that met a full disk':<40} {notes[REFUSED].total()}",
            f"{'chunks begun':<40} {notes[BEGUN].total()}",
            f"{'chunks made':<40} {notes[MADE].total()}",
            f"{'of these made again':<40} {self.again}",
            f"{'at most, by the faults':<40} {self.again_at_most}",
            f"{'seconds':<40} {time.monotonic() - self.began:.0f}",
        ]
        return "\n".join(lines)

    @property
    def again(self) -> int:
        """Chunks that were made although they had been made before."""
        made = noted(self.folder)[MADE]
        return made.total() - len(made)

    @property
    def again_at_most(self) -> int:
        """What the faults can cost: the chunks in flight, or the one whose byte was flipped."""
        return sum(self.log[name] * (1 if name == BYTE else WORKERS) for name in FAULTS)

    def say(self, text: str) -> None:
        """Tell what happens, with the second it happens at."""
        print(f"{time.monotonic() - self.began:7.1f} s  {text}", flush=True)

    def _disturb(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        for name in FAULTS:
            while True:
                self._let_work(3)
                if self._do(name):
                    break
        while time.monotonic() < until:
            self._let_work(self.chance.randrange(2, 20))
            self._do(self.chance.choices(list(FAULTS), list(FAULTS.values()))[0])

    def _do(self, name: str) -> bool:
        actions = {
            SECOND: self._start_run,
            WORKER: self._kill_worker,
            BYTE: self._corrupt,
            RUN: self._kill_run,
            DISK: self._fill_disk,
            SERVER: self._kill_server,
        }
        done = actions[name]()
        if done:
            self.say(name)
            self.log[name] += 1
        return done

    def _let_work(self, chunks: int) -> None:
        """Wait until so many more chunks are made, or for so long that something may be wrong."""
        self._keep_running()
        before, until = self._count(), time.monotonic() + 45
        while self._count() < before + chunks and time.monotonic() < until:
            if all(run.poll() is not None for run in self.runs):
                return
            time.sleep(0.2)

    def _count(self) -> int:
        return noted(self.folder)[MADE].total()

    def _keep_running(self) -> None:
        for run in [one for one in self.runs if one.poll() is not None]:
            self.runs.remove(run)
            self.say(f"a run ended with exit code {run.returncode}")
            self.log[f"runs that ended with exit code {run.returncode}"] += 1
        if not self.runs:
            self._start_run()
        for place, worker in enumerate(self.workers):
            if worker.poll() is not None:
                self.workers[place] = self._start_worker()

    def _start_run(self) -> bool:
        if len(self.runs) >= 2:
            return False
        errors = (self.folder / "runs.log").open("ab")
        self.runs.append(
            subprocess.Popen(
                self._words(),
                cwd=ROOT,
                env=self._environment(SHARE),
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        )
        errors.close()
        return True

    def _kill_run(self) -> bool:
        run = next((one for one in self.runs if one.poll() is None), None)
        if run is None:
            return False
        run.kill()
        run.wait()
        return True

    def _kill_worker(self) -> bool:
        worker = self.chance.choice(self.workers)
        worker.kill()
        worker.wait()
        return True

    def _kill_server(self) -> bool:
        found = noted_process(server.place_of(self.home).server)
        if found is None:
            return False
        os.kill(found.pid, 9)
        time.sleep(self.chance.uniform(0, 5))
        self._server("up")
        return True

    def _server(self, command: str) -> None:
        """Start or stop the server as a user does, in a process that knows of no other server."""
        port = ["--port", str(self.port)] if command == "up" else []
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", command, "--home", str(self.home), *port],
            cwd=ROOT,
            env={**kept, "PREFECT_HOME": str(self.folder / "client")},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")

    def _fill_disk(self) -> bool:
        met, until = noted(self.folder)[REFUSED].total(), time.monotonic() + 45
        self.full.touch()
        while noted(self.folder)[REFUSED].total() == met and time.monotonic() < until:
            self._keep_running()
            time.sleep(0.2)
        self.full.unlink()
        return noted(self.folder)[REFUSED].total() > met

    def _corrupt(self) -> bool:
        marks = sorted(self.store.glob("data/*/marks/[!.]*.json"))
        path = self.chance.choice(marks) if marks else None
        mark = Mark.from_bytes(path.read_bytes()) if path else None
        if path is None or mark is None:
            return False
        path = self.chance.choice([path, *(path.parents[1] / name for name in mark.files)])
        with contextlib.suppress(FileNotFoundError):
            data = bytearray(path.read_bytes())
            data[self.chance.randrange(len(data))] ^= 1 << self.chance.randrange(8)
            path.write_bytes(data)
            return True
        return False

    def _words(self) -> list[str]:
        words = _command(self.spec, self.store)[3:]
        runner = ["--runner", f"dask:{self.scheduler}"]
        return [sys.executable, "-m", "tests.soak.faults", *words, *runner]

    def _environment(self, rate: float) -> dict[str, str]:
        return {
            **server.environment(server.place_of(self.home), self.port),
            "PREFECT_LOGGING_LEVEL": "CRITICAL",
            **settings(self.folder, self.store, rate),
        }

    def _finish(self, words: list[str], environment: dict[str, str]) -> None:
        """Run to the end; whoever makes no chunk for long is stuck."""
        with (self.folder / "runs.log").open("ab") as errors:
            run = subprocess.Popen(
                words, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=errors
            )
        last, since = -1, time.monotonic()
        while run.poll() is None:
            done = sum(1 for _ in self.folder.glob("*/**/marks/*.json"))
            if done != last:
                last, since = done, time.monotonic()
            if time.monotonic() - since > STUCK:
                run.kill()
                raise RuntimeError(f"no chunk in {STUCK:.0f} s: see {self.folder / 'runs.log'}")
            time.sleep(0.5)
        if run.returncode:
            raise RuntimeError(
                f"exit code {run.returncode}: {(self.folder / 'runs.log').read_text()[-2000:]}"
            )

    def _compare(self, expected: dict[str, bytes]) -> list[str]:
        found = everything(self.store)
        problems = [f"missing: {name}" for name in expected.keys() - found.keys()]
        problems += [
            f"differs: {name}"
            for name in expected.keys() & found.keys()
            if found[name] != expected[name] and name not in {f"toy/{one}" for one in TIMED}
        ]
        return problems + [f"left over: {name}" for name in found.keys() - expected.keys()]

    def _unended(self) -> list[str]:
        """Flow runs that are neither finished nor known to be dead, after some time."""
        self.say("waiting until every flow run has ended on the dashboard")
        words: list[str] = []
        until = time.monotonic() + SETTLED
        while time.monotonic() < until:
            states = self._states()
            words = [f"flow run {n} is {s}" for n, s in states if s in ("RUNNING", "PENDING")]
            if not words:
                counted = Counter(state for _, state in states)
                self.log.update({f"flow runs {k.lower()}": v for k, v in counted.items()})
                return []
            time.sleep(5)
        return words

    def _states(self) -> list[tuple[str, str]]:
        code = (
            "from prefect import get_client\n"
            "with get_client(sync_client=True) as client:\n"
            "    for run in client.read_flow_runs(limit=200):\n"
            "        print(run.name.replace(' ', '_'), run.state_type.value)\n"
        )
        told = subprocess.run(
            [sys.executable, "-c", code],
            env=self._environment(0.0),
            capture_output=True,
            text=True,
            check=True,
        )
        return [(one[0], one[1]) for line in told.stdout.splitlines() if (one := line.split())]

    @contextlib.contextmanager
    def _cluster(self) -> Iterator[None]:
        with scheduler() as self.scheduler:
            self.workers = [self._start_worker() for _ in range(WORKERS)]
            try:
                yield
            finally:
                end(self.workers)

    def _start_worker(self) -> subprocess.Popen[str]:
        patient = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "10s"}
        return start_worker(
            self.scheduler,
            ["--preload", "tests.soak.faults"],
            {**self._environment(SHARE), **patient},
        )

    def _end_runs(self) -> None:
        for run in self.runs:
            run.kill()
            run.wait()
        self.runs.clear()


def _command(spec: Path, store: Path, command: str = "run") -> list[str]:
    return [sys.executable, "-m", "flows.cli", command, str(spec), "--store", str(store)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
