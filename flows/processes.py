"""Processes that run in the background: noted in files, recognised again, and stopped.

A number alone does not say which process is meant: after a crash the system gives it to another.
A note therefore holds the moment at which the process started, too, and a process counts as the
one that was noted only if both agree.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from storage.files import write_atomic

BOOT = Path("/proc/sys/kernel/random/boot_id")
STARTED = 19
"""Place of the start in ``/proc/<pid>/stat`` after the name, see proc(5); the state is first."""
POLL = 0.1
"""Seconds between looks at a process that is to end."""


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for another.

    Args:
        pid: its number.
        started: clock ticks between the start of the system and its own.
        boot: identity of that start of the system.
    """

    pid: int
    started: int
    boot: str

    @property
    def alive(self) -> bool:
        """Whether it still runs; one that has ended and was not waited for yet does not."""
        fields = _stat(self.pid)
        if fields is None or fields[0] == "Z":
            return False
        return int(fields[STARTED]) == self.started and _boot() == self.boot

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.alive:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return


def process_of(pid: int) -> Process | None:
    """The process that has a number now, or None."""
    fields = _stat(pid)
    return None if fields is None else Process(pid, int(fields[STARTED]), _boot())


def note(path: Path, process: Process) -> None:
    """Write a process into a file."""
    write_atomic(path, json.dumps(asdict(process)).encode())


def noted(path: Path) -> Process | None:
    """The process of a file, or None where there is none, it is damaged or the process is gone."""
    try:
        process = Process(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return process if process.alive else None


def launch(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path
) -> Process:
    """Start a process that outlives this one and ignores this terminal.

    Args:
        command: program and arguments.
        environment: all of its environment.
        folder: its working directory.
        log: file to which its output is appended.
    """
    with log.open("ab") as sink:
        child = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    started = process_of(child.pid)
    if started is None:
        raise RuntimeError(f"{command[0]}: expected a running process, it ended at once: see {log}")
    # it is not waited for here, which is on purpose and no reason for a warning
    child.returncode = 0
    return started


def marked(name: str, value: str) -> list[Process]:
    """Every process whose environment has a variable with a value, but for this one."""
    wanted = f"{name}={value}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or belongs to somebody else
            continue
        process = process_of(int(entry.name)) if wanted in variables else None
        if process is not None and process.alive:
            found.append(process)
    return found


def end(processes: Iterable[Process], patience: float) -> int:
    """Ask processes to end, and kill those that do not in time.

    Args:
        processes: all of them are asked at once.
        patience: seconds to wait.

    Returns:
        How many had to be killed.
    """
    asked = list(processes)
    for one in asked:
        one.send(signal.SIGTERM)
    wait_for(asked, patience)
    left = [one for one in asked if one.alive]
    for one in left:
        one.send(signal.SIGKILL)
    wait_for(left, patience)
    return len(left)


def wait_for(processes: Iterable[Process], seconds: float) -> bool:
    """Wait until processes have ended; returns whether all of them have."""
    waiting = list(processes)
    until = time.monotonic() + seconds
    while True:
        for one in waiting:
            _reap(one.pid)
        waiting = [one for one in waiting if one.alive]
        if not waiting or time.monotonic() > until:
            return not waiting
        time.sleep(POLL)


def _reap(pid: int) -> None:
    """Let a child of ours that has ended go; of other processes nothing is known here."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except (ChildProcessError, OSError):
        return


def _stat(pid: int) -> list[str] | None:
    """State, parent and so on of a process as proc(5) lists them, None where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # the name stands in brackets and may hold brackets and spaces itself
    return text.rpartition(")")[2].split()


def _boot() -> str:
    return BOOT.read_text().strip()
