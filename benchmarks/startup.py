"""How long a command takes to begin: help, a listing, and a run up to its first chunk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-c", "from flows.cli import main; main()"]
SPEC = ROOT / "examples/demo.yaml"
LIMITS = {"--help": 1.0, "list attacks": 3.0, "run": 10.0}
"""Seconds that are aimed at, on a machine that does nothing else."""
TICKS = os.sysconf("SC_CLK_TCK")


def _begin(words: list[str], home: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, *words],
        cwd=ROOT,
        env={**os.environ, "PREFECT_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process so far, its children not counted."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def whole(words: list[str], home: Path) -> tuple[float, float]:
    """Wall and CPU seconds of a command from beginning to end."""
    begun = time.perf_counter()
    process = _begin(words, home)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)}: exit code {process.returncode}")
    return time.perf_counter() - begun, used.ru_utime + used.ru_stime


def first_chunk(home: Path) -> tuple[float, float, float]:
    """Wall seconds of a run up to its first chunk, and CPU seconds of the run and of its server."""
    with tempfile.TemporaryDirectory() as store:
        begun = time.time()
        process = _begin(["run", str(SPEC), "--store", store], home)
        try:
            while not (marks := list(Path(store).glob("data/*/marks/[!.]*.json"))):
                if process.poll() is not None:
                    raise RuntimeError(f"run: exit code {process.returncode} before any chunk")
                time.sleep(0.02)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            server = sum(cpu_seconds(int(child)) for child in children.split())
            own = cpu_seconds(process.pid)
            receipt = json.loads(marks[0].read_bytes())["receipt"]
            return marks[0].stat().st_mtime - float(receipt["seconds"]) - begun, own, server
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=300)


def run(_images: int) -> dict[str, Any]:
    """Wall and CPU seconds of each, twice: the first time files may have to come from disk."""
    figures: dict[str, Any] = {"load of the machine": " ".join(map(str, os.getloadavg()))}
    with tempfile.TemporaryDirectory() as temporary:
        homes = Path(temporary)
        for words in ("--help", "list attacks"):
            for again in ("", ", again"):
                wall, cpu = whole(words.split(), homes / "home")
                figures[f"{words}{again} (aim {LIMITS[words]:g} s)"] = (
                    f"{wall:.2f} s, CPU {cpu:.2f}"
                )
        for state in ("new", "used"):
            wall, own, server = first_chunk(homes / "home")
            name = f"run to first chunk, {state} PREFECT_HOME (aim {LIMITS['run']:g} s)"
            figures[name] = f"{wall:.2f} s, CPU {own:.2f} + server {server:.2f}"
    figures["load of the machine afterwards"] = " ".join(map(str, os.getloadavg()))
    return figures
